"""Bits by layer from onnxsim's sensitivities, a rival of the allocations in `fertool.quant`.

onnxsim scores each layer by its Fisher estimate of what rounding to so many bits does to the
logits; the layers get the widths of the least sum of these scores under the budget, which is more
than onnxsim does with them: it leaves the layers of the largest scores in float.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx.helper import make_tensor_value_info
from onnx.numpy_helper import to_array
from onnxsim import quant_sensitivity
from torch import Tensor, nn

from fertool.config.exporting import ExportConfig
from fertool.data.dataset import FaceDataset
from fertool.exporting import export_model
from fertool.quant import AllocationProblem
from fertool.quant.knapsack import KnapsackItems, least_loss, spend_remaining_bits
from fertool.spec import WEIGHT_BITS, Spec


def feed_floats(model: onnx.ModelProto, pixels: NDArray[np.uint8]) -> dict[str, Any]:
    """Let a float graph begin behind the operator that takes pixels; returns what it is fed.

    onnxsim's executor has no DequantizeLinear.
    """
    first = model.graph.node[0]
    assert first.op_type == "DequantizeLinear"
    constants = {tensor.name: to_array(tensor) for tensor in model.graph.initializer}
    scale = constants[first.input[1]]
    zero_point = constants[first.input[2]] if len(first.input) > 2 else 0
    values = (pixels.astype(np.float32) - np.float32(zero_point)) * scale
    name = first.output[0]
    del model.graph.node[0], model.graph.input[:]
    shape = ["batch", *pixels.shape[1:]]
    model.graph.input.append(make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    return {name: values.astype(np.float32)}


def allocate_by_layer(
    spec: Spec,
    module: nn.Module,
    problem: AllocationProblem,
    images: FaceDataset,
    average_bits: float,
    seed: int,
) -> Tensor:
    """Return the bits of the problem's channels [C], those of a layer all the same."""
    model = onnx.load_from_string(export_model(spec, module, ExportConfig()))
    calibration = feed_floats(model, images.images.numpy())
    sites = quant_sensitivity.find_sites(model)
    by_name = {site.weight.removesuffix(".weight"): site.name for site in sites}
    columns = []
    for bits in WEIGHT_BITS:
        report = quant_sensitivity.rank(
            model,
            sites,
            calib=calibration,
            bits=bits,
            methods=("fisher",),
            n_samples=len(images),
            seed=seed,
        )
        scores = dict(zip(report.groups, report.scores["fisher"], strict=True))
        columns.append([scores[by_name[name]] for name in problem.names])
    losses = torch.tensor(np.array(columns).T).cummin(1).values
    sizes = torch.zeros(len(problem.names), dtype=torch.int64)
    sizes = sizes.index_add_(0, problem.layers, problem.weight_counts)
    items = KnapsackItems(losses, sizes, WEIGHT_BITS, problem.max_bits)
    budget = items.budget(average_bits)
    widths, _ = least_loss(items, budget)
    return spend_remaining_bits(items, widths, budget)[problem.layers]
