"""Command lines in forked processes: the package is imported once,
and each run is watched from outside.
"""

import os
import resource
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

OLD = b"an old result that must survive a failure\n"
OUTPUT = "out/result"
SECONDS = 15
BYTES = 2 << 30
"""How long a run may take and how much memory it may hold, what was imported before included."""
QUICK_SECONDS = 4
QUICK_BYTES = 500 << 20
"""The same for the error that a small file with a wrong header gets,
beside what was imported before.
"""


@dataclass(frozen=True)
class Job:
    """One command line on files that are written for it.

    `files` maps names to contents. `{output}` in the command stands for a file that exists already;
    `{shared}` for the folder of undamaged files. `codes` are the exit codes that are right. `quick`
    errors come before any work is done.
    """

    name: str
    command: tuple[str, ...]
    files: dict[str, bytes] = field(repr=False)
    suffix: str = ".pt"
    codes: frozenset[int] = frozenset({0, 1, 2})
    quick: bool = False


def run_all(
    jobs: Iterator[Job], shared: Path, work: Path, workers: int
) -> Iterator[tuple[Job, list[str]]]:
    """Run the jobs, several at a time; yields each with what was wrong about its run."""
    running: dict[int, tuple[Job, Path, float]] = {}
    fresh = enumerate(jobs)
    while True:
        while len(running) < workers and (entry := next(fresh, None)):
            number, job = entry
            place = work / str(number)
            _prepare(job, place)
            running[_start(job, place, shared)] = (job, place, time.monotonic())
        if not running:
            return
        for pid in list(running):
            job, place, begun = running[pid]
            ended, status, usage = os.wait4(pid, os.WNOHANG)
            seconds = time.monotonic() - begun
            if not ended and seconds < 4 * SECONDS:
                continue
            if not ended:
                os.killpg(pid, signal.SIGKILL)
                _, status, usage = os.wait4(pid, 0)
            del running[pid]
            busy = usage.ru_utime + usage.ru_stime
            problems = _problems(job, place, status, max(busy, seconds / 4), usage.ru_maxrss << 10)
            if not problems:
                shutil.rmtree(place)
            yield job, problems
        time.sleep(0.002)


def _prepare(job: Job, place: Path) -> None:
    for name, content in job.files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    output = place / f"{OUTPUT}{job.suffix}"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(OLD)
    (place / "tmp").mkdir()


def _start(job: Job, place: Path, shared: Path) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        os.chdir(place)
        os.environ["TMPDIR"] = str(place / "tmp")
        for stream, name in ((1, "stdout"), (2, "stderr")):
            file = os.open(name, os.O_WRONLY | os.O_CREAT, 0o600)
            os.dup2(file, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        # A runaway allocation fails before it takes the machine down.
        resource.setrlimit(resource.RLIMIT_DATA, (4 * BYTES, 4 * BYTES))
        from fertool.cli.app import run

        places = {"{output}": f"{OUTPUT}{job.suffix}"}
        words = [places.get(word, word).replace("{shared}", str(shared)) for word in job.command]
        code = run(words)
        import sys

        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def _beyond_limits(job: Job, code: int, seconds: float, peak: int) -> Iterator[str]:
    if seconds > SECONDS:
        yield f"took {seconds:.0f} s"
    if peak > BYTES:
        yield f"held {peak >> 20} MiB"
    if job.quick and code and seconds > QUICK_SECONDS:
        yield f"took {seconds:.1f} s to fail"
    if job.quick and code and peak - _resident() > QUICK_BYTES:
        yield f"held {(peak - _resident()) >> 20} MiB more than before to fail"


def _resident() -> int:
    """Return the bytes that this process holds, all of which a forked one begins with."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _problems(job: Job, place: Path, status: int, seconds: float, peak: int) -> list[str]:
    """Say everything that is wrong about a run."""
    found = []
    code = os.waitstatus_to_exitcode(status)
    said = (place / "stderr").read_text(errors="replace")
    printed = (place / "stdout").read_bytes() + (place / "stderr").read_bytes()
    errors = [line for line in said.splitlines() if line.startswith("error:")]
    if "Traceback" in said:
        found.append("traceback: " + said.strip().splitlines()[-1][:200])
    elif code not in job.codes:
        found.append(f"exit code {code}, not one of {sorted(job.codes)}")
    elif code in (1, 2) and len(errors) != 1:
        found.append(f"{len(errors)} error lines")
    if any(sign in printed for sign in (b"\x1b", b"\xc2\x9b", b"\xe2\x80\xae")):
        found.append("control characters reach the terminal")
    found += _beyond_limits(job, code, seconds, peak)
    output = place / f"{OUTPUT}{job.suffix}"
    if code and (not output.exists() or output.read_bytes() != OLD):
        found.append("the old output was touched")
    for name, content in job.files.items():
        kept = place / name
        # The state of a run that ends well is removed.
        if (
            kept.exists()
            and kept.read_bytes() != content
            and not (code == 0 and name.startswith("out/"))
        ):
            found.append(f"{name} was changed")
    left = [path.name for path in place.rglob("*") if path.name.endswith(".tmp")]
    left += [path.name for path in (place / "tmp").iterdir()]
    if left:
        found.append(f"left behind: {', '.join(left[:5])}")
    return found
