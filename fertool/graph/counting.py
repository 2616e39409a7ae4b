"""Multiply-accumulates of a network, from its graph and its shapes."""

from __future__ import annotations

from torch import Tensor

from fertool.graph.ir import Node
from fertool.graph.network import Network


def total_macs(network: Network) -> int:
    """Return the multiply-accumulates of one image."""
    return sum(layer_macs(network, node) for node in network.graph.nodes)


def layer_macs(network: Network, node: Node) -> int:
    """Return a node's multiply-accumulates for one image, 0 if it does not mix channels."""
    if node.operator.channel_effect != "mixes":
        return 0
    return _weight(network, node).numel() * multiplied_positions(network, node)


def multiplied_positions(network: Network, node: Node) -> int:
    """Return at how many positions of an image each weight of a layer is multiplied."""
    # A transposed convolution multiplies each weight at every position of its input.
    if node.op == "conv_transpose2d":
        in_channels = len(_weight(network, node))
        return network.values_per_image[node.inputs[0]] // in_channels
    return network.values_per_image[node.name] // node.out_channels


def kernel_elements(node: Node) -> int:
    """Return the number of weights in one kernel of a convolution."""
    kernel = node.args["kernel_size"]
    if isinstance(kernel, int):
        return kernel
    height, width = kernel
    return int(height * width)


def _weight(network: Network, node: Node) -> Tensor:
    layer = network.layer(node.name)
    assert layer is not None
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight
