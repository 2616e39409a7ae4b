"""Open a model file in the runtime that it is for.

Nothing here imports torch for an ONNX file: the peak memory of ONNX Runtime would otherwise contain
torch's.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from fertool.artifact.header import format_of
from fertool.artifact.input_files import require_file
from fertool.config.foreign_files import ForeignModel
from fertool.errors import FertoolError
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
    member: type[Runtime] = RUNTIMES.load(runtime or default_runtime(path))
    return member().open(path, threads, foreign)


def default_runtime(path: Path) -> str:
    """Return the runtime of a file's format."""
    format = format_of(path)
    if format is None:
        return _OF_MODELS
    runtime: str = FORMATS.attribute(format, "runtime", "")
    return runtime


def runtimes_for(path: Path) -> list[str]:
    """Return the runtimes that open files with this suffix, that of the format first."""
    found = [default_runtime(path)]
    suffix = path.suffix.lower()
    for name in RUNTIMES.names():
        if suffix in RUNTIMES.attribute(name, "also_opens", ()):
            found.append(name)
    return found


def require_runtime(name: str) -> None:
    """Raise UsageError for an unknown runtime, FertoolError for one that is not installed."""
    RUNTIMES.require(name)
    for module in RUNTIMES.attribute(name, "modules", ())[:1]:
        if find_spec(module.partition(".")[0]) is None:
            extra = RUNTIMES.attribute(name, "extra", "")
            raise FertoolError(
                f"``runtime={name}``: {module.partition('.')[0]} is not installed",
                f"pip install 'fertool[{extra}]'",
            )


def open_logits(path: Path, runtime: str) -> Callable[[Tensor], Tensor]:
    """Return a function from images uint8 [N, C, S, S] to the logits [N, K] of a file.

    In the runtime of this name, on as many threads as torch uses.
    """
    import torch

    predictor = open_predictor(path, threads=torch.get_num_threads(), runtime=runtime)

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(predictor.logits(images.numpy()))

    return run
