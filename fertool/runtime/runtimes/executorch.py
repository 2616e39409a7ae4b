"""ExecuTorch, which runs `.pte` files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fertool.artifact.header import read_spec
from fertool.artifact.trailer import verify_trailer
from fertool.config.foreign_files import ForeignModel
from fertool.errors import FertoolError
from fertool.registry import RUNTIMES
from fertool.runtime.packages import import_extra
from fertool.runtime.predictor import Forward, Predictor
from fertool.runtime.runtime import Runtime

_IMAGES = 1
"""A program has the batch that it was exported with."""


@RUNTIMES.register("executorch")
class ExecuTorchRuntime(Runtime):
    """ExecuTorch: `.pte` files of fertool."""

    package = "executorch"

    def open(self, path: Path, threads: int | None, foreign: ForeignModel) -> Predictor:
        """Open a `.pte` file; its threads are a setting of the whole process."""
        verify_trailer(path)
        spec = read_spec(path)
        runtime = import_extra("executorch.runtime", "executorch")
        # Kernels of what XNNPACK leaves of quantized programs.
        import_extra("executorch.kernels.quantized", "executorch")

        import torch

        try:
            program = runtime.Runtime.get().load_program(str(path))
            method = program.load_method("forward")
        except RuntimeError as error:
            raise _failure(path, "open", error) from None

        def prepare(images: NDArray[np.uint8]) -> Forward:
            inputs = (torch.from_numpy(images),)

            def forward() -> Any:
                try:
                    # A copy, since the next pass reuses the memory.
                    return method.execute(inputs)[0].clone()
                except RuntimeError as error:
                    raise _failure(path, "run", error) from None

            return forward

        return Predictor(
            path=path,
            runtime="executorch",
            spec=spec,
            classes=spec.classes,
            input=spec.input,
            batch=_IMAGES,
            prepare=prepare,
        )

    @contextmanager
    def limited_threads(self, count: int) -> Iterator[None]:
        """Compute with `count` threads in the block, then with as many as before."""
        library = import_extra("executorch.extension.pybindings.portable_lib", "executorch")
        before = library._threadpool_get_thread_count()
        # Unsafe while a program runs, which none does here.
        library._unsafe_reset_threadpool(count)
        try:
            yield
        finally:
            library._unsafe_reset_threadpool(before)


def _failure(path: Path, action: str, error: Exception) -> FertoolError:
    reason = str(error).strip().splitlines()[0]
    return FertoolError(f"{path}: ExecuTorch cannot {action} it ({reason})", "export it again")
