"""Open a model file in the runtime that it is for.

Nothing here imports torch for an ONNX file: the peak memory of ONNX Runtime would otherwise contain
torch's.
"""

from __future__ import annotations

from pathlib import Path

from fertool.artifact.header import format_of
from fertool.artifact.input_files import require_file
from fertool.config.foreign_files import ForeignModel
from fertool.registry import FORMATS, RUNTIMES
from fertool.runtime.predictor import Predictor
from fertool.runtime.runtime import Runtime

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
