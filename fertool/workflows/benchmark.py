"""Measure what model files cost on this machine, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fertool.config.benchmark import BenchConfig, SpeedLimit
from fertool.config.option import configured
from fertool.reporter import SILENT, Reporter
from fertool.workflows.board_import import read_boards, require_boards, summarize_with_boards
from fertool.workflows.data import Data, crop_channels_of, drawn_faces
from fertool.workflows.evaluate import evaluate_predictor
from fertool.workflows.predictors import note_assumptions, open_any
from fertool.workflows.speed_regression import compare_with_older, read_older

if TYPE_CHECKING:
    from fertool.results import BenchResult, Evaluation
    from fertool.runtime import Predictor
    from fertool.runtime.bench_rows import ImageSource, Row

_DRAWN_FACES = 280
"""Where there is no data set; a tenth of them, the validation split, is timed on."""
_SHOWN_IMAGES = 256
"""Images that the passes go through, one batch after another."""


def benchmark(
    files: str | Path | Iterable[str | Path],
    config: BenchConfig = BenchConfig(),
    limit: SpeedLimit = SpeedLimit(),
    *,
    data: Data | None = None,
    reporter: Reporter = SILENT,
    **options: Any,
) -> BenchResult:
    """Measure latency, throughput, memory and size of model files, and with `data` the accuracy.

    Passes of the files alternate, so that disturbances of the machine affect all of them; the first
    file is the baseline. The accuracy is that of the validation split. With ``against`` the files
    are compared with older results; `against` of the result says which miss the limit. `imports`
    are files that boards printed; with them no file need be measured here. `options` are those of
    `BenchConfig` and `SpeedLimit`, by name.

    Raises FertoolError for a file that cannot be read and for older results of another machine,
    UsageError for a wrong option.
    """
    from fertool.runtime.bench_rows import plan_rows
    from fertool.runtime.benchmark import measure_rows, with_starts

    config, limit = configured(config, options, limit)
    if isinstance(files, str | Path):
        files = [files]
    boards = read_boards(config.imports, reporter)
    rows = plan_rows([Path(file) for file in files], config)
    if not rows:
        require_boards(boards, data, limit)
        return summarize_with_boards(None, (), boards, config)
    # First, since it may refuse the older results, and nobody wants to wait for that.
    older = read_older(limit, rows, config, reporter) if limit.against else None
    old_rows = older.rows if older else ()
    # Before the timing, so that nothing else runs beside it.
    evaluations = _evaluate(rows, config, data, reporter) if data else {}
    shown = _image_source(config, data, reporter)
    with reporter.progress("bench") as on_progress:
        measured = measure_rows([*rows, *old_rows], config, shown, on_progress)
    new = measured.of_rows[: len(rows)]
    results = [result for result in new if result is not None]
    with reporter.progress("starts", brief=True) as on_progress:
        filled = with_starts(results, config, on_progress)
    result = summarize_with_boards(measured, filled, boards, config)
    if measured.energy_source.startswith("no "):
        reporter.note(measured.energy_source)
    if older:
        again = measured.of_rows[len(rows) :]
        regression = compare_with_older(older, new, again, limit, config)
        result = replace(result, against=regression)
    return result.with_accuracies(evaluations)


def _image_source(config: BenchConfig, data: Data | None, reporter: Reporter) -> ImageSource:
    import numpy as np

    noted: set[Path] = set()

    def images(predictor: Predictor) -> Any:
        if data:
            source = data.fitted_to(predictor)
        else:
            # Once a file, which may be measured several times.
            if predictor.path not in noted:
                note_assumptions(predictor, config.foreign, reporter)
            noted.add(predictor.path)
            # Drawn faces have seven classes, which need not be the model's.
            crop_channels = crop_channels_of(predictor)
            source = drawn_faces(_DRAWN_FACES).fitted(predictor.input, None, crop_channels)
        return np.ascontiguousarray(source.split("val").images[:_SHOWN_IMAGES].numpy())

    return images


def _evaluate(
    rows: Sequence[Row], config: BenchConfig, data: Data, reporter: Reporter
) -> dict[tuple[str, str], Evaluation]:
    """Return the evaluation of each file in each runtime."""
    evaluations: dict[tuple[str, str], Evaluation] = {}
    for row in rows:
        key = (str(row.path), row.runtime)
        if key in evaluations:
            continue
        predictor = open_any(row.path, config.foreign, reporter, row.runtime)
        source = data.fitted_to(predictor)
        evaluations[key], _ = evaluate_predictor(predictor, source, "val", "none", reporter)
    return evaluations
