"""OpenVINO, which runs its own files and ONNX files of fertool."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fertool.artifact.contract import Contract
from fertool.artifact.header import files_of, read_spec
from fertool.artifact.onnx_digest import verify_digest
from fertool.artifact.trailer import verify_trailer
from fertool.config.foreign_files import ForeignModel
from fertool.registry import RUNTIMES
from fertool.runtime.operator_times import Images, OperatorTimes, profiled_passes
from fertool.runtime.packages import import_extra
from fertool.runtime.predictor import Forward, Predictor
from fertool.runtime.runtime import Runtime, failure

_LOGITS, _PROFILE = 0, 1
"""Outputs of a graph; the second is that of a dynamic network."""
_REASON = -1
"""The line of OpenVINO's messages with the reason: those before it name its own source files."""


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
            _, weights = files_of(path)
            verify_trailer(path, [weights])
        else:
            verify_digest(path)
        spec = read_spec(path)
        openvino = import_extra("openvino", "openvino")
        # Without the first it computes in bfloat16 where the processor has that, and without the
        # second it rounds the inputs of a linear layer with integer weights to 8 bits.
        options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "f32",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
            "PERFORMANCE_HINT": "LATENCY",
        }
        if times is not None:
            options["PERF_COUNT"] = True
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        passes = _OpenVinoPasses(path, openvino, options, Contract.of(spec), times)
        return Predictor.of(
            path, "openvino", spec, passes.prepare, choose_profile=passes.choose_profile
        )


class _OpenVinoPasses:
    """The passes of one graph, compiled for one image and, when they come, for any number.

    In a graph whose number of images is free OpenVINO plans layouts anew in every pass, which takes
    a third of the time of a small network. Each pass adds the counters of its nodes to `times`, if
    given.
    """

    def __init__(
        self,
        path: Path,
        openvino: Any,
        options: dict[str, Any],
        contract: Contract,
        times: OperatorTimes | None,
    ) -> None:
        self._path = path
        self._openvino = openvino
        self._options = options
        self._contract = contract
        self._times = times
        self._compiled: dict[bool, Any] = {}
        # At once, so that a file that cannot be opened is noticed before the first pass.
        self._compile(one_image=True)

    def prepare(self, images: NDArray[np.uint8]) -> Forward:
        """Return a pass over images [N, C, S, S]."""
        run = self._bind(images)
        return lambda: run(_LOGITS)

    def choose_profile(self, images: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the profile of each image, int64 [N]."""
        profiles: NDArray[np.int64] = self._bind(images)(_PROFILE)
        return profiles

    def _bind(self, images: NDArray[np.uint8]) -> Callable[[int], Any]:
        """Return a function that runs the graph on images and returns one of its outputs."""
        pixels = np.ascontiguousarray(self._contract.arrange(images))
        request = self._compile(one_image=len(images) == 1).create_infer_request()
        # Outside of the pass, since the checks of another call of the request take longer than
        # a small network.
        request.set_input_tensor(self._openvino.Tensor(pixels, shared_memory=True))

        # The request shares the memory of `pixels`, which nothing else keeps alive.
        def run(output: int, keep: NDArray[np.uint8] = pixels) -> Any:
            try:
                request.infer()
            except RuntimeError as error:
                raise failure("OpenVINO", self._path, "run", error, line=_REASON) from None
            self._add_times(request)
            # A copy, since the next pass reuses the memory.
            return request.get_output_tensor(output).data.copy()

        return run

    def _add_times(self, request: Any) -> None:
        """Add the counters of the last pass, where they are asked for."""
        if self._times is None:
            return
        for node in request.profiling_info:
            # Others were fused into a neighbor, or computed when the file was opened.
            if node.status.name == "EXECUTED":
                self._times.add(node.node_type, node.real_time.total_seconds())

    def _compile(self, one_image: bool) -> Any:
        """Return the graph compiled for one image, or for any number."""
        compiled = self._compiled.get(one_image)
        if compiled is None:
            core = self._openvino.Core()
            try:
                model = core.read_model(str(self._path))
                if one_image:
                    shape = model.inputs[0].partial_shape
                    shape[0] = 1
                    model.reshape(shape)
                compiled = core.compile_model(model, "CPU", self._options)
            except RuntimeError as error:
                raise failure("OpenVINO", self._path, "open", error, line=_REASON) from None
            self._compiled[one_image] = compiled
        return compiled
