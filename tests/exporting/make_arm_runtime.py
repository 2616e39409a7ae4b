"""Make a Python with ONNX Runtime for 64-bit ARM that QEMU runs: `make_arm_runtime.py FOLDER`.

From Debian packages and wheels: it needs apt and dpkg (Debian, Ubuntu), unpacks into the folder
alone, 220 MB, and installs nothing. Then `FOLDER/python program.py` runs a program as on a
Raspberry Pi 4, and with QEMU_CPU=neoverse-n1 on a processor with dot product.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
WHEELS = ("onnxruntime", "numpy")
ARM_PACKAGES = ("python3-minimal", "libpython3-stdlib", "libstdc++6")
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
CPUINFO = """processor\t: 0
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

Hardware\t: emulated by QEMU
"""
# Processes that the program starts have the same interpreter, for the name of the script becomes
# sys.executable: the system itself could not run a program for ARM.
START = """#!/bin/sh
here=$(cd "$(dirname "$0")" && pwd)
root=$here/root
exec "$here/qemu-aarch64" -cpu "${QEMU_CPU:-cortex-a72}" -L "$root" -0 "$here/python" \\
    -E LD_LIBRARY_PATH="$root/usr/lib/aarch64-linux-gnu:$root/lib/aarch64-linux-gnu" \\
    -E PYTHONHOME="$root/usr" -E PYTHONPATH="$root/site" \\
    -E OPENBLAS_NUM_THREADS=1 -E ORT_DISABLE_TELEMETRY=1 \\
    "$root/usr/bin/INTERPRETER" "$@"
"""


def make(folder: Path) -> None:
    """Fill a folder with QEMU, Python, NumPy, ONNX Runtime and `python`, which starts them."""
    downloads = folder / "downloads"
    emulator = _download(downloads / "host", ["qemu-user-static"], "download")
    _unpack(downloads / "qemu", emulator)
    # Of emulators for some thirty processors.
    shutil.copy(downloads / "qemu/usr/bin/qemu-aarch64-static", folder / "qemu-aarch64")

    root = folder / "root"
    arm = ("--yes", "--download-only", "install")
    _unpack(root, _download(downloads / "arm64", ARM_PACKAGES, *arm, architecture="arm64"))
    # QEMU shows files below its root in place of the host's. ONNX Runtime reads here what the
    # processor can do, and crashes on the text of one for x86.
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/cpuinfo").write_text(CPUINFO)

    (interpreter,) = root.glob("usr/bin/python3.[0-9]*[0-9]")
    _install_wheels(root / "site", interpreter.name.removeprefix("python"))
    start = folder / "python"
    start.write_text(START.replace("INTERPRETER", interpreter.name))
    start.chmod(0o755)
    shutil.rmtree(downloads)


def _download(
    state: Path, packages: Sequence[str], *command: str, architecture: str = ""
) -> list[Path]:
    """Return the .deb files that a command of apt-get downloads.

    apt has the sources of this machine, and a state of its own in which nothing is installed, so
    that it downloads all that the packages need.
    """
    for part in ("lists/partial", "archives/partial"):
        (state / part).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    settings = {
        "Dir::State::lists": state / "lists",
        "Dir::State::status": state / "status",
        "Dir::Cache": state,
        "Dir::Cache::archives": state / "archives",
        "APT::Sandbox::User": "",
        "APT::Install-Recommends": "false",
    }
    if architecture:
        settings |= {"APT::Architecture": architecture, "APT::Architectures": architecture}
    apt = ["apt-get", "--quiet", *(f"-o{name}={value}" for name, value in settings.items())]
    subprocess.run([*apt, "update"], check=True, cwd=state)
    subprocess.run([*apt, *command, *packages], check=True, cwd=state)
    return sorted(state.rglob("*.deb"))


def _unpack(target: Path, packages: Sequence[Path]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for package in packages:
        subprocess.run(["dpkg", "-x", package, target], check=True)


def _install_wheels(target: Path, version: str) -> None:
    options = ["--target", str(target), "--only-binary=:all:", "--no-deps"]
    options += ["--python-version", version, "--implementation", "cp"]
    for platform in PLATFORMS:
        options += ["--platform", platform]
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    subprocess.run([*pip, *options, "-c", CONSTRAINTS, *WHEELS], check=True)


if __name__ == "__main__":
    made = Path(sys.argv[1]).resolve()
    make(made)
    check = "import onnxruntime, platform; print(onnxruntime.__version__, platform.machine())"
    subprocess.run([made / "python", "-c", check], check=True)
