"""The latency of networks that are not files yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fertool.reporter import SILENT, Reporter

if TYPE_CHECKING:
    from torch import nn

    from fertool.data.dataset import FaceDataset
    from fertool.runtime import BenchResult
    from fertool.spec import Spec

RUNS = 600
"""Passes of each network in a comparison."""
TIMED_IMAGES = 256
"""Images that dynamic networks are timed on."""


def bench_networks(
    *networks: tuple[Spec, nn.Module],
    runs: int = RUNS,
    images: FaceDataset | None = None,
    reporter: Reporter = SILENT,
) -> BenchResult:
    """Time networks in ONNX Runtime, interleaved, one image a pass on one thread.

    The passes see `images`, if given, instead of noise.
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
        config = BenchConfig(runs=runs, threads=1, memory=False, starts=0)
        with reporter.progress("latency", brief=True) as on_progress:
            return bench(files, config, shown, on_progress)
