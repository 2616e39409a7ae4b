"""Open a model file in the runtime that it is for.

Nothing here imports torch for an ONNX file: the peak memory of ONNX Runtime would otherwise contain
torch's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fertool.artifact.header import format_of
from fertool.artifact.input_files import require_file
from fertool.config.foreign_files import ForeignModel
from fertool.registry import FORMATS, RUNTIMES
from fertool.runtime.predictor import Predictor
from fertool.runtime.runtime import Runtime

if TYPE_CHECKING:
    from torch import Tensor

_OF_MODELS = "torch"
"""Runs fertool's own files."""


def open_predictor(
    path: Path,
    *,
    threads: int | None = None,
    foreign: ForeignModel = ForeignModel(),
    runtime: str | None = None,
) -> Predictor:
    """Open a model file for the CPU, in the runtime of its format unless another one is named.

    `threads` compute one pass of ONNX Runtime; those of torch are a setting of the whole process,
    for `limited_threads`. `foreign` describes ONNX files of other programs, and is ignored for
    files with fertool's header, except for its time limit, which ends graphs that compute longer
    for one image. A foreign graph with uint8 input gets raw pixels.

    Raises FertoolError for files that cannot be read or are damaged, UsageError for an unknown
    runtime, and when classes or size are missing or do not fit.
    """
    require_file(path)
    member: type[Runtime] = RUNTIMES.load(runtime or _runtime_of(path))
    return member().open(path, threads, foreign)


def _runtime_of(path: Path) -> str:
    format = format_of(path)
    if format is None:
        return _OF_MODELS
    runtime: str = FORMATS.attribute(format, "runtime", "")
    return runtime


def open_logits(path: Path, runtime: str) -> Callable[[Tensor], Tensor]:
    """Return a function from images uint8 [N, C, S, S] to the logits [N, K] of a file.

    In the runtime of this name, on as many threads as torch uses.
    """
    import torch

    predictor = open_predictor(path, threads=torch.get_num_threads(), runtime=runtime)

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(predictor.logits(images.numpy()))

    return run
