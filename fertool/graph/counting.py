"""Multiply-accumulates of a network, from its graph and its shapes."""

from __future__ import annotations

import math

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

    output = network.shapes[node.name]
    if node.op == "linear":
        positions = math.prod(output[:-1])
    elif node.op == "conv_transpose2d":
        # Each weight is multiplied at every position of the input, not of the output.
        positions = math.prod(network.shapes.get(node.inputs[0], network.image)[1:])
    else:
        positions = math.prod(output[1:])
    return weight.numel() * positions


def total_macs(network: Network) -> int:
    """Return the multiply-accumulates of one image."""
    return sum(layer_macs(network, node) for node in network.graph.nodes)
