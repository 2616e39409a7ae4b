"""Repair a pruned network layer by layer, without labels: each layer learns to say again what it said before.

The surviving weights of a layer minimise the squared distance between its output and that of the unpruned layer, on
what now arrives from the repaired layers before it (recipe 3's local channel retraining; He et al. 2017, arXiv
1707.06168, equation 5, without its LASSO). That is linear regression: its exact solution takes the place of epochs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fertool.data.pixels import to_input
from fertool.errors import UsageError
from fertool.graph.channel_graph import ChannelGraph, Layer
from fertool.graph.network import Network
from fertool.models.patches import at, draw_places, patches, with_channels_second
from fertool.modes import eval_mode
from fertool.prune.criteria import norms_behind
from fertool.spec import InputSpec, affordable_batch

RIDGE = 0.01
"""Weight of staying at the surviving weights, relative to the mean variance of a layer's inputs."""
FEWEST, MOST = 16, 2048
"""Images: many with few places of each say more about a layer than few with many."""
PLACES = 32
_BATCH = 64
_MEMORY = 2 << 30
"""Bytes for the maps of all images ahead of a layer and behind it."""


@dataclass(frozen=True)
class _Before:
    """Of the unpruned network: what a layer's surviving channels were [N, out, P] at `places` [P] of its map, by batch.

    Of a dense layer its output, of a BN what arrives there.
    """

    places: Tensor
    values: list[Tensor]


@torch.no_grad()
def reconstruct(
    original: Network,
    pruned: Network,
    graph: ChannelGraph,
    rows: Mapping[str, Tensor],
    images: Tensor,
    input: InputSpec,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Repair `pruned` in place: the weights and biases of its dense layers and the statistics of its BN.

    `graph` is that of the original network, `rows` says which of a layer's outputs survive (`surviving_rows`);
    `images` uint8 [N, C, S, S], of which the first are enough. Each network runs forwards once, the pruned one on all
    images together, operation by operation. `on_progress` counts repaired layers. Raises UsageError when there are too
    few images.
    """
    largest = max(
        layer.positions * max(len(layer.inputs), len(layer.outputs)) for layer in graph.layers
    )
    images = images[: max(FEWEST, min(MOST, _MEMORY // (2 * 4 * largest)))]
    if len(images) < FEWEST:
        raise UsageError(
            f"--local-retrain needs {FEWEST} images or more, not {len(images)}", "raise --samples"
        )
    device = next(pruned.parameters()).device
    parts = torch.split(images, affordable_batch(_BATCH, input.size))
    batches = [to_input(batch.to(device), input) for batch in parts]
    before = _record(original, graph, rows, batches)
    with eval_mode(pruned):
        _repair(pruned, before, batches, on_progress)


def _record(
    original: Network, graph: ChannelGraph, rows: Mapping[str, Tensor], batches: Sequence[Tensor]
) -> dict[str, _Before]:
    """Look at the unpruned network, one batch after the other."""
    generator, device = torch.Generator().manual_seed(0), batches[0].device
    dense = [
        layer for layer in graph.layers if layer.kind == "dense" and _is_regressed(original, layer)
    ]
    # What a dense layer says is what arrives at the BN behind it.
    said_by = {
        norm.name: name
        for name, norm in norms_behind(graph).items()
        if name in {layer.name for layer in dense}
    }
    norms = [layer for layer in graph.layers if layer.kind == "norm" and layer.name not in said_by]
    found = {
        layer.name: _Before(draw_places(layer.positions, generator, PLACES).to(device), [])
        for layer in graph.layers
        if layer in (*dense, *norms)
    }

    def keep(layer: Layer, owner: nn.Module, args: Any, output: Tensor) -> None:
        there = with_channels_second(owner, output) if layer.kind == "dense" else args[0]
        seen = at(there, found[layer.name].places)[:, rows[layer.name].to(device)]
        found[layer.name].values.append(seen)

    with eval_mode(original), ExitStack() as hooks:
        for layer in (*dense, *norms):
            hook = original.get_submodule(layer.name).register_forward_hook(partial(keep, layer))
            hooks.callback(hook.remove)
        for batch in batches:
            original(batch)
    return found | {norm: found[name] for norm, name in said_by.items()}


def _is_regressed(network: Network, layer: Layer) -> bool:
    """Return whether a layer's weights can be found by regression: of convolutions in 2-D and linear layers."""
    return isinstance(network.layer(layer.name), nn.Conv2d | nn.Linear)


def _repair(
    pruned: Network,
    before: Mapping[str, _Before],
    batches: Sequence[Tensor],
    on_progress: Callable[[int, int], None] | None,
) -> None:
    """Run a network on all batches at once, node by node, each layer mended ahead of its run."""
    values: dict[str, list[Any]] = {pruned.graph.input: list(batches)}
    done = itertools.count(1)
    for node, step in zip(pruned.graph.nodes, pruned.steps, strict=True):
        read = [[values[name][number] for name in node.inputs] for number in range(len(batches))]
        if node.name in before:
            layer, inputs = pruned.get_submodule(node.name), [given[0] for given in read]
            mend = _mend_norm if isinstance(layer, nn.modules.batchnorm._BatchNorm) else _mend_dense
            mend(before[node.name], layer, inputs)
            if on_progress:
                on_progress(next(done), len(before))
        compute = pruned.eval_function(node)
        values[node.name] = [compute(*given) for given in read]
        for name in step.last_uses:
            del values[name]


def _mend_dense(before: _Before, layer: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Solve `min_W E|W x - y|^2 + ridge |W - W_kept|^2` for the layer, about the means of x and y.

    What means are left over goes into the bias; where there is none, the BN behind the layer takes it up.
    """
    weight, bias = layer.get_parameter("weight"), layer.bias
    rows = weight.shape[0]
    count, width = 0, weight[0].numel()
    x_sum, y_sum = (
        weight.new_zeros(width, dtype=torch.float64),
        weight.new_zeros(rows, dtype=torch.float64),
    )
    xx = weight.new_zeros(width, width, dtype=torch.float64)
    yx = weight.new_zeros(rows, width, dtype=torch.float64)
    for images, said in zip(inputs, before.values, strict=True):
        x, y = (
            patches(layer, images, before.places)[0].double(),
            said.transpose(1, 2).flatten(0, 1).double(),
        )
        count += len(x)
        x_sum, y_sum = x_sum + x.sum(0), y_sum + y.sum(0)
        xx.addmm_(x.T, x)
        yx.addmm_(y.T, x)
    x_mean, y_mean = x_sum / count, y_sum / count
    xx, yx = xx / count - torch.outer(x_mean, x_mean), yx / count - torch.outer(y_mean, x_mean)
    old = weight.flatten(1).double()
    ridge = (RIDGE * xx.diagonal().mean()).clamp(min=1e-12)
    xx.diagonal().add_(ridge)
    new = torch.linalg.solve(xx, (yx + ridge * old).T).T
    weight.copy_(new.reshape(weight.shape))
    if isinstance(bias, Tensor):
        bias.copy_(y_mean - new @ x_mean)


def _mend_norm(before: _Before, norm: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Let the running statistics follow what arrives, as though each channel were scaled and shifted since."""
    arriving = torch.cat([at(batch, before.places) for batch in inputs])
    now, then = (
        x.double().transpose(0, 1).flatten(1) for x in (arriving, torch.cat(before.values))
    )
    mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    old = then.var(1)
    ratio = torch.where(old > 0, now.var(1) / old, 1.0)
    mean.copy_(now.mean(1) + ratio.sqrt() * (mean - then.mean(1)))
    variance *= ratio
