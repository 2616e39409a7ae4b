"""One way to open and run a model file, whichever runtime it is for.

Nothing here imports torch for an ONNX file: the peak memory of ONNX Runtime would otherwise contain torch's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fertool.artifact.header import ONNX_KEY, require_file
from fertool.errors import FertoolError, UsageError
from fertool.spec import InputSpec, Spec

TORCH, ONNXRUNTIME = "torch", "onnxruntime"
PROFILE_OUTPUT = "profile"
_PIXEL_TYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}

Choose = Callable[[NDArray[np.uint8]], NDArray[np.int64]]
Forward = Callable[[], Any]
"""One pass over images given beforehand: from uint8 pixels to logits [N, K], preprocessing included."""


@dataclass(frozen=True)
class Predictor:
    """A model file ready to run on the CPU.

    `spec` is None for a foreign ONNX file; then `params` and `macs` are unknown too. `batch` is the only batch size
    that the file takes, or None for any. `prepare` turns uint8 images into a pass over them. `choose`, which a dynamic
    network has, tells the profile of each image, int64 [N].
    """

    path: Path
    runtime: str
    spec: Spec | None
    classes: tuple[str, ...]
    input: InputSpec
    batch: int | None
    prepare: Callable[[NDArray[np.uint8]], Forward]
    choose: Choose | None = None

    @property
    def params(self) -> int | None:
        """The learned values, as the header says."""
        return self.spec.params if self.spec else None

    @property
    def macs(self) -> int | None:
        """The multiply-accumulates of one image, as the header says."""
        return self.spec.macs if self.spec else None

    @property
    def quantized(self) -> bool:
        """Whether the header says that the network computes with integers."""
        return self.spec is not None and self.spec.quant is not None

    @property
    def digest(self) -> str:
        """The digest in the header; for a file without one the SHA-256 of its bytes."""
        if self.spec and self.spec.digest:
            return self.spec.digest
        from fertool.artifact.store import file_digest

        return file_digest(self.path)

    def run_once(self, images: Any) -> Forward:
        """Return a pass over uint8 images [N, C, S, S], with as little around the runtime's own work as possible.

        Raises FertoolError when the shape is not the model's.
        """
        pixels = np.ascontiguousarray(images, dtype=np.uint8)
        wanted = (self.input.channels, self.input.size, self.input.size)
        if pixels.shape[1:] != wanted or self.batch not in (None, len(pixels)):
            given, taken = ("x".join(map(str, shape)) for shape in (pixels.shape, (self.batch or "N", *wanted)))
            raise FertoolError(
                f"{self.path}: images of shape {given}, the model takes {taken}",
                "open the data with the model's size and channels",
            )
        return self.prepare(pixels)

    def logits(
        self, images: Any, batch_size: int = 256, on_progress: Callable[[int, int], None] | None = None
    ) -> NDArray[np.float32]:
        """Return logits float32 [N, K] of uint8 images [N, C, S, S] (array or CPU tensor); `on_progress` in images."""
        total, step = len(images), self.batch or batch_size
        parts = []
        for start in range(0, total, step):
            chunk = np.asarray(images[start : start + step], dtype=np.uint8)
            missing = step - len(chunk) if self.batch else 0
            padded = np.pad(chunk, ((0, missing), (0, 0), (0, 0), (0, 0))) if missing else chunk
            parts.append(np.asarray(self.run_once(padded)(), dtype=np.float32)[: len(chunk)])
            if on_progress:
                on_progress(start + len(chunk), total)
        return np.concatenate(parts) if parts else np.empty((0, len(self.classes)), dtype=np.float32)


def open_predictor(
    path: Path, *, threads: int | None = None, classes: tuple[str, ...] | None = None, input_size: int | None = None
) -> Predictor:
    """Open a `.pt` file (torch, float or quantised) or an `.onnx` file (ONNX Runtime) for the CPU.

    `threads` is how many compute one pass (for torch a setting of the whole process). `classes` and `input_size` are
    for ONNX files of other programs, and ignored where a header tells. A foreign graph with uint8 input gets raw
    pixels, one with float32 input gets pixels scaled to 0..1; any other preprocessing must be inside the graph.
    Raises FertoolError for files that cannot be read, UsageError when classes or size are missing or do not fit.
    """
    require_file(path)
    if path.suffix == ".onnx":
        return _open_onnx(path, threads, classes, input_size)
    return _open_torch(path, threads)


def _open_torch(path: Path, threads: int | None) -> Predictor:
    import torch

    from fertool.data.pixels import to_input
    from fertool.models import load_model

    if threads is not None:
        torch.set_num_threads(threads)
    spec, module = load_model(path)
    network: Any = module

    def prepare(images: NDArray[np.uint8]) -> Forward:
        pixels = torch.from_numpy(images)

        def forward() -> Any:
            with torch.inference_mode():
                return module(to_input(pixels, spec.input))

        return forward

    def choose(images: NDArray[np.uint8]) -> NDArray[np.int64]:
        with torch.inference_mode():
            chosen: NDArray[np.int64] = network.choose(to_input(torch.from_numpy(images), spec.input)).numpy()
        return chosen

    return Predictor(path, TORCH, spec, spec.classes, spec.input, None, prepare, choose if spec.gates else None)


def _open_onnx(path: Path, threads: int | None, classes: tuple[str, ...] | None, input_size: int | None) -> Predictor:
    session = _onnx_session(path, threads)
    if len(session.get_inputs()) != 1:
        inputs = ", ".join(entry.name for entry in session.get_inputs())
        raise FertoolError(
            f"{path}: the graph has several inputs ({inputs})", "only image classifiers with one input run"
        )
    entry, output = session.get_inputs()[0], session.get_outputs()[0]
    header = session.get_modelmeta().custom_metadata_map.get(ONNX_KEY)
    spec = Spec.from_json(header, str(path)) if header else None
    names = spec.classes if spec else _foreign_classes(path, classes)
    input = spec.input if spec else _foreign_input(path, entry.shape, input_size)
    if entry.type not in _PIXEL_TYPES:
        raise FertoolError(f"{path}: the graph's input is {entry.type}", "export it with uint8 or float32 input")
    outputs = output.shape[-1] if output.shape else None
    if isinstance(outputs, int) and outputs != len(names):
        error = FertoolError if spec else UsageError
        raise error(f"{path}: {outputs} outputs for {len(names)} classes", "name one class per output: --classes a,b,…")
    batch = entry.shape[0] if isinstance(entry.shape[0], int) else None
    as_float = entry.type == "tensor(float)"

    def prepare(images: NDArray[np.uint8]) -> Forward:
        feed = {entry.name: images.astype(np.float32) / 255 if as_float else images}
        wanted = [output.name]
        return lambda: session.run(wanted, feed)[0]

    def choose(images: NDArray[np.uint8]) -> NDArray[np.int64]:
        chosen: NDArray[np.int64] = session.run([PROFILE_OUTPUT], {entry.name: images})[0]
        return chosen

    return Predictor(path, ONNXRUNTIME, spec, names, input, batch, prepare, choose if spec and spec.gates else None)


def session_options(threads: int | None) -> Any:
    """Return how ONNX Runtime is to run a network; None leaves the number of threads to it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what matters arrives as an exception
    options.inter_op_num_threads = 1
    if threads is not None:
        options.intra_op_num_threads = threads
    # Idle workers that spin after a pass would take the cores from the next model in an interleaved benchmark.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _onnx_session(path: Path, threads: int | None) -> Any:
    import onnxruntime

    options = session_options(threads)
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no base class of their own
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        reason = str(error).rpartition(" : ")[2].replace(str(path), "the file").strip().partition("\n")[0]
        raise FertoolError(
            f"{path}: ONNX Runtime cannot open it ({reason})", "truncated or not an ONNX file? export it again"
        ) from None


