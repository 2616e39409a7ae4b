"""ONNX Runtime without telemetry, with fertool's errors and within limits of time and memory."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from fertool.errors import FertoolError

NO_TELEMETRY = {"ORT_DISABLE_TELEMETRY": "1"}
"""Keeps ONNX Runtime from making an identifier of the machine; must be set before its import."""
SILENT = 4
"""Log level fatal: errors arrive as exceptions."""
_GRACE_S = 2.0
"""How long a pass may continue after it was told to stop."""
MemoryGuard = Callable[[int], contextlib.AbstractContextManager[None]]
"""Returns a context in which the process may grow by so many bytes."""


def _no_limit(extra_bytes: int) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


_memory_guard: ContextVar[MemoryGuard] = ContextVar("memory_guard", default=_no_limit)
_running: set[threading.Event] = set()
"""One event for each call of `run_with_time_limit` whose thread has not ended."""


def import_onnxruntime() -> Any:
    """Return the module `onnxruntime` with telemetry disabled, which writes files and sends events.

    A value of ORT_DISABLE_TELEMETRY that the user has set is respected.
    """
    for name, value in NO_TELEMETRY.items():
        os.environ.setdefault(name, value)
    import onnxruntime

    if os.environ["ORT_DISABLE_TELEMETRY"] == "1":
        onnxruntime.disable_telemetry_events()
    return onnxruntime


def session_options(threads: int | None) -> Any:
    """Return the options of a session; None leaves the number of threads to ONNX Runtime."""
    options = import_onnxruntime().SessionOptions()
    options.log_severity_level = SILENT
    options.inter_op_num_threads = 1
    if threads is not None:
        options.intra_op_num_threads = threads
    # Idle workers that spin after a pass would take cores from the next model of a benchmark.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def open_session_with_time_limit(path: Path, options: Any, limit_s: float) -> Any:
    """Open an ONNX file as `open_session` does; raises FertoolError after `limit_s` seconds.

    A small graph may grow without end while ONNX Runtime unfolds its functions and constants.
    """

    def open_file() -> Any:
        return open_session(path, options, str(path))

    def stop() -> None:
        """Do nothing: there is no way to interrupt the constructor of a session."""

    return run_with_time_limit(open_file, stop, limit_s, str(path), failure="not open")


def open_session(
    source: Path | bytes, options: Any, where: str, disabled_optimizers: Sequence[str] = ()
) -> Any:
    """Open an ONNX file or its bytes on the CPU; raises FertoolError about `where`."""
    model = source if isinstance(source, bytes) else str(source)
    onnxruntime = import_onnxruntime()
    try:
        return onnxruntime.InferenceSession(
            model,
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=list(disabled_optimizers),
        )
    # The exceptions of ONNX Runtime have no common base class.
    except Exception as error:
        raise FertoolError(
            f"{where}: ONNX Runtime cannot open it ({_reason(error, where)})",
            "truncated or not an ONNX file? export it again",
        ) from None


def profiling_options(threads: int | None, folder: Path) -> Any:
    """Return the options of a session whose profiler writes into `folder`, for `read_profile`."""
    options = session_options(threads)
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    return options


def read_profile(session: Any) -> list[dict[str, Any]]:
    """End the profiling of a session; returns its events, with times in microseconds."""
    profile = Path(session.end_profiling())
    events: list[dict[str, Any]] = json.loads(profile.read_text(encoding="utf-8"))
    return events


def kernel_events(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the events of a profile that time the kernel of a node."""
    kernels = []
    for event in events:
        # A node may have events of another kind.
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            kernels.append(event)
    return kernels


@contextlib.contextmanager
def guard_memory(guard: MemoryGuard) -> Iterator[None]:
    """Let every graph that is opened in the block be opened, and first run, within `guard`.

    For a program that owns its process, as the command line does. Without a guard a graph may ask
    for any memory, since the only limit that ONNX Runtime respects is one of the whole process.
    """
    token = _memory_guard.set(guard)
    try:
        yield
    finally:
        _memory_guard.reset(token)


def guarded_memory(extra_bytes: int) -> contextlib.AbstractContextManager[None]:
    """Return the context for work of a graph that may need so many bytes more than now."""
    return _memory_guard.get()(extra_bytes)


def read_metadata(session: Any, key: str, where: str) -> str | None:
    """Return an entry of a graph's metadata or None; raises FertoolError if they are unreadable."""
    try:
        value: str | None = session.get_modelmeta().custom_metadata_map.get(key)
    # As in `open_session`.
    except Exception as error:
        raise FertoolError(
            f"{where}: unreadable metadata ({_reason(error, where)})", "export it again"
        ) from None
    return value


def failed_pass(error: Exception, where: str) -> FertoolError:
    """Return the error for a pass in which ONNX Runtime raised `error`.

    Callers catch Exception, since its exceptions have no common base class.
    """
    return FertoolError(
        f"{where}: ONNX Runtime cannot run it ({_reason(error, where)})",
        "the graph does not fit its input; export it again",
    )


def run_with_time_limit(
    forward: Callable[[], Any],
    stop: Callable[[], None],
    limit_s: float,
    where: str,
    failure: str = "no result",
) -> Any:
    """Return the result of `forward`; raises FertoolError if it takes more than `limit_s` seconds.

    A thread runs it and this one waits, because no signal interrupts a pass: `stop`, which must
    make `forward` end, is called after the limit and after Ctrl-C. `has_running_pass` tells whether
    it runs on nevertheless. The error says `failure` about `where`.
    """
    results: list[Any] = []
    errors: list[Exception] = []
    done = threading.Event()

    def work() -> None:
        try:
            results.append(forward())
        # Raised again by the thread that waits.
        except Exception as error:
            errors.append(error)
        finally:
            _running.discard(done)
            done.set()

    # Registered first: the thread may end before the next statement.
    _running.add(done)
    # A daemon, so that a pass that never ends does not keep the process.
    threading.Thread(target=work, daemon=True).start()
    try:
        # Not join(): after a signal it takes a running thread for an ended one.
        in_time = done.wait(limit_s)
    finally:
        if not done.is_set():
            stop()
            done.wait(_GRACE_S)
    if not in_time:
        raise FertoolError(
            f"{where}: {failure} after {limit_s:g} s",
            "the graph may hold an endless loop, or grow without end; "
            "``time_limit=SECONDS`` gives it longer",
        )
    if errors:
        raise errors[0]
    return results[0]


def has_running_pass() -> bool:
    """Whether a thread is inside ONNX Runtime, which crashes when Python then exits normally."""
    return bool(_running)


def _reason(error: Exception, where: str) -> str:
    """Return the message of an exception of ONNX Runtime in one line."""
    if isinstance(error, UnicodeDecodeError):
        return "text that is not UTF-8"
    # Before the last " : " stand error code and source location.
    text = str(error).rpartition(" : ")[2].replace(where, "the file").strip()
    return text.partition("\n")[0] or type(error).__name__
