"""The graph that a device runs: batch norm folded into its convolution, training-only layers gone."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from fertool.errors import FertoolError
from fertool.modes import eval_mode

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_IDENTITIES = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Identity)
_DROPOUT_FUNCTIONS = (F.dropout, F.dropout2d)


def folded(module: nn.Module) -> fx.GraphModule:
    """Return the network as a traced copy for inference; `module` itself and its tensors stay as they are.

    Batch norm after a convolution or linear layer becomes part of its weight and bias, dropout and identity layers
    vanish, and a mean over the image becomes a global average pool. Layers keep their names. Works on the meta device
    too, where only the structure is of interest. Raises FertoolError for a network that torch.fx cannot trace.
    """
    try:
        with eval_mode(module):
            graph_module = fx.symbolic_trace(module)
    except (fx.proxy.TraceError, TypeError) as error:
        raise FertoolError(
            f"the network cannot be traced: {error}", "its forward may not branch on the values of tensors"
        ) from None
    graph_module = copy.deepcopy(graph_module).eval()
    _drop_identities(graph_module)
    _pool_means(graph_module.graph)
    _fold_batch_norms(graph_module)
    graph_module.graph.lint()
    graph_module.delete_all_unused_submodules()
    graph_module.recompile()
    return graph_module


def fold_weights(weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
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


def called_module(node: Any, graph_module: fx.GraphModule) -> nn.Module | None:
    """Return the layer that a node calls, or None for any other node."""
    if isinstance(node, fx.Node) and node.op == "call_module":
        return graph_module.get_submodule(str(node.target))
    return None


def replace_layer(graph_module: fx.GraphModule, name: str, layer: nn.Module) -> None:
    """Put `layer` where the layer called `name` is."""
    parent, _, leaf = name.rpartition(".")
    setattr(graph_module.get_submodule(parent), leaf, layer)


def _drop_identities(graph_module: fx.GraphModule) -> None:
    for node in list(graph_module.graph.nodes):
        if isinstance(called_module(node, graph_module), _IDENTITIES) or node.target in _DROPOUT_FUNCTIONS:
            node.replace_all_uses_with(node.args[0])
            graph_module.graph.erase_node(node)


def _pool_means(graph: fx.Graph) -> None:
    """Runtimes have an integer kernel for GlobalAveragePool, but none for ReduceMean."""
    for node in list(graph.nodes):
        if node.target not in ("mean", torch.mean):
            continue
        dims = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
        keep = node.kwargs.get("keepdim", node.args[2] if len(node.args) > 2 else False)
        if not isinstance(dims, list | tuple) or sorted(dims) not in ([2, 3], [-2, -1]):
            continue
        with graph.inserting_before(node):
            pooled = graph.call_function(F.adaptive_avg_pool2d, (node.args[0], 1))
            result = pooled if keep else graph.call_function(torch.flatten, (pooled, 1))
        for new in {pooled, result}:
            new.meta = dict(node.meta)
        node.replace_all_uses_with(result)
        graph.erase_node(node)


def _fold_batch_norms(graph_module: fx.GraphModule) -> None:
    graph = graph_module.graph
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    for node in list(graph.nodes):
        norm = called_module(node, graph_module)
        if not isinstance(norm, _BATCH_NORMS):
            continue
        source = node.all_input_nodes[0]
        layer = called_module(source, graph_module)
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        if norm.running_mean is None or len(source.users) > 1 or calls[source.target] > 1 or calls[node.target] > 1:
            continue
        weight, bias = fold_weights(layer.weight, layer.bias, norm)
        layer.weight, layer.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
        node.replace_all_uses_with(source)
        graph.erase_node(node)
