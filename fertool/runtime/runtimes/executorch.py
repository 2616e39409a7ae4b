"""ExecuTorch, which runs `.pte` files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from fertool.artifact.header import read_spec
from fertool.artifact.trailer import verify_trailer
from fertool.config.foreign_files import ForeignModel
from fertool.errors import FertoolError
from fertool.registry import RUNTIMES
from fertool.runtime.packages import import_extra
from fertool.runtime.predictor import Forward, Predictor
from fertool.runtime.runtime import Runtime, failure

_IMAGES = 1
"""A program has the batch that it was exported with."""


@RUNTIMES.register("executorch")
class ExecuTorchRuntime(Runtime):
    """ExecuTorch: `.pte` files of fertool."""

    package = "executorch"
    extra = "executorch"
    modules = ("torch", "executorch.runtime", "executorch.kernels.quantized")
    # A program aborts that runs after the pool of threads it was loaded with is gone.
    _methods: ClassVar[WeakSet[Any]] = WeakSet()

    def open(self, path: Path, threads: int | None, foreign: ForeignModel) -> Predictor:
        """Open a `.pte` file; its threads are those of one pool in the process."""
        verify_trailer(path)
        spec = read_spec(path)
        runtime = import_extra("executorch.runtime", "executorch")
        # Kernels of what XNNPACK leaves of quantized programs.
        import_extra("executorch.kernels.quantized", "executorch")

        import torch

        if threads is not None:
            self._set_threads(path, threads)
        try:
            program = runtime.Runtime.get().load_program(str(path))
            method = program.load_method("forward")
        except RuntimeError as error:
            raise failure("ExecuTorch", path, "open", error) from None

        self._methods.add(method)

        def prepare(images: NDArray[np.uint8]) -> Forward:
            inputs = (torch.from_numpy(images),)

            def forward() -> Any:
                try:
                    # A copy, since the next pass reuses the memory.
                    return method.execute(inputs)[0].clone()
                except RuntimeError as error:
                    raise failure("ExecuTorch", path, "run", error) from None

            return forward

        return Predictor.of(path, "executorch", spec, prepare, batch=_IMAGES)

    def _set_threads(self, path: Path, count: int) -> None:
        """Let the pool of the process have `count` threads, where no program holds the pool."""
        library = import_extra("executorch.extension.pybindings.portable_lib", "executorch")
        current = library._threadpool_get_thread_count()
        if count == current:
            return
        if len(self._methods) > 0:
            raise FertoolError(
                f"{path}: ``threads={count}`` beside a .pte file that computes with {current}",
                "open them with as many threads, or in processes of their own",
            )
        library._unsafe_reset_threadpool(count)
