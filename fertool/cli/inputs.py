"""The cheapest check of all: are the files that a command reads there? It comes before anything that takes time."""

from __future__ import annotations

from pathlib import Path

from fertool.cli.options import ReadOptions
from fertool.config.reading import named_format
from fertool.errors import FertoolError


def require_inputs(
    *files: Path, data: str | None = None, read: ReadOptions = ReadOptions()
) -> None:
    """Raise FertoolError for a file, or a data set, that does not exist; imports no torch, which takes seconds."""
    from fertool.artifact.input_files import require_file

    for path in files:
        require_file(path)
    if data and named_format(data) is None and not Path(data).exists():
        raise FertoolError(
            f"{data}: no such file or folder", "check --data; 'synth' draws faces instead"
        )
    if read.ferplus:
        require_file(read.ferplus)
