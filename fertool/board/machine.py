"""What this machine tells of itself."""

from __future__ import annotations

import importlib
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

# Before the import, which else makes an identifier of this machine and sends events.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
onnxruntime: Any = importlib.import_module("onnxruntime")

CPUINFO = "/proc/cpuinfo"
ARM_INSTRUCTIONS = ("asimd", "asimddp", "i8mm", "sve", "neon")
X86_INSTRUCTIONS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8")
INSTRUCTION_SETS = ARM_INSTRUCTIONS + X86_INSTRUCTIONS
"""Vector instructions that decide how fast integers are, as /proc/cpuinfo names them."""


def describe_machine() -> dict[str, Any]:
    """Return what the figures depend on besides the files; no host name."""
    features = (read_line(CPUINFO, "Features") or read_line(CPUINFO, "flags")).split()
    # Boards name themselves in their device tree; their /proc/cpuinfo often has no model.
    names = [read_line("/proc/device-tree/model")]
    names += [read_line(CPUINFO, start) for start in ("model name", "Model", "Hardware")]
    return {
        "processor": next(filter(None, names), platform.machine()),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {"onnxruntime": onnxruntime.__version__, "numpy": np.__version__},
        "instruction_sets": [name for name in INSTRUCTION_SETS if name in features],
        "governor": read_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or None,
    }


def celsius() -> float | None:
    """Return the temperature of the first sensor; None where there is none."""
    # Of most boards the first zone is the processor's.
    text = read_line("/sys/class/thermal/thermal_zone0/temp")
    return int(text) / 1000 if text else None


def peak_rss_bytes() -> int | None:
    """Return the most memory that this process had; None where the system does not tell."""
    # The high-water mark, which also knows what was freed again before the end.
    kibibytes = read_line("/proc/self/status", "VmHWM").split()
    return int(kibibytes[0]) * 1024 if kibibytes else None


def read_line(path: str, start: str = "") -> str:
    """Return what stands behind the colon of a line of a system file, '' where there is none."""
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        # Also of a file that is there: not all sensors can be read.
        return ""
    for line in text.splitlines():
        if line.startswith(start):
            return line.split(":")[-1].strip("\0\t ")
    return ""
