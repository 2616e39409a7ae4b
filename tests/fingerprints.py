"""What pruning, quantising and exporting make of fixed weights, and short chains of commands, to
compare two versions.

    python tests/fingerprints.py record before.json         # each network of the zoo
    python tests/fingerprints.py chain chains_before.json   # ten chains of commands
    python tests/fingerprints.py compare before.json after.json

`record` draws weights by the names of the tensors; a chain goes from `train-teacher` or `import` to
`export`.

Only the command line, `fertool.models.create` and `save_model` are used, and the `state_dict` of
the files, so that it runs with versions that represent networks in other ways. Files are the same
on the same kind of processor alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from fertool.models import architecture_names, create, save_model
from fertool.spec import InputSpec

Record = dict[str, Any]

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
INPUT = InputSpec(channels=1, size=48)
DATA = "synth:80"
IMAGES = 8
DECIMALS = 5
DIGITS = 8
"""Of a tensor's digest, which only says where a difference is."""
LISTED = 8
BLOCKS = ("mobilenet_v2", "nano_resnet", "resnet18")
IN_STEPS = ("eff_resnet18", "micro_expnet", "shufflenet_v2_x0_5")
FRIENDLY = ("efficientnet_b0", "micro_expnet", "mobilenet_v3_small")
"""Networks with SiLU or HardSwish; replacing them needs an epoch of training."""

ARGUMENTS: dict[str, Record] = {"resnet18": {"width_mult": 0.5}, "resnet50": {"width_mult": 0.25}}
"""Of the largest networks, which at their usual widths take longer than all others together."""
GAINS = {"mobilenet_v2": 0.8, "mobilenet_v3_large": 0.9}
"""Of weights, where at usual sizes the answers are so chaotic that export's comparison of rounded
networks fails.
"""


class Step(NamedTuple):
    """One command line without its `-o`; none for a file that is there already."""

    output: str
    words: str

    def command(self) -> list[str]:
        """Return the words of the command line."""
        name, *rest = self.words.split()
        return [name, *rest, "-o", self.output]


def steps_of(arch: str) -> list[Step]:
    """What is done with a network's model.pt; each file that is recorded is one step."""
    scored = f"prune model.pt --target-flops 0.5 --data {DATA} --criterion kl --no-bench"
    steps = [
        Step("pruned_l1.pt", "prune model.pt --target-flops 0.5 --no-bench"),
        Step("pruned_kl.pt", scored),
    ]
    if arch in BLOCKS:
        steps.append(Step("pruned_blocks.pt", f"{scored} --prune-blocks 1"))
    if arch in IN_STEPS:
        steps.append(Step("pruned_steps.pt", f"{scored} --steps 3"))
    quantise = f"quantize model.pt --data {DATA} --no-bench"
    steps += [
        Step("sensitivity.json", f"hessian-sensitivity model.pt --data {DATA} --trace-images 16"),
        Step("int8.pt", quantise),
        Step("mixed.pt", f"{quantise} --average-bits 4 --sensitivity sensitivity.json"),
    ]
    if arch in FRIENDLY:
        training = "--epochs 1 --float-epochs 0 --batch-size 16 --precision fp32"
        steps.append(
            Step("friendly.pt", f"{quantise} --method qat --replace-activations relu {training}")
        )
    return steps + [
        Step(f"{name}.onnx", f"export {name}.pt --data {DATA}")
        for name in ("model", "int8", "mixed")
    ]


_TRAIN = "--epochs 1 --batch-size 32 --precision fp32"
_PRUNE = f"{_TRAIN} --no-bench --data synth:160"
_QUANTISE = "--no-bench --data synth:80"


def _beginning(teacher: str, student: str) -> list[Step]:
    return [
        Step("teacher.pt", f"train-teacher --data synth:160 {_TRAIN} --arch {teacher}"),
        Step("student.pt", f"distill teacher.pt --data synth:160 {_TRAIN} --arch {student}"),
    ]


def _sensitivity(samples: int) -> Step:
    return Step(
        "sensitivity.json",
        f"hessian-sensitivity pruned.pt --data synth:80 --trace-images {samples}",
    )


_OWN = f"{Path(__file__).parent / 'importing' / 'hand_written.py'}:build"

