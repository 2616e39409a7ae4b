"""onnxsim in a process of its own: it has a history of crashes, which would end this program."""

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

# onnxsim would import torch, which it does not need here and which takes seconds.
COMMAND = (
    sys.executable,
    "-c",
    "import sys; sys.modules['torch'] = None\n"
    "import onnx, onnxsim; onnx.save(onnxsim.simplify(onnx.load(sys.argv[1]))[0], sys.argv[2])",
)
"""Reads the ONNX file of the first further argument and writes that of the second."""


def simplify_graph(
    model: ModelProto, timeout_s: float, on_note: Callable[[str], None]
) -> ModelProto:
    """Return the graph after onnxsim, or `model` itself where onnxsim fails.

    It fails when it crashes, hangs or damages the graph, which is reported to `on_note`. Damaged is
    a graph with other inputs or outputs, or one whose integer weights became floats.
    """
    result, problem = _run_onnxsim(model, timeout_s)
    if not problem:
        problem = _damage(model, result)
    if problem:
        on_note(f"onnxsim {problem}; the graph stays as it was exported")
        return model
    return result


def _damage(before: ModelProto, after: ModelProto) -> str:
    """Return what onnxsim changed that it must not change, or ""."""
    if _interface(after) != _interface(before):
        return "changed the inputs or outputs"
    if _integer_weight_shapes(after) != _integer_weight_shapes(before):
        return "turned integer weights into floats"
    return ""


def _run_onnxsim(model: ModelProto, timeout_s: float) -> tuple[ModelProto, str]:
    """Return the graph that onnxsim wrote and "", or `model` and what went wrong."""
    with temporary_folder() as folder:
        before = folder / "before.onnx"
        after = folder / "after.onnx"
        before.write_bytes(model.SerializeToString(deterministic=True))
        try:
            _run([*COMMAND, str(before), str(after)], timeout_s)
            return onnx.load(after), ""
        except subprocess.TimeoutExpired:
            return model, f"took more than {timeout_s:g} s"
        except subprocess.CalledProcessError as error:
            return model, _failure_text(error)
        except (OSError, DecodeError, ValueError):
            return model, "left no readable file"


def _run(command: list[str], timeout_s: float) -> None:
    # onnxsim imports ONNX Runtime, which sends telemetry on some systems unless it is told not to.
    environment = {**NO_TELEMETRY, **os.environ}
    subprocess.run(command, capture_output=True, timeout=timeout_s, check=True, env=environment)


def _failure_text(error: subprocess.CalledProcessError) -> str:
    if error.returncode < 0:
        return f"was killed by signal {-error.returncode}"
    lines = error.stderr.decode(errors="replace").strip().splitlines()
    if not lines:
        return f"failed (exit code {error.returncode})"
    # The last line of a traceback has the error itself.
    return f"failed ({lines[-1]})"


def _interface(model: ModelProto) -> list[tuple[str, int]]:
    """Return name and element type of each input and output."""
    values = (*model.graph.input, *model.graph.output)
    return [(value.name, value.type.tensor_type.elem_type) for value in values]


def _integer_weight_shapes(model: ModelProto) -> set[tuple[int, ...]]:
    """Return the shapes of the int8 weights.

    onnxsim may rename and merge them, but must not turn them into floats.
    """
    shapes = set()
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.INT8 and len(tensor.dims) > 1:
            shapes.add(tuple(tensor.dims))
    return shapes
