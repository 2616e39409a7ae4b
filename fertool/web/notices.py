"""The licenses that travel with the page: it holds software of other people."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from fertool.errors import FertoolError

_ONNX_RUNTIME = ("LICENSE", "ThirdPartyNotices.txt")
_EIGEN = (
    "ONNX Runtime contains parts of Eigen, under the Mozilla Public License 2.0; its source code is"
    " at https://gitlab.com/libeigen/eigen."
)
_LINE = "\n\n" + 79 * "=" + "\n"


def all_notices(detector_license: str) -> str:
    """Return the licenses of fertool, of the detector and of ONNX Runtime with its third parties.

    The npm package onnxruntime-web has no license file; it is built from the sources of the Python
    package, whose texts are taken. Raises FertoolError where that lacks them.
    """
    # The page's own software first, for few read to the end of the third parties'.
    parts = [
        "This page was made by fertool, under the Apache License 2.0"
        " (https://www.apache.org/licenses/LICENSE-2.0).",
        f"The face detector YuNet\n\n{detector_license.strip()}",
        f"onnxruntime-web\n\n{_EIGEN}",
    ]
    for name in _ONNX_RUNTIME:
        parts.append(f"onnxruntime-web: {name}\n\n{_onnx_runtime_text(name).strip()}")
    return _LINE.join(parts) + "\n"


def _onnx_runtime_text(name: str) -> str:
    # Found, not imported: nothing of the runtime is needed here.
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        raise FertoolError("onnxruntime is not installed", "pip install onnxruntime")
    path = Path(spec.origin).with_name(name)
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        raise FertoolError(
            f"{path}: missing, and the page may not be passed on without it",
            "install onnxruntime again",
        ) from None
