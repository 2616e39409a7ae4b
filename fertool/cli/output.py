"""What every command does at its end: name its output, print JSON, and describe a file."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fertool.artifact.atomic import require_writable, write_atomic
from fertool.artifact.logits import LogitsSpec
from fertool.errors import UsageError
from fertool.spec import Spec


def default_output(model: Path, stage: str, suffix: str = ".pt") -> Path:
    """Return the output's name when there is no -o: `model.pt` pruned is `model.pruned.pt`, beside it."""
    return model.with_name(f"{model.stem}.{stage}{suffix}" if stage else f"{model.stem}{suffix}")


def require_picture(flag: str, path: Path | None, output: Path, *inputs: Path) -> None:
    """Fail before any work when the picture of an option cannot be drawn or written, or would replace a file."""
    from fertool.report.canvas import require_matplotlib

    if path is None:
        return
    if path.resolve() == output.resolve():
        raise UsageError(f"{flag} {path}: the result goes there", "name another file, for example picture.png")
    require_writable(path, *inputs)
    require_matplotlib()


def print_json(value: Any) -> None:
    """Print one JSON object on stdout: SI base units, units in the keys."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write("\n")


def write_json(path: Path, value: Any) -> None:
    """Write one JSON object to a file, atomically."""
    write_atomic(path, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def spec_as_json(spec: Spec | LogitsSpec, file: Path) -> dict[str, Any]:
    """Return the keys of `show --json` for a file and its spec."""
    fields = asdict(spec)
    return {"file": str(file), "size_bytes": file.stat().st_size, **fields}


def announce(spec: Spec | LogitsSpec, file: Path, as_json: bool, **extra: Any) -> None:
    """Print the result of a command that wrote a file: its path, or as JSON what `show` says and `extra`."""
    if as_json:
        print_json({**spec_as_json(spec, file), **extra})
    else:
        sys.stdout.write(f"{file}\n")
