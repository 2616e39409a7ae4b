"""Commands that are killed again and again (SIGKILL, SIGTERM) and started again each time, against
undisturbed ones.

    python benchmarks/kills.py [--signals 6] [--commands train-teacher export] -o kills.json

Each command of the installed `fertool` runs once undisturbed. Then it runs until it has been killed
so often by each of the signals, at a moment drawn evenly over what the undisturbed run took,
imports included; whenever a run ends before its moment, its model is compared with the undisturbed
one byte by byte, and the next starts anew. At the end nothing may be left: no state, no temporary
file or folder, no process. A run that SIGTERM ends says nothing but how to go on.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fertool.artifact.atomic import write_atomic
from fertool.artifact.store import file_digest

_SIGNALS = (signal.SIGKILL, signal.SIGTERM)
_STOPPED = (-signal.SIGTERM, 128 + signal.SIGTERM)
"""Exit codes after SIGTERM: while Python itself starts, and later."""


@dataclass
class Found:
    """What the runs of one command showed."""

    command: str
    undisturbed_s: float
    lives_s: list[float] = field(default_factory=list)
    signals: dict[str, int] = field(default_factory=dict)
    same_bytes: bool = True
    said: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)

    @property
    def is_right(self) -> bool:
        """Whether the model was always the same, nothing was left, nothing unexpected said."""
        return self.same_bytes and not self.said and not self.left_over

    def as_json(self) -> dict[str, Any]:
        """Return all figures by name."""
        return {**vars(self), "kills": sum(self.signals.values())}


class Place:
    """Folders of their own for the files, the cache and the temporary files of the commands."""

    def __init__(self, folder: Path) -> None:
        self.files, self.cache, self.temporary = (
            folder / name for name in ("files", "cache", "tmp")
        )
        for each in (self.files, self.cache, self.temporary):
            each.mkdir()
        own = {"FERTOOL_CACHE": str(self.cache), "TMPDIR": str(self.temporary)}
        self.environment = {**os.environ, **own}

    def run(
        self, arguments: list[str], output: Path, life_s: float | None, how: int
    ) -> tuple[int | None, str]:
        """Run a command.

        Returns its exit code, None if it was killed after `life_s`, and what it said on stderr.
        """
        command = [sys.executable, "-m", "fertool", *arguments, "-o", str(output)]
        pipes: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        process = subprocess.Popen(
            command, env=self.environment, text=True, start_new_session=True, **pipes
        )
        try:
            _, said = process.communicate(timeout=life_s)
        except subprocess.TimeoutExpired:
            process.send_signal(how)
            # A child that lives on would hold the pipe open.
            said = "" if how == signal.SIGKILL else process.communicate()[1]
            ended = process.wait() in (-how, *_STOPPED)
            alive = _end_group(process.pid)
            if how == signal.SIGTERM and alive:
                said += "Traceback: a child process lived on"
            return None if ended else process.returncode, said
        return process.returncode, said

    def content(self) -> set[str]:
        """Return the names of all that is in the folders, temporary and hidden files included."""
        return {
            path.name
            for folder in (self.files, self.cache, self.temporary)
            for path in folder.iterdir()
        }


def main() -> None:
    options = parse_args()
    report: dict[str, Any] = {
        "data": options.data,
        "epochs": options.epochs,
        "seed": options.seed,
        "commands": [],
    }
    right = True
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder))
        chance = random.Random(options.seed)
        for name, arguments in commands(options, place.files).items():
            is_wanted = name in options.commands
            found = measure(place, name, arguments, options.signals if is_wanted else 0, chance)
            if is_wanted:
                report["commands"].append(found.as_json())
                right = right and found.is_right
                print(_summary(found), flush=True)
    if options.output:
        write_atomic(options.output, json.dumps(report, indent=1).encode())
    sys.exit(0 if right else 1)


def parse_args() -> argparse.Namespace:
    names = ["train-teacher", "distill", "prune", "quantize", "export"]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="synth:700", help="what to train on")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument(
        "--signals", type=int, default=6, help="how often each command gets each signal"
    )
    parser.add_argument("--commands", nargs="+", default=names, choices=names)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the figures")
    return parser.parse_args()


def commands(options: argparse.Namespace, files: Path) -> dict[str, list[str]]:
    """Return the arguments of each command, which reads what those before it made undisturbed."""
    teacher, student = (str(_undisturbed(files, name)) for name in ("train-teacher", "distill"))
    small = ["--arch", "micro_expnet", "--arch-arg", "width_mult=0.25"]
    common = ["--data", options.data, "--seed", str(options.seed), "--device", "cpu"]
    trains = [*common, "--epochs", str(options.epochs), "--patience", "0"]
    short = [*common, "--epochs", str(max(1, options.epochs // 2))]
    iterative = ["--schedule", "iterative", "--steps", "2", "--round-to", "1"]
    return {
        "train-teacher": ["train-teacher", *small, *trains, "--ema-decay", "0.99"],
        "distill": ["distill", teacher, *small, *trains],
        "prune": ["prune", student, "--target-flops", "0.6", *iterative, *short, "--no-bench"],
        "quantize": ["quantize", student, "--method", "qat", *short, "--no-bench"],
        "export": ["export", student],
    }


def measure(
    place: Place, name: str, arguments: list[str], times: int, chance: random.Random
) -> Found:
    """Run a command undisturbed and then with `times` of each signal,
    in an order drawn by `chance`.
    """
    whole = _undisturbed(place.files, name)
    disturbed = whole.with_name(f"{name}.killed{whole.suffix}")
    start = time.perf_counter()
    code, said = place.run(arguments, whole, None, 0)
    if code:
        raise SystemExit(f"{name} failed: {said}")
    found = Found(
        name, time.perf_counter() - start, signals={each.name: times for each in _SIGNALS}
    )
    before = place.content()
    due = list(_SIGNALS) * times
    chance.shuffle(due)
    while due:
        life = chance.uniform(0.05, 1) * found.undisturbed_s
        code, said = place.run(arguments, disturbed, life, due[-1])
        _note_errors(found, said)
        if code is None:
            due.pop()
            found.lives_s.append(life)
        else:
            _compare(found, code, whole, disturbed)
    if times:
        code, said = place.run(arguments, disturbed, None, 0)
        _note_errors(found, said)
        _compare(found, code, whole, disturbed)
    found.left_over = sorted(place.content() - before)
    return found


def _undisturbed(files: Path, name: str) -> Path:
    return files / f"{name}.{'onnx' if name == 'export' else 'pt'}"


def _note_errors(found: Found, said: str) -> None:
    """Keep lines that nobody should see; `error:` lines are told by the exit code, too."""
    found.said += [
        line
        for line in said.splitlines()
        if line.startswith(("Traceback", "error:", "Exception ignored"))
    ]


def _compare(found: Found, code: int | None, whole: Path, disturbed: Path) -> None:
    """Compare the model of a run that has ended with the undisturbed one, and remove it."""
    if code == 0:
        found.same_bytes = found.same_bytes and file_digest(whole) == file_digest(disturbed)
    else:
        found.said.append(f"exit code {code}")
    disturbed.unlink(missing_ok=True)
    disturbed.with_name(f"{disturbed.name}.history.json").unlink(missing_ok=True)


def _end_group(number: int) -> bool:
    """End what is left of a command's processes; returns whether anything was."""
    try:
        os.killpg(number, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _summary(found: Found) -> str:
    bytes_text = "same bytes" if found.same_bytes else "OTHER BYTES"
    left = f"LEFT OVER: {', '.join(found.left_over)}" if found.left_over else "nothing left"
    said = f"SAID: {'; '.join(found.said)}" if found.said else "no errors"
    return f"{found.command}: {found.as_json()['kills']} kills, {bytes_text}, {left}, {said}"


if __name__ == "__main__":
    main()
