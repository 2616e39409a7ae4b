"""OpenVINO, which runs its own files and ONNX files of fertool."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fertool.artifact.contract import Contract
from fertool.artifact.header import read_spec
from fertool.artifact.onnx_digest import verify_digest
from fertool.artifact.trailer import verify_trailer
from fertool.config.foreign_files import ForeignModel
from fertool.errors import FertoolError
from fertool.registry import RUNTIMES
from fertool.runtime.operator_times import Images, OperatorTimes, profiled_passes
from fertool.runtime.packages import import_extra
from fertool.runtime.predictor import Forward, Predictor
from fertool.runtime.runtime import Runtime

_LOGITS, _PROFILE = 0, 1
"""Outputs of a graph; the second is that of a dynamic network."""


@RUNTIMES.register("openvino")
class OpenVinoRuntime(Runtime):
    """OpenVINO: its own files and ONNX files, with fertool's header."""

    package = "openvino"
    extra = "openvino"
    modules = ("openvino",)
    also_opens = (".onnx",)

    def open(self, path: Path, threads: int | None, foreign: ForeignModel) -> Predictor:
        """Open an `.xml` or `.onnx` file for float32 and integer arithmetic."""
        return self._open(path, threads)

    def profile(
        self, path: Path, threads: int | None, foreign: ForeignModel, batches: Sequence[Images]
    ) -> OperatorTimes:
        """Return the time by type of node, from the counters of each pass."""
        times = OperatorTimes()
        passes = profiled_passes(self._open(path, threads, times), batches)
        passes.warm_up()
        times.clear()
        passes.run()
        return times

    def _open(
        self, path: Path, threads: int | None, times: OperatorTimes | None = None
    ) -> Predictor:
        """Open a file; each pass then adds the counters of its nodes to `times`, if given."""
        if path.suffix.lower() == ".xml":
            verify_trailer(path, [path.with_suffix(".bin")])
        else:
            verify_digest(path)
        spec = read_spec(path)
        openvino = import_extra("openvino", "openvino")
        # Without the hint it computes in bfloat16 where the processor has that.
        options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        if times is not None:
            options["PERF_COUNT"] = True
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        try:
            compiled = openvino.Core().compile_model(str(path), "CPU", options)
        except RuntimeError as error:
            raise _failure(path, "open", error) from None

        request = compiled.create_infer_request()

        contract = Contract.of(spec)

        def run(pixels: NDArray[np.uint8], output: int) -> Any:
            try:
                result = request.infer({0: pixels})[output]
            except RuntimeError as error:
                raise _failure(path, "run", error) from None
            if times is not None:
                for node in request.profiling_info:
                    # Others were fused into a neighbor, or computed when the file was opened.
                    if node.status.name == "EXECUTED":
                        times.add(node.node_type, node.real_time.total_seconds())
            return result

        def prepare(images: NDArray[np.uint8]) -> Forward:
            pixels = contract.arrange(images)
            return lambda: run(pixels, _LOGITS)

        def choose_profile(images: NDArray[np.uint8]) -> NDArray[np.int64]:
            profiles: NDArray[np.int64] = run(contract.arrange(images), _PROFILE)
            return profiles

        return Predictor.of(path, "openvino", spec, prepare, choose_profile=choose_profile)


def _failure(path: Path, action: str, error: Exception) -> FertoolError:
    reason = str(error).strip().splitlines()[-1]
    return FertoolError(f"{path}: OpenVINO cannot {action} it ({reason})", "export it again")
