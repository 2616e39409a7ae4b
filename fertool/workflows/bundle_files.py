"""The files of a bundle beside the models: test cases, programs, README."""

from __future__ import annotations

import importlib.resources
import io
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, Literal

from fertool.results import BundleResult

if TYPE_CHECKING:
    from numpy.typing import NDArray

RUNTIME = "onnxruntime"
"""The only one that a bundle needs on the board."""
BOARD: Literal[1] = 1
"""Version of the format of `bundle.json`, and of what `run.py` prints."""
_BUNDLE, _CASES, _README = "bundle.json", "cases.npz", "README.md"
_PROGRAMS = ("run.py", "timing.py", "start.py", "machine.py", "camera.py")
_DETECTOR = ("yunet.onnx", "YUNET_LICENSE")
OWN_FILES = (_BUNDLE, _CASES, _README, *_PROGRAMS, *_DETECTOR)


@dataclass
class Cases:
    """The arrays of the test cases by name; equal ones are stored once."""

    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)

    def add(self, kind: str, array: NDArray[Any]) -> str:
        """Return the name under which an array is stored."""
        import numpy as np

        # Files of one network have the same images, which are most of a bundle's bytes.
        count = 0
        for name, stored in self.arrays.items():
            if name.startswith(kind):
                count += 1
                if np.array_equal(stored, array):
                    return name
        name = f"{kind}_{count}"
        self.arrays[name] = array
        return name


def common_files(result: BundleResult, cases: Cases, *, has_real_images: bool) -> dict[str, bytes]:
    """Return all files but the models, by name."""
    import numpy as np

    from fertool.report.printable import json_text

    # In memory: the folder is written as a whole, or not at all.
    content = io.BytesIO()
    arrays: dict[str, Any] = dict(cases.arrays)
    np.savez_compressed(content, **arrays)
    manifest = result.as_dict()
    # The folder moves to the board.
    del manifest["folder"]
    files = {_CASES: content.getvalue(), _BUNDLE: f"{json_text(manifest)}\n".encode()}
    board = importlib.resources.files("fertool.board")
    for name in _PROGRAMS:
        files[name] = (board / name).read_bytes()
    detectors = importlib.resources.files("fertool.faces.detectors")
    for name in _DETECTOR:
        files[name] = (detectors / name).read_bytes()
    text = Template((board / _README).read_text(encoding="utf-8"))
    files[_README] = text.substitute(_readme_values(result, cases, has_real_images)).encode()
    return files


def _readme_values(result: BundleResult, cases: Cases, has_real_images: bool) -> dict[str, str]:
    """Return what stands in the places of the README."""
    from fertool import __version__

    rows = []
    for entry in result.files:
        arithmetic = "integers" if entry.quantized else "float32"
        rows.append(f"| `{entry.file}` | {entry.size_bytes:,} | {arithmetic} |")
    count = max(len(array) for array in cases.arrays.values())
    versions = result.home.versions
    return {
        "version": __version__,
        "home": f"{result.home.processor}, ONNX Runtime {versions[RUNTIME]}",
        "rows": "\n".join(rows),
        "count": f"{count}",
        "origin": "validation images of the data set" if has_real_images else "drawn faces",
        "folder": Path(result.folder).name,
        "first": result.files[0].file,
    }
