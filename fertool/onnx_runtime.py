"""ONNX Runtime as every part of fertool uses it: silent, without telemetry, with our errors and an end to each pass."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fertool.errors import FertoolError

NO_TELEMETRY = {"ORT_DISABLE_TELEMETRY": "1"}
"""The environment in which ONNX Runtime makes no identifier of the machine; only before its import does it help."""
SILENT = 4
"""Log level: what matters arrives as an exception."""
_BYTES_OF_A_THREAD = 80 << 20
_GRACE_S = 2.0
"""How long a pass that was told to end may go on."""
_at_work: set[threading.Event] = set()
"""What has not ended of all that `run_within` has begun."""


def import_onnxruntime() -> Any:
    """Return the module `onnxruntime`, which from its import on would write files and send events otherwise.

    Who sets ORT_DISABLE_TELEMETRY themselves is obeyed.
    """
    for name, value in NO_TELEMETRY.items():
        os.environ.setdefault(name, value)
    import onnxruntime

    if os.environ["ORT_DISABLE_TELEMETRY"] == "1":
        onnxruntime.disable_telemetry_events()
    return onnxruntime


def session_options(threads: int | None) -> Any:
    """Return how ONNX Runtime is to run a network; None leaves the number of threads to it."""
    options = import_onnxruntime().SessionOptions()
    options.log_severity_level = SILENT
    options.inter_op_num_threads = 1
    if threads is not None:
        options.intra_op_num_threads = threads
    # Idle workers that spin after a pass would take the cores from the next model in an interleaved benchmark.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def open_session_within(path: Path, options: Any, limit_s: float) -> Any:
    """Open an ONNX file as `open_session` does, or raise FertoolError when that takes more than `limit_s` seconds.

    A small graph may grow without end while ONNX Runtime unfolds its functions and constants.
    """

    def opened() -> Any:
        return open_session(path, options, str(path))

    return run_within(opened, lambda: None, limit_s, str(path), "not open")


def open_session(source: Path | bytes, options: Any, where: str) -> Any:
    """Open an ONNX file or its bytes on the CPU; raises FertoolError naming `where` when ONNX Runtime cannot."""
    model = source if isinstance(source, bytes) else str(source)
    onnxruntime = import_onnxruntime()
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise FertoolError(
            f"{where}: ONNX Runtime cannot open it ({_reason(error, where)})",
            "truncated or not an ONNX file? export it again",
        ) from None


@contextlib.contextmanager
def bounded_memory(extra_bytes: int) -> Iterator[None]:
    """Let this process grow by so many bytes and no more, while a graph that may ask for any number runs.

    For the whole process, by the limit of its address space, and on Linux only. The stacks and heaps of as many threads
    as there are cores come on top.
    """
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    threads = _BYTES_OF_A_THREAD * (os.cpu_count() or 1)
    limit = pages * resource.getpagesize() + extra_bytes + threads
    present = [bound for bound in (soft, hard) if bound != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min([limit, *present]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def read_metadata(session: Any, key: str, where: str) -> str | None:
    """Return an entry of a graph's metadata, None if there is none; raises FertoolError when they are unreadable."""
    try:
        value: str | None = session.get_modelmeta().custom_metadata_map.get(key)
    except Exception as error:
        raise FertoolError(
            f"{where}: unreadable metadata ({_reason(error, where)})", "export it again"
        ) from None
    return value


def failed_pass(error: Exception, where: str) -> FertoolError:
    """Return the error for a pass in which ONNX Runtime raised `error`: its exceptions have no base class."""
    return FertoolError(
        f"{where}: ONNX Runtime cannot run it ({_reason(error, where)})",
        "the graph does not fit its input; export it again",
    )


def run_within(
    forward: Callable[[], Any],
    stop: Callable[[], None],
    limit_s: float,
    where: str,
    failure: str = "no answer",
) -> Any:
    """Return what `forward` returns, or raise FertoolError, `where`: `failure`, when it takes more than `limit_s` s.

    A thread does the work and this one waits, because no signal interrupts a pass: after Ctrl-C, too, `stop` is called,
    which has to make `forward` end. Of work that goes on nevertheless `is_at_work` tells.
    """
    results: list[Any] = []
    errors: list[Exception] = []
    done = threading.Event()

    def work() -> None:
        try:
            results.append(forward())
        except Exception as error:
            errors.append(error)
        finally:
            _at_work.discard(done)
            done.set()

    _at_work.add(done)
    threading.Thread(target=work, daemon=True).start()
    try:
        # Not join(): after a signal it takes a thread for ended that is not.
        in_time = done.wait(limit_s)
    finally:
        if not done.is_set():
            stop()
            done.wait(_GRACE_S)
    if not in_time:
        raise FertoolError(
            f"{where}: {failure} after {limit_s:g} s",
            "the graph may hold an endless loop, or grow without end; --time-limit SECONDS gives it longer",
        )
    if errors:
        raise errors[0]
    return results[0]


def is_at_work() -> bool:
    """Whether a thread is still inside ONNX Runtime, which then crashes where Python ends a process in order."""
    return bool(_at_work)


def _reason(error: Exception, where: str) -> str:
    """Return one line of what an exception of ONNX Runtime says."""
    if isinstance(error, UnicodeDecodeError):
        return "text that is not UTF-8"
    text = str(error).rpartition(" : ")[2].replace(where, "the file").strip()
    return text.partition("\n")[0] or type(error).__name__