CHAINS = {
    "demo": [
        *_beginning(
            "resnet18 --arch-arg width_mult=0.25 --mixup 0 --erasing 0",
            "micro_expnet --arch-arg width_mult=0.5 --mixup 0 --erasing 0",
        ),
        Step("pruned.pt", f"prune student.pt --target-flops 0.5 --mixup 0 --erasing 0 {_PRUNE}"),
        _sensitivity(32),
        Step("quantised.pt", f"quantize pruned.pt {_QUANTISE}"),
        Step(
            "mixed.pt",
            f"quantize pruned.pt --average-bits 4 --sensitivity sensitivity.json {_QUANTISE}",
        ),
        Step("quantised.onnx", "export quantised.pt"),
        Step("mixed.onnx", "export mixed.pt"),
    ],
    "slimming": [
        *_beginning(
            "mobilenet_v3_small --arch-arg width_mult=0.5 --ema-decay 0.9 --cutmix 0.5",
            "shufflenet_v2_x0_5 --method feature --input-channels 1",
        ),
        Step(
            "pruned.pt",
            f"prune student.pt --target-params 0.6 --schedule slimming --sparse-epochs 1 {_PRUNE}",
        ),
        _sensitivity(16),
        Step(
            "quantised.pt",
            f"quantize pruned.pt --bits 6 --method qat {_TRAIN} --observer percentile {_QUANTISE}",
        ),
        Step("quantised.onnx", "export quantised.pt --plain"),
    ],
    "blocks": [
        *_beginning(
            "eff_resnet18 --arch-arg width_mult=0.5 --optimizer sgd --lr 0.01 "
            "--label-smoothing 0.1",
            "nano_resnet --arch-arg width_mult=0.5 --method iterative --rounds 2",
        ),
        Step(
            "pruned.pt",
            f"prune student.pt --target-flops 0.5 --prune-blocks 1 --round-to 8 {_PRUNE}",
        ),
        _sensitivity(16),
        Step(
            "quantised.pt",
            "quantize pruned.pt --average-bits 5 --allocation hawq "
            f"--sensitivity sensitivity.json {_QUANTISE}",
        ),
        Step("quantised.onnx", "export quantised.pt --opset 17"),
    ],
    "greg": [
        *_beginning(
            "efficientnet_b0 --arch-arg width_mult=0.25 --sam-rho 0.05",
            "mobilenet_v2 --arch-arg width_mult=0.25 --input-size 40",
        ),
        Step(
            "pruned.pt",
            f"prune student.pt --target-flops 0.6 --schedule greg --sparse-epochs 1 {_PRUNE}",
        ),
        _sensitivity(16),
        Step(
            "quantised.pt",
            "quantize pruned.pt --weight-range full --rounding nearest "
            f"--average-activation-bits 6 {_QUANTISE}",
        ),
        Step("quantised.onnx", "export quantised.pt --no-simplify"),
    ],
    "friendly": [
        *_beginning(
            "ean --arch-arg width_mult=0.5 --focal-gamma 1",
            "mobilenet_v3_large --arch-arg width_mult=0.35 --start-size 32",
        ),
        Step(
            "pruned.pt",
            "prune student.pt --target-flops 0.5 --schedule iterative --steps 2 "
            f"--criterion taylor {_PRUNE}",
        ),
        _sensitivity(16),
        Step(
            "quantised.pt",
            f"quantize pruned.pt --method qat --replace-activations relu {_TRAIN} "
            f"--float-epochs 1 {_QUANTISE}",
        ),
        Step("dynamic.pt", f"prune student.pt --target-flops 0.5 --schedule dynamic {_PRUNE}"),
        Step("quantised.onnx", "export quantised.pt"),
        Step("dynamic.onnx", "export dynamic.pt"),
    ],
    "recorded": [
        Step(
            "teacher.pt",
            f"train-teacher --data synth:160 {_TRAIN} --arch mobilenet_v2 "
            "--arch-arg width_mult=0.25",
        ),
        Step(
            "student.pt",
            f"distill teacher.pt --data synth:160 {_TRAIN} --save-logits teacher.logits "
            "--logit-views 2 --alpha 0.9",
        ),
        Step(
            "again.pt", f"distill teacher.logits --data synth:160 {_TRAIN} --temperature 2 --seed 3"
        ),
        Step("quantised.pt", f"quantize again.pt --keep-float classifier --bits 5 {_QUANTISE}"),
        Step("quantised.onnx", "export quantised.pt --packed"),
    ],
    "judged": [
        *_beginning(
            "resnet18 --arch-arg width_mult=0.25 --epochs 2 --freeze-epochs 1",
            "mobilenet_v2 --arch-arg width_mult=0.25",
        ),
        Step("pruned.pt", f"prune student.pt --schedule prj --target-params 0.7 {_PRUNE}"),
        Step(
            "dropped.pt",
            "prune student.pt --max-drop 2 --data synth:160 --no-bench --criterion taylor",
        ),
        Step(
            "kept.pt",
            "prune student.pt --target-flops 0.6 --min-channels features.3.*=0.9 "
            f"--no-distill {_PRUNE}",
        ),
        Step("pruned.onnx", "export pruned.pt"),
    ],
    "searched": [
        *_beginning(
            "micro_expnet --lr-schedule onecycle",
            "micro_expnet --arch-arg width_mult=0.5 --mixup 0.4",
        ),
        Step(
            "sensitivity.json",
            "hessian-sensitivity student.pt --data synth:80 --trace-images 16 --method hutchinson",
        ),
        Step(
            "mixed.pt",
            "quantize student.pt --average-bits 4 --allocation actor-critic "
            "--sensitivity sensitivity.json "
            f"{_QUANTISE}",
        ),
        Step("mixed.onnx", "export mixed.pt"),
    ],
    "grid": [
        Step(
            "best.pt",
            f"train-teacher --data synth:160 {_TRAIN} --arch ean --arch-arg width_mult=0.5 "
            "--seeds 2",
        ),
        Step(
            "student.pt",
            f"distill best.pt --data synth:160 {_TRAIN} --arch nano_resnet "
            "--arch-arg width_mult=0.5 "
            "--grid temperature=2,4 --grid alpha=0.5,0.9",
        ),
        Step("pruned.pt", "prune student.pt --target-size 0.7 --no-bench"),
        Step("pruned.onnx", "export pruned.pt"),
    ],
    "imported": [
        Step(
            "own.pt",
            f"import {_OWN} --input-size 48 --mean 0.5 --std 0.25 --classes {','.join(CLASSES)}",
        ),
        Step("tuned.pt", f"train-teacher --init-from own.pt --data synth:160 {_TRAIN}"),
        Step(
            "pruned.pt",
            f"prune tuned.pt --target-flops 0.5 --round-to 8 --criterion l2-gamma {_PRUNE}",
        ),
        _sensitivity(16),
        Step(
            "mixed.pt",
            f"quantize pruned.pt --average-bits 4 --sensitivity sensitivity.json {_QUANTISE}",
        ),
        Step("mixed.onnx", "export mixed.pt"),
    ],
}


