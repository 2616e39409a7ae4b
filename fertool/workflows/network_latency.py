"""The latency of networks that are not files yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fertool.reporter import SILENT, Reporter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import nn

    from fertool.data.dataset import FaceDataset
    from fertool.runtime import BenchResult
    from fertool.runtime.bench_rows import ImageSource
    from fertool.spec import Spec

FEWEST_RUNS, MOST_RUNS = 100, 600
"""Passes of each network in a comparison."""
FEWEST_RUNS_ON_IMAGES = 300
"""Where the time depends on the image: every one of `TIMED_IMAGES` is seen."""
SECONDS = 5.0
"""Time for these passes, of all networks together, within these bounds."""
_TRIAL_RUNS = 10
TIMED_IMAGES = 256
"""Images that dynamic networks are timed on."""


def bench_networks(
    *networks: tuple[Spec, nn.Module],
    runs: int | None = None,
    images: FaceDataset | None = None,
    reporter: Reporter = SILENT,
) -> BenchResult:
    """Time networks in ONNX Runtime, interleaved, one image a pass on one thread.

    The passes see `images`, if given, instead of noise. Each network gets as many as `runs`, by
    default fewer of slow networks.
    """
    from fertool.artifact.atomic import temporary_folder
    from fertool.config.exporting import ExportConfig
    from fertool.exporting import export_model
    from fertool.runtime import BenchConfig, bench

    with temporary_folder() as folder:
        files = [folder / f"{number}.onnx" for number in range(len(networks))]
        with reporter.progress("export", brief=True) as on_progress:
            for number, (spec, module) in enumerate(networks):
                files[number].write_bytes(export_model(spec, module, ExportConfig()))
                on_progress(number + 1, len(networks))
        shown = None
        if images is not None:
            pixels = images.images[:TIMED_IMAGES].numpy()
            shown = lambda _: pixels  # noqa: E731
        if runs is None:
            runs = _affordable_runs(files, shown)
        config = BenchConfig(runs=runs, warmup=runs // 6, threads=1, memory=False, starts=0)
        with reporter.progress("latency", brief=True) as on_progress:
            return bench(files, config, shown, on_progress)


def _affordable_runs(files: Sequence[Path], images: ImageSource | None) -> int:
    """Return how many passes of each file take about `SECONDS`, in hundreds."""
    from fertool.runtime import BenchConfig, bench

    trial = BenchConfig(runs=_TRIAL_RUNS, warmup=_TRIAL_RUNS, threads=1, memory=False, starts=0)
    measured = bench(files, trial, images)
    seconds_per_run = sum(result.latency_s.mean for result in measured.results)
    affordable = int(SECONDS / seconds_per_run) // 100 * 100
    fewest = FEWEST_RUNS if images is None else FEWEST_RUNS_ON_IMAGES
    return min(MOST_RUNS, max(fewest, affordable))
