"""Multiply-accumulates of a network, from its graph and its shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from fertool.graph.ir import Node
from fertool.graph.network import Network


def layer_macs(network: Network, node: Node) -> int:
    """Return a node's multiply-accumulates for one image, 0 if it does not mix channels."""
    if node.operator.channel_effect != "mixes":
        return 0
    layer = network.layer(node.name)
    assert layer is not None
    weight = layer.weight
    assert isinstance(weight, Tensor)

    input_shape = network.shapes.get(node.inputs[0], network.image)
    output_shape = network.shapes[node.name]
    return weight.numel() * multiplied_positions(node.op, input_shape, output_shape)


def multiplied_positions(op: str, input_shape: Sequence[int], output_shape: Sequence[int]) -> int:
    """Return at how many positions each weight of a layer is multiplied.

    The shapes are those for one image: [..., features] of linear layers, else [C, ...].
    """
    if op == "linear":
        return math.prod(output_shape[:-1])
    # Each weight of a transposed convolution is multiplied at every position of the input.
    if op == "conv_transpose2d":
        return math.prod(input_shape[1:])
    return math.prod(output_shape[1:])


def total_macs(network: Network) -> int:
    """Return the multiply-accumulates of one image."""
    return sum(layer_macs(network, node) for node in network.graph.nodes)


def kernel_elements(node: Node) -> int:
    """Return the number of weights in one kernel of a convolution."""
    kernel = node.args["kernel_size"]
    if isinstance(kernel, int):
        return kernel
    height, width = kernel
    return int(height * width)
