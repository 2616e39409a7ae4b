"""What a network costs: multiply-accumulates, read off its graph and its shapes."""

from __future__ import annotations

import math

from torch import Tensor

from fertool.graph.ir import Node
from fertool.graph.network import Network


def layer_macs(network: Network, node: Node) -> int:
    """Return the multiply-accumulates of a node for one image; 0 but for convolutions and linear layers.

    A weight is multiplied once for each place of the result, of a transposed convolution once for each of its input.
    """
    if node.operator.channel_effect != "mixes":
        return 0
    layer = network.layer(node.name)
    assert layer is not None
    weight = layer.weight
    assert isinstance(weight, Tensor)
    made = network.shapes[node.name]
    if node.op == "linear":
        places = math.prod(made[:-1])
    elif node.op == "conv_transpose2d":
        places = math.prod(network.shapes.get(node.inputs[0], network.image)[1:])
    else:
        places = math.prod(made[1:])
    return weight.numel() * places


def total_macs(network: Network) -> int:
    """Return the multiply-accumulates of one image."""
    return sum(layer_macs(network, node) for node in network.graph.nodes)
