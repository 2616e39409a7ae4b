"""The graph that a device runs: batch norm folded into its convolution, what only training needs gone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fertool.graph.ir import Graph, Node, make_node
from fertool.graph.network import Network

_WINDOWED = {"adaptive_avg_pool2d": "avg_pool2d", "adaptive_max_pool2d": "max_pool2d"}


def fold_for_inference(network: Network) -> Network:
    """Return the network as a copy for inference; `network` itself and its tensors stay as they are.

    Batch norm after a convolution or linear layer becomes part of its weight and bias, dropout and stochastic depth
    vanish, and a mean over the image becomes a global average pool. Layers keep their names. Works on the meta device
    too, where only the structure is of interest.
    """
    graph = _with_pools(_without_idle(network.graph), network)
    norms = _foldable_norms(graph, network)
    state = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    changed: dict[str, Sequence[Node]] = {}
    for norm, layer in norms.items():
        weight, bias = fold_weights(
            state[f"{layer}.weight"], state.get(f"{layer}.bias"), _norm(network, norm)
        )
        state[f"{layer}.weight"], state[f"{layer}.bias"] = weight.detach(), bias.detach()
        changed |= {layer: [graph.by_name[layer].with_args(bias=True)], norm: ()}
    result = Network(graph.replace_nodes(changed, norms), network.image)
    result.load_state_dict({name: state[name] for name in result.state_dict()}, assign=True)
    return result.eval()


def fold_weights(
    weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm1d | nn.BatchNorm2d
) -> tuple[Tensor, Tensor]:
    """Return weight [out, ...] and bias [out] of one layer that computes the layer and then the batch norm.

    With s = gamma / sqrt(variance + eps): weight' = s weight, bias' = s (bias - mean) + beta.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean, factor = norm.running_mean.double(), torch.rsqrt(norm.running_var.double() + norm.eps)
    shift = torch.zeros_like(mean)
    if norm.affine:
        factor, shift = factor * norm.weight.double(), norm.bias.double()
    start = torch.zeros_like(mean) if bias is None else bias.double()
    new_weight = weight.double() * factor.reshape(-1, *[1] * (weight.dim() - 1))
    return new_weight.to(weight.dtype), (factor * (start - mean) + shift).to(weight.dtype)


def _norm(network: Network, name: str) -> nn.BatchNorm1d | nn.BatchNorm2d:
    norm = network.layer(name)
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
    return norm


def _without_idle(graph: Graph) -> Graph:
    idle = {node.name: node.inputs[0] for node in graph.nodes if node.operator.identity_in_eval}
    return graph.replace_nodes(dict.fromkeys(idle, ()), idle)


def _with_pools(graph: Graph, network: Network) -> Graph:
    """Return the graph with the pools that runtimes have, integer kernels for some of them among these.

    A mean over the image is a GlobalAveragePool. An adaptive pool to several places is a pool with windows of one size.
    """
    changed: dict[str, Sequence[Node]] = {}
    for node in graph.nodes:
        if node.op in _WINDOWED:
            window = _window(node, network)
            if window is not None:
                pooled = make_node(
                    node.name, _WINDOWED[node.op], node.inputs, kernel_size=window, stride=window
                )
                changed[node.name] = [pooled]
        if node.op != "mean" or sorted(node.args["dim"]) not in ([2, 3], [-2, -1]):
            continue
        whole: dict[str, Any] = {"output_size": (1, 1)}
        if node.args["keepdim"]:
            changed[node.name] = [make_node(node.name, "adaptive_avg_pool2d", node.inputs, **whole)]
        else:
            inner = f"{node.name}.pool"
            flat = make_node(node.name, "flatten", [inner], start_dim=1)
            changed[node.name] = [
                make_node(inner, "adaptive_avg_pool2d", node.inputs, **whole),
                flat,
            ]
    return graph.replace_nodes(changed)


def _window(node: Node, network: Network) -> tuple[int, ...] | None:
    """Return the windows of an adaptive pool that are all of one size; None for one window, or where they differ."""
    sides, places = network.shapes.get(node.inputs[0], network.image)[1:], node.args["output_size"]
    if places == (1, 1) or any(side % count for side, count in zip(sides, places, strict=True)):
        return None
    return tuple(side // count for side, count in zip(sides, places, strict=True))


def _foldable_norms(graph: Graph, network: Network) -> dict[str, str]:
    """Return the batch norms that can become part of the layer before them, with that layer."""
    found = {}
    for node in graph.nodes:
        layer = graph.by_name.get(node.inputs[0]) if node.op == "batch_norm" else None
        if layer is None or not layer.operator.folds_norm or len(graph.readers[layer.name]) > 1:
            continue
        # Of a linear layer over several rows the norm takes the rows for channels.
        if layer.op != "linear" or len(network.shapes[layer.name]) == 1:
            found[node.name] = layer.name
    return found