def main() -> None:
    """Run the subcommand."""
    options = parse_args()
    if options.command == "compare":
        raise SystemExit(
            compare(json.loads(options.old.read_text()), json.loads(options.new.read_text()))
        )
    torch.set_num_threads(1)
    names = architecture_names() if options.command == "record" else list(CHAINS)
    unknown = set(options.only or ()) - set(names)
    if unknown:
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    one = record_network if options.command == "record" else record_chain
    networks: Record = (
        json.loads(options.output.read_text())["networks"] if options.output.exists() else {}
    )
    with ThreadPoolExecutor(options.jobs) as pool:
        for name, record in pool.map(lambda name: (name, one(name)), options.only or names):
            networks[name] = record
            report = {"environment": environment(), "networks": networks}
            options.output.write_text(
                json.dumps(report, sort_keys=True, separators=(",", ":")) + "\n"
            )


def parse_args() -> argparse.Namespace:
    """Return the subcommand and its options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in (
        ("record", "networks with fixed weights"),
        ("chain", "chains of commands, with training"),
    ):
        recording = commands.add_parser(name, help=what)
        recording.add_argument(
            "output", type=Path, help="a JSON file; what it has of other networks stays"
        )
        recording.add_argument(
            "--only", action="append", metavar="NAME", help="this one alone; repeatable"
        )
        recording.add_argument(
            "--jobs", type=int, default=1, help="networks at a time, a thread each"
        )
    comparing = commands.add_parser(
        "compare", help="print what differs; exit code 1 if something does"
    )
    comparing.add_argument("old", type=Path)
    comparing.add_argument("new", type=Path)
    return parser.parse_args()


def environment() -> Record:
    """Return what else decides on the last bits."""
    return {
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
        "onnxruntime": onnxruntime.__version__,
        "torch": torch.__version__,
    }


# Recording


def record_network(arch: str) -> Record:
    """Draw a network's weights, run its steps and return what they wrote."""
    with tempfile.TemporaryDirectory() as folder:
        spec, module = create(arch, ARGUMENTS.get(arch, {}), INPUT, CLASSES)
        gain = GAINS.get(arch, 1.0)
        module.load_state_dict(
            {name: drawn(name, tensor, gain) for name, tensor in module.state_dict().items()}
        )
        save_model(Path(folder) / "model.pt", spec, module.eval())
        return record_files(arch, Path(folder), [Step("model.pt", ""), *steps_of(arch)])


