"""The graph that a device runs: batch norms are folded, and what only training needs is removed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fertool.graph.ir import Graph, Node, make_node
from fertool.graph.network import Network, clone_tensors, load_tensors_

_WINDOWED = {"adaptive_avg_pool2d": "avg_pool2d", "adaptive_max_pool2d": "max_pool2d"}


def fold_for_inference(network: Network) -> Network:
    """Return the network as a copy for inference; `network` and its tensors are not changed.

    A batch norm behind a convolution or linear layer becomes part of its weight and bias, dropout
    and stochastic depth are removed, and a mean over the image becomes a global average pool.
    Layers keep their names. On the meta device only the structure is folded.
    """
    graph = _with_pools(_without_dropout(network.graph), network)
    layer_of_norm = _foldable_norms(graph, network)
    state = clone_tensors(network.state_dict())

    changed: dict[str, Sequence[Node]] = {}
    for norm, layer in layer_of_norm.items():
        old_weight = state[f"{layer}.weight"]
        old_bias = state.get(f"{layer}.bias")
        weight, bias = fold_weights(old_weight, old_bias, _norm(network, norm))
        state[f"{layer}.weight"] = weight.detach()
        state[f"{layer}.bias"] = bias.detach()
        changed[layer] = [graph.by_name[layer].with_args(bias=True)]
        changed[norm] = ()

    result = Network(graph.replace_nodes(changed, layer_of_norm), network.image)
    load_tensors_(result, state)
    return result.eval()


def fold_weights(
    weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm1d | nn.BatchNorm2d
) -> tuple[Tensor, Tensor]:
    """Return weight [out, ...] and bias [out] of a layer with the batch norm behind it.

    With s = gamma / sqrt(variance + eps): weight' = s weight, bias' = s (bias - mean) + beta
    (Jacob et al. 2018, 1712.05877, section 3.2).
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    # In double, as the result is rounded once then: small variances make s large.
    mean = norm.running_mean.double()
    factor = torch.rsqrt(norm.running_var.double() + norm.eps)
    shift = torch.zeros_like(mean)
    if norm.affine:
        factor = factor * norm.weight.double()
        shift = norm.bias.double()

    old_bias = torch.zeros_like(mean)
    if bias is not None:
        old_bias = bias.double()
    column = factor.reshape(-1, *[1] * (weight.dim() - 1))
    new_weight = weight.double() * column
    new_bias = factor * (old_bias - mean) + shift
    return new_weight.to(weight.dtype), new_bias.to(weight.dtype)


def _norm(network: Network, name: str) -> nn.BatchNorm1d | nn.BatchNorm2d:
    norm = network.layer(name)
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
    return norm


def _without_dropout(graph: Graph) -> Graph:
    """Remove the nodes that do nothing in eval mode."""
    source_of = {}
    for node in graph.nodes:
        if node.operator.identity_in_eval:
            source_of[node.name] = node.inputs[0]
    return graph.replace_nodes(dict.fromkeys(source_of, ()), source_of)


def _with_pools(graph: Graph, network: Network) -> Graph:
    """Return the graph with pools that runtimes have, some of them with integer kernels.

    A mean over the image becomes a global average pool, an adaptive pool a pool with windows where
    all are of one size.
    """
    changed: dict[str, Sequence[Node]] = {}
    for node in graph.nodes:
        if node.op in _WINDOWED:
            window = _window(node, network)
            if window is not None:
                op = _WINDOWED[node.op]
                pool = make_node(node.name, op, node.inputs, kernel_size=window, stride=window)
                changed[node.name] = [pool]
        elif node.op == "mean" and sorted(node.args["dim"]) in ([2, 3], [-2, -1]):
            changed[node.name] = _global_pool(node)
    return graph.replace_nodes(changed)


def _global_pool(mean: Node) -> list[Node]:
    """Return the nodes of a global average pool that compute a mean over height and width."""
    op = "adaptive_avg_pool2d"
    if mean.args["keepdim"]:
        return [make_node(mean.name, op, mean.inputs, output_size=(1, 1))]
    pool = make_node(f"{mean.name}.pool", op, mean.inputs, output_size=(1, 1))
    # The last node has the mean's name, which readers know.
    flat = make_node(mean.name, "flatten", [pool.name], start_dim=1)
    return [pool, flat]


def _window(node: Node, network: Network) -> tuple[int, ...] | None:
    """Return the window of an adaptive pool; None if it is global or windows differ in size."""
    sides = network.shapes.get(node.inputs[0], network.image)[1:]
    output_size = node.args["output_size"]
    if output_size == (1, 1):
        return None
    window = []
    for side, count in zip(sides, output_size, strict=True):
        if side % count:
            return None
        window.append(side // count)
    return tuple(window)


def _foldable_norms(graph: Graph, network: Network) -> dict[str, str]:
    """Return the layer before each batch norm that can become part of it, by the norm's name."""
    found = {}
    for node in graph.nodes:
        if node.op != "batch_norm":
            continue
        layer = graph.by_name.get(node.inputs[0])
        if layer is not None and _can_fold_norm(layer, graph, network):
            found[node.name] = layer.name
    return found


def _can_fold_norm(layer: Node, graph: Graph, network: Network) -> bool:
    """Return whether the batch norm behind a layer, one of its readers, can become part of it."""
    if not layer.operator.folds_norm:
        return False
    # Other readers need the result without the norm.
    if len(graph.readers[layer.name]) > 1:
        return False
    # Behind a linear layer over several rows, the norm's channels are the rows.
    return layer.op != "linear" or len(network.shapes[layer.name]) == 1
