"""One way to open and run a model file, whichever runtime it is for.

Nothing here imports torch for an ONNX file: the peak memory of ONNX Runtime would otherwise contain torch's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fertool.artifact.header import ONNX_KEY, is_onnx
from fertool.artifact.input_files import require_file
from fertool.artifact.onnx_digest import verify_digest
from fertool.errors import FertoolError, UsageError
from fertool.onnx_runtime import (
    bounded_memory,
    failed_pass,
    import_onnxruntime,
    open_session_within,
    read_metadata,
    run_within,
    session_options,
)
from fertool.runtime.foreign import (
    FLOAT,
    LARGEST_BATCH_BYTES,
    UINT8,
    Assumptions,
    ForeignModel,
    assumptions,
    foreign_classes,
    foreign_input,
)
from fertool.spec import InputSpec, Spec, affordable_batch

TORCH, ONNXRUNTIME = "torch", "onnxruntime"
PROFILE_OUTPUT = "profile"
TIME_LIMIT_S = 8.0
"""How long one image may take in an ONNX graph, which may hold an endless loop."""
_OPENING_S, _OPENED_BYTES_PER_S = 8.0, 1e6
"""How long an ONNX file may take to open; the largest networks take a second for 20 MB."""
PASS_BYTES = 1 << 30
"""How much memory one image may take in such a graph."""
_BYTES_OF_A_WEIGHT = 8
"""What a byte of a file may take in memory: unpacked weights, and copies in other layouts."""
_FLOAT_BYTES = 4
_LOGIT_TYPES = ("tensor(float)", "tensor(float16)", "tensor(double)")

Choose = Callable[[NDArray[np.uint8]], NDArray[np.int64]]
Forward = Callable[[], Any]
"""One pass over images given beforehand: from uint8 pixels to logits [N, K], preprocessing included."""


@dataclass(frozen=True)
class Predictor:
    """A model file ready to run on the CPU.

    `spec` is None for a foreign ONNX file; then `params` and `macs` are unknown too, and `assumptions` has how it is
    used. `batch` is the only batch size that the file takes, or None for any. `prepare` turns uint8 images into a pass
    over them. `choose`, which a dynamic network has, tells the profile of each image, int64 [N]. `stop` ends a pass of
    a graph, which could go on for ever, and `time_limit_s` is how long one image of it may take.
    """

    path: Path
    runtime: str
    spec: Spec | None
    classes: tuple[str, ...]
    input: InputSpec
    batch: int | None
    prepare: Callable[[NDArray[np.uint8]], Forward]
    choose: Choose | None = None
    assumptions: Assumptions | None = None
    stop: Callable[[], None] | None = None
    time_limit_s: float = TIME_LIMIT_S

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
        self._require_shape(pixels.shape)
        return self.prepare(pixels)

    def _require_shape(self, shape: Sequence[int]) -> None:
        wanted = (self.input.channels, self.input.size, self.input.size)
        if tuple(shape[1:]) != wanted or self.batch not in (None, shape[0]):
            given, taken = (
                "x".join(map(str, shape)) for shape in (shape, (self.batch or "N", *wanted))
            )
            raise FertoolError(
                f"{self.path}: images of shape {given}, the model takes {taken}",
                "open the data with the model's size and channels",
            )

    def answer(self, forward: Forward, images: int) -> NDArray[np.float32]:
        """Run a pass over so many images and return its logits float32 [images, K].

        Raises FertoolError when it takes too long, fails, or gives anything else.
        """
        if self.stop is None:
            found = forward()
        else:
            with bounded_memory(PASS_BYTES * images):
                found = run_within(forward, self.stop, self.time_limit_s * images, str(self.path))
        answers = np.asarray(found)
        wanted = (images, len(self.classes))
        if answers.shape != wanted or answers.dtype.kind != "f":
            raise FertoolError(
                f"{self.path}: answers {answers.dtype} of shape {answers.shape}, not floats of shape {wanted}",
                "the answer must be floats [images, classes]; another output: --output-name NAME",
            )
        # A logit of minus infinity stands for a probability of 0.
        if not np.isfinite(answers.max(axis=1)).all():
            raise FertoolError(
                f"{self.path}: answers NaN or infinity",
                "its weights or its preprocessing are wrong",
            )
        return answers.astype(np.float32)

    def logits(
        self,
        images: Any,
        batch_size: int = 256,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> NDArray[np.float32]:
        """Return logits float32 [N, K] of uint8 images [N, C, S, S] (array or CPU tensor); `on_progress` in images.

        The first pass has one image, so that a graph without an end is found out soon. Raises FertoolError as `answer`.
        """
        total, step = len(images), self.batch or affordable_batch(batch_size, self.input.size)
        parts = []
        if total and self.stop and not self.batch:
            self._require_shape(images.shape)
            self.answer(self.run_once(np.asarray(images[:1], dtype=np.uint8)), 1)
        for start in range(0, total, step):
            chunk = np.asarray(images[start : start + step], dtype=np.uint8)
            missing = step - len(chunk) if self.batch else 0
            padded = np.pad(chunk, ((0, missing), (0, 0), (0, 0), (0, 0))) if missing else chunk
            parts.append(self.answer(self.run_once(padded), len(padded))[: len(chunk)])
            if on_progress:
                on_progress(start + len(chunk), total)
        return (
            np.concatenate(parts) if parts else np.empty((0, len(self.classes)), dtype=np.float32)
        )


def input_limit(input: InputSpec) -> int:
    """Return how many images of a model fit one batch, by the memory of their float pixels; at least 1."""
    return max(1, LARGEST_BATCH_BYTES // (_FLOAT_BYTES * input.channels * input.size**2))


def open_predictor(
    path: Path,
    *,
    threads: int | None = None,
    foreign: ForeignModel = ForeignModel(),
    time_limit_s: float = TIME_LIMIT_S,
) -> Predictor:
    """Open a `.pt` file (torch, float or quantised) or an `.onnx` file (ONNX Runtime) for the CPU.

    `threads` is how many compute one pass (for torch a setting of the whole process). `foreign` is about ONNX files of
    other programs, and ignored where a header tells. A foreign graph with uint8 input gets raw pixels. `time_limit_s`
    ends graphs that compute longer for one image. Raises FertoolError for files that cannot be read or are damaged,
    UsageError when classes or size are missing or do not fit.
    """
    require_file(path)
    if is_onnx(path):
        return _open_onnx(path, threads, foreign, time_limit_s)
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
            chosen: NDArray[np.int64] = network.choose(
                to_input(torch.from_numpy(images), spec.input)
            ).numpy()
        return chosen

    return Predictor(
        path, TORCH, spec, spec.classes, spec.input, None, prepare, choose if spec.gates else None
    )


def _open_onnx(
    path: Path, threads: int | None, foreign: ForeignModel, time_limit_s: float
) -> Predictor:
    where = str(path)
    sealed = verify_digest(path)
    size = path.stat().st_size
    opening_s = max(time_limit_s, _OPENING_S + size / _OPENED_BYTES_PER_S)
    with bounded_memory(PASS_BYTES + _BYTES_OF_A_WEIGHT * size):
        session = open_session_within(path, session_options(threads), opening_s)
    entry = _only_input(path, session)
    header = read_metadata(session, ONNX_KEY, where)
    if header and not sealed:
        raise FertoolError(
            f"{path}: has fertool's header but no digest of its content",
            "written by an older fertool: export it again",
        )
    outputs = {output.name: output for output in session.get_outputs()}
    if not outputs:
        raise FertoolError(f"{path}: the graph has no output", "export it again")
    spec, assumed = (Spec.from_json(header, where) if header else None), None
    if spec:
        classes, input, output = spec.classes, spec.input, next(iter(outputs.values()))
        _require_same_shape(path, entry.shape, input)
    else:
        classes, input = foreign_classes(path, foreign), foreign_input(path, entry.shape, foreign)
        assumed = assumptions(path, foreign, entry.type, input.channels, [*outputs])
        output = outputs[assumed.output]
    _require_logits(path, output, len(classes), UsageError if assumed else FertoolError)
    batch = _fixed_batch(path, entry.shape, input)
    options = import_onnxruntime().RunOptions()

    def prepare(images: NDArray[np.uint8]) -> Forward:
        feed = {entry.name: assumed.feed(images) if assumed and entry.type == FLOAT else images}
        wanted = [output.name]

        def forward() -> Any:
            try:
                return session.run(wanted, feed, options)[0]
            except Exception as error:
                raise failed_pass(error, where) from None

        return forward

    def choose(images: NDArray[np.uint8]) -> NDArray[np.int64]:
        try:
            chosen: NDArray[np.int64] = session.run([PROFILE_OUTPUT], {entry.name: images})[0]
        except Exception as error:
            raise failed_pass(error, where) from None
        return chosen

    def stop() -> None:
        options.terminate = True

    return Predictor(
        path=path,
        runtime=ONNXRUNTIME,
        spec=spec,
        classes=classes,
        input=input,
        batch=batch,
        prepare=prepare,
        choose=choose if spec and spec.gates else None,
        assumptions=assumed,
        stop=stop,
        time_limit_s=time_limit_s,
    )


def _only_input(path: Path, session: Any) -> Any:
    entries = session.get_inputs()
    if len(entries) != 1:
        inputs = ", ".join(entry.name for entry in entries) or "none"
        raise FertoolError(
            f"{path}: the graph has {len(entries)} inputs ({inputs})",
            "only image classifiers with one input run",
        )
    if entries[0].type not in (UINT8, FLOAT):
        raise FertoolError(
            f"{path}: the graph's input is {entries[0].type}",
            "export it with uint8 or float32 input",
        )
    return entries[0]


def _require_same_shape(path: Path, shape: Sequence[Any], input: InputSpec) -> None:
    """Raise FertoolError unless the input of a graph is that of its header."""
    said = [input.channels, input.size, input.size]
    if list(shape[1:]) != said:
        raise FertoolError(
            f"{path}: the header says images of {said}, the graph takes {list(shape[1:])}",
            "export it again",
        )


def _require_logits(path: Path, output: Any, classes: int, error: type[FertoolError]) -> None:
    """Raise FertoolError unless an output can be one floating-point number for each image and class, [N, classes]."""
    hint = "the answer must be floats [images, classes], before any ArgMax; another output: --output-name NAME"
    if output.type not in _LOGIT_TYPES:
        raise FertoolError(f"{path}: the output '{output.name}' is {output.type}", hint)
    shape = output.shape or []
    if shape and len(shape) != 2:
        raise FertoolError(f"{path}: the output '{output.name}' has shape {shape}", hint)
    count = shape[1] if shape else None
    if isinstance(count, int) and count != classes:
        raise error(
            f"{path}: {count} outputs for {classes} classes",
            "name one class per output: --classes a,b,…",
        )


def _fixed_batch(path: Path, shape: Sequence[Any], input: InputSpec) -> int | None:
    """Return the only batch size that a graph takes, or None for any; raises FertoolError for an absurd one."""
    batch = shape[0] if isinstance(shape[0], int) else None
    if batch is not None and not 1 <= batch <= input_limit(input):
        raise FertoolError(
            f"{path}: the graph takes batches of {batch} images, of which {input_limit(input)} fit the memory",
            "export it with a free batch size",
        )
    return batch
