"""LiteRT's interpreter, which runs `.tflite` files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fertool.artifact.header import read_spec
from fertool.artifact.trailer import verify_trailer
from fertool.config.foreign_files import ForeignModel
from fertool.registry import RUNTIMES
from fertool.runtime.packages import import_extra
from fertool.runtime.predictor import Forward, Predictor
from fertool.runtime.runtime import Runtime, failure

_IMAGES = 1
"""A graph has the batch that it was exported with."""


@RUNTIMES.register("tflite")
class TfLiteRuntime(Runtime):
    """LiteRT: `.tflite` files of fertool."""

    package = "ai-edge-litert"
    extra = "litert"
    modules = ("ai_edge_litert.interpreter",)

    def open(self, path: Path, threads: int | None, foreign: ForeignModel) -> Predictor:
        """Open a `.tflite` file with LiteRT's kernels of XNNPACK."""
        verify_trailer(path)
        spec = read_spec(path)
        litert = import_extra("ai_edge_litert.interpreter", "litert")
        try:
            interpreter = litert.Interpreter(str(path), num_threads=threads)
            interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise failure("LiteRT", path, "open", error) from None
        input_index = interpreter.get_input_details()[0]["index"]
        output_index = interpreter.get_output_details()[0]["index"]

        def prepare(images: NDArray[np.uint8]) -> Forward:
            def forward() -> Any:
                try:
                    interpreter.set_tensor(input_index, images)
                    interpreter.invoke()
                    return interpreter.get_tensor(output_index)
                except (RuntimeError, ValueError) as error:
                    raise failure("LiteRT", path, "run", error) from None

            return forward

        return Predictor.of(path, "tflite", spec, prepare, batch=_IMAGES)
