"""Undamaged files of every format, made by the commands themselves,
so that they are always of the current formats.
"""

import os
import random
import subprocess
import sys
from pathlib import Path

NETWORK = ("--arch", "nano_resnet", "--arch-arg", "width_mult=0.25", "--device", "cpu")
TRAINING = ("train-teacher", "--data", "tiny.csv", *NETWORK, "--epochs", "2")
STATE = "killed.pt.resume"

COMMANDS = (
    ("data", "synth", "--count", "140", "-o", "tiny.csv"),
    (*TRAINING, "-o", "float.pt"),
    ("hessian-sensitivity", "float.pt", "-o", "sensitivity.json", "--data", "tiny.csv"),
    ("quantize", "float.pt", "-o", "int8.pt", "--data", "tiny.csv"),
    (
        *("quantize", "float.pt", "-o", "mixed.pt", "--data", "tiny.csv", "--average-bits", "3"),
        *("--sensitivity", "sensitivity.json"),
    ),
    (
        *("prune", "float.pt", "-o", "dynamic.pt", "--data", "tiny.csv", "--schedule", "dynamic"),
        *("--target-flops", "0.6", "--round-to", "4", "--epochs", "1"),
    ),
    ("export", "float.pt", "-o", "float.onnx"),
    ("export", "mixed.pt", "-o", "mixed.onnx"),
    ("export", "dynamic.pt", "-o", "dynamic.onnx"),
    ("export", "float.onnx", "mixed.onnx", "-o", "board", "--bundle", "--bundle-images", "4"),
    ("eval", "float.onnx", "mixed.onnx", "-o", "eval.json", "--data", "tiny.csv"),
    (
        "bench",
        "float.onnx",
        "mixed.onnx",
        "--runs",
        "5",
        "--warmup",
        "1",
        "--starts",
        "1",
        "-o",
        "bench.json",
    ),
    (
        *(
            "distill",
            "float.pt",
            "-o",
            "student.pt",
            "--data",
            "tiny.csv",
            *NETWORK,
            "--epochs",
            "1",
        ),
        *("--save-logits", "teacher.logits", "--logit-views", "1"),
    ),
    (
        *(
            "distill",
            "teacher.logits",
            "-o",
            "swept.pt",
            "--data",
            "tiny.csv",
            *NETWORK,
            "--epochs",
            "1",
        ),
        *("--grid", "temperature=2,4", "--seeds", "0,1"),
    ),
)


def make_bases(folder: Path) -> None:
    """Fill a folder with them; each command in a process of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for command in COMMANDS:
        code = _in_child(folder, command)
        if code:
            said = (folder / "said").read_text(errors="replace")
            raise RuntimeError(f"fertool {' '.join(command)}: exit code {code}\n{said}")
    _in_child(folder, (*TRAINING, "-o", "killed.pt"), killed=True)
    board = [sys.executable, folder / "board" / "run.py", "--runs", "5", "--starts", "1"]
    (folder / "result.json").write_bytes(subprocess.check_output(board))
    votes = random.Random(0)
    lines = [
        "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    ]
    for number in range(140):
        row = [0] * 10
        for _ in range(10):
            row[votes.randrange(10)] += 1
        lines.append(f"Training,fer{number:07}.png,{','.join(map(str, row))}")
    (folder / "votes.csv").write_text("\n".join(lines) + "\n")


def _in_child(folder: Path, command: tuple[str, ...], killed: bool = False) -> int:
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 70
    try:
        os.chdir(folder)
        said = os.open("said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(said, 1)
        os.dup2(said, 2)
        if killed:
            _die_after_the_first_state()
        from fertool.cli.app import run

        code = run(list(command))
    finally:
        os._exit(code)


def _die_after_the_first_state() -> None:
    real = os.replace

    def replace(source: str, target: str) -> None:
        real(source, target)
        if str(target).endswith(".resume"):
            os._exit(0)

    os.replace = replace
