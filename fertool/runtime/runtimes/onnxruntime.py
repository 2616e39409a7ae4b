"""ONNX Runtime, which runs ONNX files of fertool and of other programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fertool.artifact.atomic import temporary_folder
from fertool.artifact.contract import Contract
from fertool.artifact.header import ONNX_KEY, PROFILE_OUTPUT
from fertool.artifact.onnx_digest import verify_digest
from fertool.config.foreign_files import ForeignModel
from fertool.errors import FertoolError, UsageError
from fertool.onnx_runtime import (
    failed_pass,
    guarded_memory,
    import_onnxruntime,
    kernel_events,
    open_session_with_time_limit,
    profiling_options,
    read_metadata,
    read_profile,
    session_options,
)
from fertool.registry import RUNTIMES
from fertool.results import Assumptions
from fertool.runtime.foreign import (
    FLOAT,
    UINT8,
    foreign_classes,
    foreign_input,
    preprocess,
    resolve_assumptions,
)
from fertool.runtime.operator_times import (
    MICROSECOND,
    Images,
    OperatorTimes,
    profiled_passes,
)
from fertool.runtime.predictor import (
    PASS_BYTES,
    ChooseProfile,
    Forward,
    Predictor,
    largest_batch,
)
from fertool.runtime.runtime import Runtime
from fertool.spec import InputSpec, Spec

_OPENING_S = 8.0
_OPENED_BYTES_PER_S = 1e6
"""How long an ONNX file may take to open; the largest networks take a second for 20 MB."""
_MEMORY_PER_FILE_BYTE = 8
"""What a byte of a file may take in memory: unpacked weights, and copies in other layouts."""
_LOGIT_TYPES = (FLOAT, "tensor(float16)", "tensor(double)")


@RUNTIMES.register("onnxruntime")
class OnnxRuntime(Runtime):
    """ONNX Runtime: ONNX files of fertool and of other programs."""

    package = "onnxruntime"
    modules = ("onnxruntime",)

    def open(self, path: Path, threads: int | None, foreign: ForeignModel) -> Predictor:
        """Open an `.onnx` file within bounds of time and memory."""
        predictor, _ = self._open(path, session_options(threads), foreign)
        return predictor

    def profile(
        self, path: Path, threads: int | None, foreign: ForeignModel, batches: Sequence[Images]
    ) -> OperatorTimes:
        """Return the time by operator, from the runtime's profiler."""
        with temporary_folder() as folder:
            options = profiling_options(threads, folder)
            predictor, session = self._open(path, options, foreign)
            passes = profiled_passes(predictor, batches)
            passes.warm_up()
            passes.run()
            events = read_profile(session)
        return _operator_times(events, passes.warmup)

    def _open(self, path: Path, options: Any, foreign: ForeignModel) -> tuple[Predictor, Any]:
        """Return the predictor of a file, and its session with these options."""
        # Before the runtime reads it: a damaged graph is not run at all.
        sealed = verify_digest(path)
        session = _open_session(path, options, foreign.time_limit)
        entry = _only_input(path, session)
        outputs = {output.name: output for output in session.get_outputs()}
        if not outputs:
            raise FertoolError(f"{path}: the graph has no output", "export it again")

        spec = _read_spec(path, session, sealed)
        if spec is None:
            use = _use_of_foreign(path, entry, outputs, foreign)
        else:
            use = _use_of_header(path, entry, outputs, spec)
        passes = _OnnxPasses(path, session, entry, use)
        choose_profile: ChooseProfile | None = None
        if spec is not None and spec.gates:
            choose_profile = passes.choose_profile
        predictor = Predictor(
            path=path,
            runtime="onnxruntime",
            spec=spec,
            classes=use.classes,
            input=use.input,
            batch=_fixed_batch(path, entry.shape, use.input),
            prepare=passes.prepare,
            choose_profile=choose_profile,
            assumptions=use.assumptions,
            stop=passes.stop,
            time_limit_s=foreign.time_limit,
            contract=use.contract,
        )
        return predictor, session


@dataclass(frozen=True)
class _Use:
    """How a graph is fed and read: `contract` for a file with a header, else `assumptions`.

    `output` is the name of the output with the logits or probabilities.
    """

    classes: tuple[str, ...]
    input: InputSpec
    output: str
    contract: Contract | None = None
    assumptions: Assumptions | None = None


def _use_of_header(path: Path, entry: Any, outputs: Mapping[str, Any], spec: Spec) -> _Use:
    """Return how a graph with this header is used; raises FertoolError where it does not fit."""
    contract = Contract.of(spec)
    _require_header_input(path, entry.shape, contract)
    output = next(iter(outputs.values()))
    _require_logits(path, output, len(spec.classes), FertoolError)
    return _Use(spec.classes, spec.input, output.name, contract=contract)


def _use_of_foreign(
    path: Path, entry: Any, outputs: Mapping[str, Any], foreign: ForeignModel
) -> _Use:
    """Return how a graph without a header is used; raises an error where `foreign` does not fit."""
    classes = foreign_classes(path, foreign)
    input = foreign_input(path, entry.shape, foreign)
    assumptions = resolve_assumptions(path, foreign, entry.type, input.channels, tuple(outputs))
    output = outputs[assumptions.output]
    # The user named the classes, so their number is a usage error.
    _require_logits(path, output, len(classes), UsageError)
    return _Use(classes, input, output.name, assumptions=assumptions)


