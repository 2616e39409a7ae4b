"""The path of the state from which a killed run resumes; imports no torch."""

from __future__ import annotations

from pathlib import Path


def resume_path(output: Path) -> Path:
    """Return the path of the state of the run that writes `output`."""
    return output.with_name(f"{output.name}.resume")


def discard_resume(path: Path) -> None:
    """Remove the state of a run, after its result is written or for a fresh start."""
    path.unlink(missing_ok=True)
