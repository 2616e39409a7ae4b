"""Bring what boards measured into a benchmark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fertool.config.benchmark import BenchConfig, SpeedLimit
from fertool.errors import FertoolError, UsageError
from fertool.reporter import Reporter
from fertool.results import BenchResult, BoardResult, FileResult, ImportedRun

if TYPE_CHECKING:
    from fertool.runtime.benchmark import Measurement

_HINT = "copy it again, or run run.py of the bundle again: python run.py > result.json"


def read_boards(paths: Iterable[str | Path], reporter: Reporter) -> list[tuple[Path, BoardResult]]:
    """Read the JSON of boards, each once; files that did not run there are warned of.

    Raises FertoolError for a file that `run.py` of a bundle has not printed, and for one in which
    no file ran.
    """
    from fertool.artifact.input_files import MAX_JSON_BYTES, read_text
    from fertool.strict_json import read_json

    boards = []
    for path in dict.fromkeys(Path(path) for path in paths):
        text = read_text(path, MAX_JSON_BYTES)
        problem = "not what run.py of a bundle printed"
        board = read_json(text, BoardResult, str(path), problem, _HINT)
        for failure in board.failed:
            reporter.warn(f"{path}: {failure.file} did not run there: {failure.error}")
        if not board.files:
            raise FertoolError(f"{path}: no file ran", _HINT)
        boards.append((path, board))
    return boards


def require_boards(boards: Sequence[object], data: object | None, limit: SpeedLimit) -> None:
    """Raise UsageError where nothing is measured here and something needs that it is."""
    if not boards:
        raise UsageError(
            "no file to measure", "name model files, or ``import=RESULT.json`` of a board"
        )
    if data is not None or limit.against is not None:
        option = "data" if data is not None else "against"
        raise UsageError(
            f"``{option}`` with results of boards alone",
            "name model files to be measured here, or leave it out",
        )


def summarize_with_boards(
    measured: Measurement | None,
    results: Sequence[FileResult],
    boards: Sequence[tuple[Path, BoardResult]],
    config: BenchConfig,
) -> BenchResult:
    """Return the summary of what was measured here and on boards.

    Files of a run are compared with the first one of that run. Without a file that was measured
    here the environment is the first board's.
    """
    from fertool.runtime.benchmark import Measurement, summarize
    from fertool.runtime.board_rows import imported_rows, imported_run

    rows = list(results)
    runs: list[ImportedRun] = []
    has_dynamic = False
    for path, board in boards:
        rows += imported_rows(path, board)
        runs.append(imported_run(path, board))
        has_dynamic = has_dynamic or any(entry.dynamic for entry in board.files)
    if measured is None:
        measured = Measurement((), (), "", has_dynamic)
    elif has_dynamic:
        measured = replace(measured, dynamic=True)
    summary = replace(summarize(measured, rows, config), imports=tuple(runs))
    if results:
        return summary
    first = runs[0]
    return replace(summary, environment=first.environment, warmup=first.warmup, runs=first.runs)
