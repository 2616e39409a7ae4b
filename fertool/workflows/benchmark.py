"""Measure what model files cost on this machine, side by side."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fertool.config.benchmark import BenchConfig
from fertool.config.option import configured
from fertool.reporter import SILENT, Reporter
from fertool.workflows.data import Data, crop_channels_of, drawn_faces
from fertool.workflows.evaluate import evaluate_predictor
from fertool.workflows.predictors import note_assumptions, open_any

if TYPE_CHECKING:
    from fertool.results import BenchResult, Evaluation
    from fertool.runtime import Predictor

_DRAWN_FACES = 280
_SHOWN_IMAGES = 256
"""Images that the passes go through in turn."""


def benchmark(
    files: str | Path | Iterable[str | Path],
    config: BenchConfig = BenchConfig(),
    *,
    data: Data | None = None,
    reporter: Reporter = SILENT,
    **options: Any,
) -> BenchResult:
    """Measure latency, throughput, memory and size of model files, and with `data` the accuracy.

    Passes of the files alternate, so that disturbances of the machine affect all of them; the first
    file is the baseline. The accuracy is that of the validation split. `options` are those of
    `BenchConfig`, by name.

    Raises FertoolError for a file that cannot be read, UsageError for a wrong option.
    """
    import numpy as np

    from fertool.runtime import bench

    (config,) = configured(config, options)
    if isinstance(files, str | Path):
        files = [files]
    paths = [Path(file) for file in files]
    evaluations: list[Evaluation] = []
    # Before the timing, so that nothing else runs beside it.
    if data:
        for path in paths:
            predictor = open_any(path, config.foreign, reporter)
            source = data.fitted_to(predictor)
            evaluation, _ = evaluate_predictor(predictor, source, "val", "none", reporter)
            evaluations.append(evaluation)

    def images(predictor: Predictor) -> Any:
        if data:
            source = data.fitted_to(predictor)
        else:
            note_assumptions(predictor, config.foreign, reporter)
            # Drawn faces have seven classes, which need not be the model's.
            crop_channels = crop_channels_of(predictor)
            source = drawn_faces(_DRAWN_FACES).fitted(predictor.input, None, crop_channels)
        return np.ascontiguousarray(source.split("val").images[:_SHOWN_IMAGES].numpy())

    with reporter.progress("bench") as on_progress:
        measured = bench(paths, config, images, on_progress)
    return measured.with_accuracies(evaluations)