def _foreign_classes(path: Path, classes: tuple[str, ...] | None) -> tuple[str, ...]:
    if classes is None:
        raise UsageError(
            f"{path}: an ONNX file without fertool's header",
            "name its classes in the order of its outputs, and its size: --classes a,b,… --input-size N",
        )
    return classes


def _foreign_input(path: Path, shape: list[int | str | None], input_size: int | None) -> InputSpec:
    """The input of a graph without a header; mean 0 and deviation 1 stand for pixels scaled to 0..1."""
    if len(shape) != 4 or shape[1] not in (1, 3):
        wanted = "[batch, 1 or 3 channels, size, size]"
        raise FertoolError(f"{path}: the graph's input has shape {shape}, not {wanted}", "export it in that layout")
    fixed = {side for side in shape[2:] if isinstance(side, int)}
    if len(fixed) > 1 or (input_size is not None and not fixed <= {input_size}):
        raise UsageError(
            f"{path}: the graph takes images of {shape[2]} x {shape[3]}, not --input-size {input_size}",
            "give the graph's own size",
        )
    size = input_size if input_size is not None else next(iter(fixed), None)
    if size is None:
        raise UsageError(f"{path}: the graph leaves the image size open", "give it: --input-size N")
    channels = int(shape[1] or 1)
    return InputSpec(channels, size, mean=(0.0,) * channels, std=(1.0,) * channels)
