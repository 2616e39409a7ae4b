"""ncnn, which runs `.param` files with their `.bin`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fertool.artifact.contract import NCNN_INPUT, NCNN_OUTPUT
from fertool.artifact.header import files_of, read_spec
from fertool.artifact.trailer import verify_trailer
from fertool.config.foreign_files import ForeignModel
from fertool.errors import FertoolError
from fertool.registry import RUNTIMES
from fertool.runtime.packages import import_extra
from fertool.runtime.predictor import Forward, Predictor
from fertool.runtime.runtime import Runtime

_IMAGES = 1
"""An extractor of ncnn takes one image."""


@RUNTIMES.register("ncnn")
class NcnnRuntime(Runtime):
    """ncnn: `.param` files of fertool, with the `.bin` file beside them."""

    package = "ncnn"
    extra = "ncnn"
    modules = ("ncnn",)

    def open(self, path: Path, threads: int | None, foreign: ForeignModel) -> Predictor:
        """Open both files, for arithmetic in float32."""
        _, weights = files_of(path)
        verify_trailer(path, [weights])
        spec = read_spec(path)
        ncnn = import_extra("ncnn", "ncnn")
        network = ncnn.Net()
        # Halves would differ from PyTorch by more than the tolerance.
        for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
            setattr(network.opt, name, False)
        network.opt.use_bf16_storage = False
        network.opt.use_vulkan_compute = False
        if threads is not None:
            network.opt.num_threads = threads
        if network.load_param(str(path)) != 0 or network.load_model(str(weights)) != 0:
            raise FertoolError(f"{path}: ncnn cannot open it", "export it again")

        def prepare(images: NDArray[np.uint8]) -> Forward:
            pixels = np.ascontiguousarray(images[0], dtype=np.float32)

            def forward() -> Any:
                extractor = network.create_extractor()
                extractor.input(NCNN_INPUT, ncnn.Mat(pixels))
                code, logits = extractor.extract(NCNN_OUTPUT)
                if code != 0:
                    raise FertoolError(f"{path}: ncnn cannot run it", "export it again")
                # ncnn drops the axis of the batch.
                return np.array(logits).reshape(_IMAGES, -1)

            return forward

        return Predictor.of(path, "ncnn", spec, prepare, batch=_IMAGES)
