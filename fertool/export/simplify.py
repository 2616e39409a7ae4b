"""onnxsim in a process of its own: it has a history of crashes, which would take the program with them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto

from fertool.artifact.atomic import temporary_folder
from fertool.onnx_runtime import NO_TELEMETRY

COMMAND = (
    sys.executable,
    "-c",
    "import sys; sys.modules['torch'] = None\n"
    "import onnx, onnxsim; onnx.save(onnxsim.simplify(onnx.load(sys.argv[1]))[0], sys.argv[2])",
)
"""Reads the ONNX file of the first further argument and writes that of the second.

onnxsim would import torch, which it does not need here and which takes seconds.
"""


def simplified(model: ModelProto, timeout_s: float, on_note: Callable[[str], None]) -> ModelProto:
    """Return the graph after onnxsim, or `model` itself, with a note, when onnxsim crashes, hangs or spoils it.

    Spoiled is a graph with other inputs or outputs, or one whose integer weights became floats.
    """
    with temporary_folder() as folder:
        before, after = folder / "before.onnx", folder / "after.onnx"
        before.write_bytes(model.SerializeToString(deterministic=True))
        try:
            _run([*COMMAND, str(before), str(after)], timeout_s)
            result = onnx.load(after)
        except subprocess.TimeoutExpired:
            return _as_it_was(model, f"took more than {timeout_s:g} s", on_note)
        except subprocess.CalledProcessError as error:
            return _as_it_was(model, _cause(error), on_note)
        except (OSError, DecodeError, ValueError):
            return _as_it_was(model, "left no readable file", on_note)
    if _interface(result) != _interface(model):
        return _as_it_was(model, "changed the inputs or outputs", on_note)
    if _integer_values(result) != _integer_values(model):
        return _as_it_was(model, "turned integer weights into floats", on_note)
    return result


def _run(command: list[str], timeout_s: float) -> None:
    # onnxsim imports ONNX Runtime.
    environment = {**NO_TELEMETRY, **os.environ}
    subprocess.run(command, capture_output=True, timeout=timeout_s, check=True, env=environment)


def _as_it_was(model: ModelProto, what: str, on_note: Callable[[str], None]) -> ModelProto:
    on_note(f"onnxsim {what}; the graph stays as it was exported")
    return model


def _cause(error: subprocess.CalledProcessError) -> str:
    if error.returncode < 0:
        return f"was killed by signal {-error.returncode}"
    lines = error.stderr.decode(errors="replace").strip().splitlines()
    return f"failed ({lines[-1] if lines else f'exit code {error.returncode}'})"


def _interface(model: ModelProto) -> list[tuple[str, int]]:
    values = (*model.graph.input, *model.graph.output)
    return [(value.name, value.type.tensor_type.elem_type) for value in values]


def _integer_values(model: ModelProto) -> set[tuple[int, ...]]:
    """The shapes of the int8 weights; onnxsim may rename and merge constants, but not fold a DequantizeLinear."""
    return set(
        tuple(t.dims)
        for t in model.graph.initializer
        if t.data_type == TensorProto.INT8 and len(t.dims) > 1
    )
