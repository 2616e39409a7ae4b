"""onnxsim in a process of its own: it has a history of crashes that would take the program with them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

COMMAND = (sys.executable, "-c", "import sys, onnx, onnxsim; "
    "model, same = onnxsim.simplify(onnx.load(sys.argv[1])); onnx.save(model, sys.argv[2])")


def simplified(model: onnx.ModelProto, timeout_s: float, on_note: Callable[[str], None]) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory(prefix="fertool-") as folder:
        before, after = Path(folder, "before.onnx"), Path(folder, "after.onnx")
        onnx.save(model, before)
        subprocess.run([*COMMAND, str(before), str(after)], capture_output=True, timeout=timeout_s, check=True)
        return onnx.load(after)
