"""What keeps OpenVINO from dropping the quantizers ahead of residual sums."""

from __future__ import annotations

import importlib
from typing import Any

_DEQUANTIZATION = ("Multiply", "Subtract", "Convert")


def keep_quantizers_of_sums(model: Any) -> None:
    """Put a pooling of 1 x 1 between each quantized map and the sum that it goes into, in place.

    OpenVINO's plugin for processors fuses a convolution, its quantizer, a sum and the sum's
    quantizer, and leaves out the rounding of the first ("special residual pattern" in its
    dnnl_postops_composer.cpp). It does not fuse across a pooling of one pixel, which changes
    nothing. A repeated quantizer helps in half of the sums alone: elsewhere the plugin removes it.
    """
    opset = importlib.import_module("openvino.opset8")
    for operator in model.get_ordered_ops():
        for body in _bodies(operator):
            keep_quantizers_of_sums(body)
        if operator.get_type_name() != "Add":
            continue
        sources = [operator.input(index).get_source_output() for index in range(2)]
        if not all(_is_quantized_map(source) for source in sources):
            continue
        for index, source in enumerate(sources):
            pooling = opset.max_pool(source, [1, 1], [1, 1], [0, 0], [0, 0], [1, 1])
            operator.input(index).replace_source_output(pooling.output(0))


def _bodies(operator: Any) -> list[Any]:
    """Return the graphs inside an operator, in which a dynamic network has its profiles."""
    if operator.get_type_name() == "Loop":
        return [operator.get_function()]
    if operator.get_type_name() == "If":
        return [operator.get_function(index) for index in range(2)]
    return []


def _is_quantized_map(source: Any) -> bool:
    """Return whether an output is a dequantized map [N, C, H, W]."""
    rank = source.get_partial_shape().rank
    if rank.is_dynamic or rank.get_length() != 4:
        return False
    node = source.get_node()
    while node.get_type_name() in _DEQUANTIZATION:
        node = node.input(0).get_source_output().get_node()
    return bool(node.get_type_name() == "FakeQuantize")
