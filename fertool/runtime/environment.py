"""What figures of speed depend on besides the files: processor, system, versions."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from fertool import __version__
from fertool.registry import RUNTIMES
from fertool.results import Environment

_VECTOR_SETS = (
    ("sse4", "ssse3", "avx", "fma", "f16c", "amx"),
    ("asimd", "neon", "sve", "sme", "i8mm", "bf16", "dotprod"),
)
"""How flags of vector instructions begin, of x86 and of ARM."""
_PREFIXES = tuple(prefix for prefixes in _VECTOR_SETS for prefix in prefixes)
_INTEGER_SETS = ("avx512_vnni", "avx_vnni", "avx512bw", "avx2", "i8mm", "asimddp", "asimd")
"""Flags of instructions that multiply integers, the fastest first."""
_GOVERNOR = "devices/system/cpu/cpu0/cpufreq/scaling_governor"


def read_environment(runtime: str | None = None) -> Environment:
    """Return what the figures depend on besides the files; no host name.

    `versions` are those of fertool and of a runtime, or of all runtimes that are installed.
    """
    versions = {"fertool": __version__}
    for name in [runtime] if runtime else RUNTIMES.names():
        package = RUNTIMES.attribute(name, "package", name)
        # Some runtimes need not be installed.
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    information = _read(Path("/proc/cpuinfo"))
    return Environment(
        processor=processor_name(information),
        cores=os.cpu_count(),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        versions=versions,
        instruction_sets=instruction_sets(information),
        governor=_read(Path("/sys") / _GOVERNOR).strip() or None,
    )


def processor_name(information: str) -> str:
    """Return the processor's name from the text of /proc/cpuinfo, else what Python knows."""
    # platform.processor() is empty or an architecture on Linux.
    for line in information.splitlines():
        if line.startswith(("model name", "Model", "Hardware")):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def instruction_sets(information: str) -> tuple[str, ...]:
    """Return the vector instructions in the text of /proc/cpuinfo, sorted; none without one."""
    for line in information.splitlines():
        # "flags" on x86, "Features" on ARM.
        if line.startswith(("flags", "Features")):
            flags = line.partition(":")[2].split()
            return tuple(sorted(flag for flag in flags if flag.startswith(_PREFIXES)))
    return ()


def processor_kind() -> str:
    """Return the processor's name and the widest vector instructions that matter to integers."""
    environment = read_environment()
    for flag in _INTEGER_SETS:
        if flag in environment.instruction_sets:
            return f"{environment.processor} with {flag}"
    return environment.processor


def _read(path: Path) -> str:
    """Return the text of a file of the system, empty where there is none to read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
