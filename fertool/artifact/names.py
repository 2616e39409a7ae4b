"""Where a command keeps the state that a killed run goes on from; without torch, so that it can be checked first."""

from __future__ import annotations

from pathlib import Path


def resume_path(output: Path) -> Path:
    """Return where the run that makes `output` keeps its state."""
    return output.with_name(f"{output.name}.resume")


def discard_resume(path: Path) -> None:
    """Remove the state of a run; for the moment when its result is safely written, or a fresh start is asked for."""
    path.unlink(missing_ok=True)
