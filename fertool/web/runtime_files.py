"""onnxruntime-web: where its two files come from."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fertool.artifact.input_files import read_bytes
from fertool.errors import FertoolError, UsageError

VERSION = "1.30.0"
"""The version that the page is tested with."""
SCRIPT = "ort.wasm.bundle.min.mjs"
BINARY = "ort-wasm-simd-threaded.wasm"
PACKAGED = Path(__file__).with_name("onnxruntime-web")
"""Where a release may carry the two files."""
_MAX_BYTES = 64 << 20
_HINT = (
    f"npm pack onnxruntime-web@{VERSION}, then ``runtime=onnxruntime-web-{VERSION}.tgz``; a folder "
    "node_modules/onnxruntime-web does as well"
)
_EXPORTS = re.compile(r"export\{([^}]*)\};?")
_SOURCE_MAP = re.compile(r"^//# sourceMappingURL=.*$", re.MULTILINE)


@dataclass(frozen=True)
class RuntimeFiles:
    """The script, an ES module with its WebAssembly loader inside, and the WebAssembly binary."""

    script: str
    binary: bytes

    @property
    def module(self) -> str:
        """The script as a file of its own, without the comment that names a missing source map."""
        return _SOURCE_MAP.sub("", self.script)

    @property
    def inline_script(self) -> str:
        """The script for an inline element: its exports become `globalThis.onnxruntime`.

        Nothing can import from an inline module, and the page's policy allows no other script.
        Raises FertoolError for a script of another form.
        """
        script = self.module
        exports = list(_EXPORTS.finditer(script))
        if not exports or "</script" in script.lower() or "<!--" in script:
            raise FertoolError(
                f"{SCRIPT}: not the module of onnxruntime-web {VERSION}",
                f"npm pack onnxruntime-web@{VERSION} has the version that the page is made for",
            )
        # The bundle holds other modules as text, whose exports come before its own.
        last = exports[-1]
        members = ",".join(_as_property(entry) for entry in last[1].split(","))
        return f"{script[: last.start()]}globalThis.onnxruntime={{{members}}};"


def _as_property(entry: str) -> str:
    """Return `a as b` or `b` of an export list as a property of an object literal."""
    inner, _, outer = entry.strip().partition(" as ")
    return f"{outer or inner}:{inner}"


def find_runtime(place: Path | None) -> RuntimeFiles:
    """Return the files from a package archive or folder, or those that fertool carries.

    Raises UsageError where there are none, FertoolError where a place lacks them.
    """
    if place is None:
        if not PACKAGED.is_dir():
            raise UsageError(
                "``runtime``: the page needs onnxruntime-web, which is not here", _HINT
            )
        place = PACKAGED
    if place.is_dir():
        # npm unpacks the two files into dist/; who copies them by hand has them side by side.
        folder = place / "dist" if (place / "dist").is_dir() else place
        return _read_files(place, lambda name: read_bytes(folder / name, _MAX_BYTES))
    return _read_archive(place)


# npm's archive has 40 builds of 138 MB in all, of which two files are needed: read, not unpacked.
def _read_archive(path: Path) -> RuntimeFiles:
    if not path.exists():
        raise FertoolError(f"{path}: no such file or folder", _HINT)
    try:
        with tarfile.open(path, "r:gz") as archive:
            return _read_files(path, lambda name: _member(archive, f"package/dist/{name}"))
    except (tarfile.TarError, EOFError, OSError) as error:
        raise FertoolError(f"{path}: not an archive of npm ({error})", _HINT) from None


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    content = file.read(_MAX_BYTES) if file else b""
    if not content:
        raise KeyError(name)
    return content


def _read_files(place: Path, read: Callable[[str], bytes]) -> RuntimeFiles:
    try:
        return RuntimeFiles(read(SCRIPT).decode(), read(BINARY))
    except (KeyError, UnicodeDecodeError, FertoolError):
        raise FertoolError(f"{place}: lacks {SCRIPT} or {BINARY}", _HINT) from None
