"""Small ONNX files for the tests: the mean pixel of each channel through a linear layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from graphs import toy_graph
from onnx import TensorProto, helper, numpy_helper

from fertool.artifact.onnx_digest import append_digest
from fertool.spec import InputSpec, Metrics, ProvenanceStep, Spec

CLASSES = ("angry", "happy", "neutral")
WEIGHT = np.array([[1.0, -0.5, 0.25]], dtype=np.float32)
BIAS = np.array([0.0, 100.0, 5.0], dtype=np.float32)


def example_spec(size: int = 8, **changes: object) -> Spec:
    values: dict[str, object] = {
        "arch": "toy",
        "arch_args": {},
        "graph": toy_graph(1, 3),
        "input": InputSpec(1, size),
        "classes": CLASSES,
        "params": 6,
        "macs": 3,
        "metrics": Metrics("val", 200, 0.625, (0.556, 0.689), 0.6),
        "provenance": (
            ProvenanceStep(
                "train-teacher",
                {"arch": "toy", "epochs": 2},
                {"data": "ab" * 32},
                {"torch": "2.6"},
                0,
            ),
        ),
        "digest": "cd" * 32,
    }
    return Spec(**{**values, **changes})  # type: ignore[arg-type]


def write_onnx(
    path: Path,
    *,
    size: int | str = 8,
    batch: int | str = "batch",
    pixel: int = TensorProto.UINT8,
    spec: Spec | None = None,
    channels: int | str = 1,
    work: int = 0,
) -> Path:
    """logits = mean pixel x WEIGHT + BIAS; `work` adds that many useless multiplications
    of a 256 x 256 matrix.
    """
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("GlobalAveragePool", ["pixels"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", "weight", "bias"], ["plain"]),
    ]
    constants = [numpy_helper.from_array(WEIGHT, "weight"), numpy_helper.from_array(BIAS, "bias")]
    nodes += [
        # Fed by the input, or the optimiser would compute it once at loading.
        helper.make_node("Mul", ["features", "zeros"], ["work_0"]),
        *(
            helper.make_node("MatMul", [f"work_{i}", "zeros_2d"], [f"work_{i + 1}"])
            for i in range(work)
        ),
        helper.make_node("ReduceSum", [f"work_{work}"], ["nothing"], keepdims=1),
        helper.make_node("Add", ["plain", "nothing"], ["logits"]),
    ]
    constants.append(
        numpy_helper.from_array(
            np.zeros((256 if work else 1, 256 if work else 1), np.float32), "zeros"
        )
    )
    if work:
        constants.append(numpy_helper.from_array(np.zeros((256, 256), np.float32), "zeros_2d"))
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("images", pixel, [batch, channels, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 3])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    if spec is not None:
        helper.set_model_props(model, {"fertool": spec.to_json()})
    content = model.SerializeToString()
    path.write_bytes(append_digest(content) if spec is not None else content)
    return path


def write_graph(
    path: Path,
    nodes: list[onnx.NodeProto],
    *,
    shape: tuple[int | str, ...] = ("batch", 1, 8, 8),
    outputs: dict[str, tuple[int, tuple[int | str, ...] | None]] | None = None,
    constants: dict[str, np.ndarray] | None = None,
) -> Path:
    """Write a foreign graph of float32 "x"; `outputs` has type and shape of each."""
    ends = outputs or {"y": (TensorProto.FLOAT, ("batch", 3))}
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, *end) for name, end in ends.items()],
        [
            numpy_helper.from_array(np.asarray(value), name)
            for name, value in (constants or {}).items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def linear(
    last: str = "logits", weight: np.ndarray | None = None
) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """Return nodes and constants of `last` [N, 3], by default three means
    of the pixels [N, 1, 8, 8].
    """
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], [last]),
    ]
    return nodes, {"w": np.full((64, 3), 1 / 64, np.float32) if weight is None else weight}


def expected_logits(images: np.ndarray, factor: float = 1.0) -> np.ndarray:
    return images.mean((1, 2, 3), dtype=np.float64)[:, None] * factor * WEIGHT + BIAS


def random_images(count: int, size: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 1, size, size), dtype=np.uint8)