class _OnnxPasses:
    """The passes of an open session over one input and one output."""

    def __init__(self, path: Path, session: Any, entry: Any, use: _Use) -> None:
        self._path = path
        self._session = session
        self._entry = entry
        self._output = use.output
        self._assumptions = use.assumptions
        self._contract = use.contract
        self._options = import_onnxruntime().RunOptions()

    def prepare(self, images: NDArray[np.uint8]) -> Forward:
        """Return a pass over images [N, C, S, S], preprocessed where the graph takes floats."""
        pixels: NDArray[Any] = images
        if self._contract:
            pixels = self._contract.arrange(images)
        if self._assumptions and self._entry.type == FLOAT:
            pixels = preprocess(images, self._assumptions)
        # Bound outside of the pass, since it is timed.
        run = self._session.run
        feed = {self._entry.name: pixels}
        wanted = [self._output]
        options = self._options
        where = str(self._path)

        def forward() -> Any:
            try:
                return run(wanted, feed, options)[0]
            # The exceptions of ONNX Runtime have no common base class.
            except Exception as error:
                raise failed_pass(error, where) from None

        return forward

    def choose_profile(self, images: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the profile of each image, int64 [N]."""
        pixels = self._contract.arrange(images) if self._contract else images
        feed = {self._entry.name: pixels}
        try:
            (profiles,) = self._session.run([PROFILE_OUTPUT], feed)
        # As in `prepare`.
        except Exception as error:
            raise failed_pass(error, str(self._path)) from None
        chosen: NDArray[np.int64] = profiles
        return chosen

    def stop(self) -> None:
        """End the pass that is running."""
        self._options.terminate = True


def _operator_times(events: Sequence[dict[str, Any]], warmup: int) -> OperatorTimes:
    """Return the time by operator from the events of a profile, without the first passes."""
    starts = []
    for event in events:
        if event.get("name") == "model_run":
            starts.append(event["ts"])
    first_timed_us = sorted(starts)[warmup]
    times = OperatorTimes()
    for event in kernel_events(events):
        if event["ts"] >= first_timed_us:
            times.add(event["args"]["op_name"], event["dur"] * MICROSECOND)
    return times


def _open_session(path: Path, options: Any, time_limit_s: float) -> Any:
    """Open an ONNX file within bounds of time and memory that grow with its size."""
    size_bytes = path.stat().st_size
    limit_s = max(time_limit_s, _OPENING_S + size_bytes / _OPENED_BYTES_PER_S)
    with guarded_memory(PASS_BYTES + _MEMORY_PER_FILE_BYTE * size_bytes):
        return open_session_with_time_limit(path, options, limit_s)


def _read_spec(path: Path, session: Any, sealed: bool) -> Spec | None:
    """Return fertool's header of a graph, None for a foreign one; FertoolError if damaged."""
    header = read_metadata(session, ONNX_KEY, str(path))
    if not header:
        return None
    if not sealed:
        raise FertoolError(
            f"{path}: has fertool's header but no digest of its content",
            "written by an older fertool: export it again",
        )
    return Spec.from_json(header, str(path))


def _only_input(path: Path, session: Any) -> Any:
    entries = session.get_inputs()
    # What further inputs should get could only be guessed.
    if len(entries) != 1:
        names = ", ".join(entry.name for entry in entries) or "none"
        raise FertoolError(
            f"{path}: the graph has {len(entries)} inputs ({names})",
            "only image classifiers with one input run",
        )
    entry = entries[0]
    if entry.type not in (UINT8, FLOAT):
        raise FertoolError(
            f"{path}: the graph's input is {entry.type}",
            "export it with uint8 or float32 input",
        )
    return entry


def _require_header_input(path: Path, shape: Sequence[Any], contract: Contract) -> None:
    """Raise FertoolError unless the input of a graph is that of its header."""
    header_shape = list(contract.input_shape[1:])
    if list(shape[1:]) != header_shape:
        raise FertoolError(
            f"{path}: the header says images of {header_shape}, the graph takes {list(shape[1:])}",
            "export it again",
        )


def _require_logits(path: Path, output: Any, classes: int, error: type[FertoolError]) -> None:
    """Raise FertoolError unless an output can be floats [images, classes].

    `error` is raised for another number of classes.
    """
    hint = (
        "the output must be floats [images, classes], before any ArgMax; "
        "another one: ``output_name=NAME``"
    )
    if output.type not in _LOGIT_TYPES:
        raise FertoolError(f"{path}: the output '{output.name}' is {output.type}", hint)
    # Without a declared shape only the first pass can tell.
    shape = output.shape
    if not shape:
        return
    if len(shape) != 2:
        raise FertoolError(f"{path}: the output '{output.name}' has shape {shape}", hint)
    if isinstance(shape[1], int) and shape[1] != classes:
        raise error(
            f"{path}: {shape[1]} outputs for {classes} classes",
            "name one class per output: ``classes=a,b,…``",
        )


def _fixed_batch(path: Path, shape: Sequence[Any], input: InputSpec) -> int | None:
    """Return the only batch size that a graph takes, or None for any.

    Raises FertoolError for one that does not fit the memory.
    """
    batch = shape[0]
    if not isinstance(batch, int):
        return None
    most = largest_batch(input)
    if not 1 <= batch <= most:
        raise FertoolError(
            f"{path}: the graph takes batches of {batch} images, of which {most} fit the memory",
            "export it with a free batch size",
        )
    return batch
