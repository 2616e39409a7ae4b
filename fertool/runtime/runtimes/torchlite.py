"""PyTorch's lite interpreter, which runs `.ptl` files."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fertool.artifact.header import read_spec
from fertool.config.foreign_files import ForeignModel
from fertool.registry import RUNTIMES
from fertool.runtime.predictor import Forward, Predictor
from fertool.runtime.runtime import Runtime, failure
from fertool.runtime.runtimes.torch import Torch


@RUNTIMES.register("torchlite")
class TorchLite(Runtime):
    """PyTorch's lite interpreter: `.ptl` files of fertool."""

    package = "torch"
    modules = ("torch.jit.mobile",)

    def open(self, path: Path, threads: int | None, foreign: ForeignModel) -> Predictor:
        """Open a `.ptl` file; the threads of torch are a setting of the whole process."""
        spec = read_spec(path)

        import torch
        from torch.jit import mobile

        # Without an annotation in PyTorch.
        load: Any = mobile._load_for_lite_interpreter

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                network = load(str(path))
        except RuntimeError as error:
            raise failure("the lite interpreter", path, "open", error) from None

        def prepare(images: NDArray[np.uint8]) -> Forward:
            pixels = torch.from_numpy(images)

            def forward() -> Any:
                with torch.inference_mode():
                    return network(pixels)

            return forward

        return Predictor.of(path, "torchlite", spec, prepare)

    def limited_threads(self, count: int) -> AbstractContextManager[None]:
        """Compute with `count` threads in the block, then with as many as before."""
        return Torch().limited_threads(count)