def record_chain(name: str) -> Record:
    """Run a chain of commands and return what they wrote."""
    with tempfile.TemporaryDirectory() as folder:
        return record_files(name, Path(folder), CHAINS[name])


def record_files(name: str, folder: Path, steps: list[Step]) -> Record:
    """Run the steps in a folder; a step without a command is there already."""
    files: Record = {}
    tensors: dict[str, dict[str, str]] = {}
    for step in steps:
        began = time.perf_counter()
        failure = run(folder, step.command()) if step.words else None
        path = folder / step.output
        if failure is not None:
            files[step.output] = {"failed": failure}
        elif path.suffix == ".pt":
            files[step.output], tensors[step.output] = model_file(path)
        elif path.suffix == ".onnx":
            files[step.output] = onnx_file(path)
        took = time.perf_counter() - began
        print(
            f"{name}: {step.output} {took:.1f} s{f'  failed: {failure}' if failure else ''}",
            flush=True,
        )
    return {"files": files, "tensors": {"files": sorted(tensors), "digests": columns(tensors)}}


def run(folder: Path, words: list[str]) -> str | None:
    """Run one fertool command; returns what it says if it fails."""
    done = fertool(folder, words)
    if done.returncode == 0:
        return None
    said = [
        line for line in done.stderr.splitlines() if line.startswith("error")
    ] or done.stderr.splitlines()[-1:]
    return f"exit code {done.returncode}: {' '.join(said)}"


def fertool(folder: Path, words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run `python -m fertool` on one thread of the CPU, with a cache of its own."""
    alone = {
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "FERTOOL_CACHE": str(folder / "cache"),
    }
    command = [sys.executable, "-m", "fertool", *words]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **alone}, capture_output=True, text=True
    )


def drawn(name: str, tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Return weights that a tensor's name and shape alone decide,
    of sizes that keep activations in range.
    """
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1
    generator = torch.Generator().manual_seed(seed)
    shape, kind = tensor.shape, name.rpartition(".")[2]
    if kind == "num_batches_tracked":
        return torch.zeros_like(tensor)
    if kind == "running_var" or (kind == "weight" and len(shape) == 1):
        return torch.rand(shape, generator=generator) + 0.5
    normal = torch.randn(shape, generator=generator)
    return normal * (gain * math.sqrt(2 / math.prod(shape[1:])) if kind == "weight" else 0.1)


def model_file(path: Path) -> tuple[Record, dict[str, str]]:
    """Return a model file's digest and costs, and a digest of each of its tensors."""
    state: dict[str, Tensor] = torch.load(path, weights_only=True)["state_dict"]
    whole, digests = hashlib.sha256(), {}
    for name, tensor in sorted(state.items()):
        head = f"{name} {tensor.dtype} {list(tensor.shape)} ".encode()
        content = head + tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
        whole.update(content)
        digests[name] = hashlib.sha256(content).hexdigest()[:DIGITS]
    shown = json.loads(fertool(path.parent, ["show", path.name, "--json"]).stdout)
    return {"sha256": whole.hexdigest(), "params": shown["params"], "macs": shown["macs"]}, digests


def onnx_file(path: Path) -> Record:
    """Return the answers of an ONNX file to fixed images."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    entrance = session.get_inputs()[0]
    images = np.random.default_rng(0).integers(
        0, 256, (IMAGES, *entrance.shape[1:]), dtype=np.uint8
    )
    logits = (
        np.round(session.run(None, {entrance.name: images})[0].astype(np.float32), DECIMALS) + 0.0
    )  # No -0.
    rows = [[float(f"{value:.{DECIMALS}f}") for value in row] for row in logits.tolist()]
    return {"logits": rows, "sha256": hashlib.sha256(json.dumps(rows).encode()).hexdigest()}


def columns(tensors: dict[str, dict[str, str]]) -> dict[str, str]:
    """Return each tensor's digests in all files, in one text: most names are in several files."""
    names = sorted({name for digests in tensors.values() for name in digests})
    return {
        name: " ".join(tensors[file].get(name, "-") for file in sorted(tensors)) for name in names
    }


# Comparing


def compare(old: Record, new: Record) -> int:
    """Print what is equal and what differs in each network; returns 1 if something differs."""
    if old["environment"] != new["environment"]:
        print(f"warning: recorded with {old['environment']} and with {new['environment']}")
    missing = old["networks"].keys() ^ new["networks"].keys()
    for name in sorted(missing):
        print(f"{name}: only in the {'old' if name in old['networks'] else 'new'} record")
    differ = bool(missing)
    for name in sorted(old["networks"].keys() & new["networks"].keys()):
        equal, different = [], []
        for file, problem in differences(old["networks"][name], new["networks"][name]):
            if problem:
                different.append(f"  {file}: {problem}")
            else:
                equal.append(file)
        differ |= bool(different)
        print(
            f"{name}: {len(equal)} equal ({', '.join(equal) or 'none'}), {len(different)} different"
        )
        print("".join(f"{line}\n" for line in different), end="", flush=True)
    return int(differ)


def differences(old: Record, new: Record) -> Iterator[tuple[str, str]]:
    """Yield each file of a network and in words what differs in it, nothing if it is the same."""
    for file in sorted(old["files"].keys() | new["files"].keys()):
        before, after = old["files"].get(file), new["files"].get(file)
        if before == after:
            yield file, ""
        elif before is None or after is None:
            yield file, f"only in the {'old' if after is None else 'new'} record"
        elif "failed" in before or "failed" in after:
            yield file, f"{before.get('failed', 'made')} -> {after.get('failed', 'made')}"
        elif "logits" in before:
            yield file, different_logits(before["logits"], after["logits"])
        else:
            costs = [
                f"{key} {before[key]} -> {after[key]}"
                for key in ("params", "macs")
                if before[key] != after[key]
            ]
            yield (
                file,
                "; ".join([*costs, *different_tensors(column(old, file), column(new, file))]),
            )


def different_logits(old: list[list[float]], new: list[list[float]]) -> str:
    """Say by how much logits differ, and how often the top class."""
    before, after = np.array(old), np.array(new)
    if before.shape != after.shape:
        return f"logits of shape {before.shape} -> {after.shape}"
    top = int((before.argmax(1) != after.argmax(1)).sum())
    most = np.abs(before - after).max()
    largest = np.abs(before).max()
    return (
        f"logits differ by up to {most:.5f} (largest {largest:.5f}), "
        f"the top class of {top}/{len(before)}"
    )


def column(record: Record, file: str) -> dict[str, str]:
    """Return the digests of one file's tensors by name."""
    index = record["tensors"]["files"].index(file)
    digests = {name: row.split()[index] for name, row in record["tensors"]["digests"].items()}
    return {name: digest for name, digest in digests.items() if digest != "-"}


def different_tensors(old: dict[str, str], new: dict[str, str]) -> Iterator[str]:
    """Yield in words which tensors are gone, new and changed."""
    kinds = {
        "gone": [name for name in old if name not in new],
        "new": [name for name in new if name not in old],
        "changed": [name for name in old if name in new and old[name] != new[name]],
    }
    for kind, names in kinds.items():
        if names:
            more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
            yield f"{len(names)} of {len(old)} tensors {kind}: {', '.join(names[:LISTED])}{more}"


if __name__ == "__main__":
    main()
