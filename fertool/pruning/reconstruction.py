"""Layer-by-layer reconstruction of a pruned network by least squares, without labels.

The surviving weights of a layer minimize the squared distance between its output and that of the
unpruned layer, on what arrives from the reconstructed layers before it (recipe 3's local channel
retraining; He et al. 2017, arXiv 1707.06168, equation 5, without its LASSO). That is linear
regression: its exact solution takes the place of epochs.
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
from fertool.inference import eval_mode
from fertool.models.sampling import (
    gather_positions,
    input_patches,
    ridge_strength,
    sample_positions,
    to_channels_first,
)
from fertool.pruning.scored_layers import norms_behind
from fertool.spec import InputSpec, affordable_batch

# Many images with few positions of each tell more about a layer than few images with many.
MIN_IMAGES, MAX_IMAGES = 16, 2048
POSITIONS = 32
_BATCH = 64
# Bytes for the maps of all images before a layer and behind it, which are in memory at once.
_MEMORY = 2 << 30


@dataclass(frozen=True)
class _Target:
    """What a layer's surviving channels were in the unpruned network, by batch.

    `values` [N, out, P] at the `positions` [P] of its map: of a dense layer its output, of a BN
    its input.
    """

    positions: Tensor
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
    """Fit `pruned`, in place: weights and biases of its dense layers, and the statistics of its BN.

    `graph` is that of the original network, `rows` are the outputs of each layer that survive
    (`surviving_rows`); `images` uint8 [N, C, S, S], of which the first are used. Each network runs
    forward once, the pruned one on all images together, operation by operation. `on_progress`
    counts reconstructed layers. Raises UsageError when there are too few images.
    """
    images = images[: _affordable_images(graph)]
    if len(images) < MIN_IMAGES:
        raise UsageError(
            f"``reconstruct`` needs {MIN_IMAGES} images or more, not {len(images)}",
            "raise ``scoring_images``",
        )
    device = next(pruned.parameters()).device
    batches = []
    for batch in torch.split(images, affordable_batch(_BATCH, input.size)):
        batches.append(to_input(batch.to(device), input))
    targets = _record_targets(original, graph, rows, batches)
    with eval_mode(pruned):
        _fit_network(pruned, targets, batches, on_progress)


def _affordable_images(graph: ChannelGraph) -> int:
    """Return how many images fit into the memory with the largest maps of a network."""
    largest = 0
    for layer in graph.layers:
        channels = max(len(layer.inputs), len(layer.outputs))
        largest = max(largest, layer.positions * channels)
    # Two maps of float32: the input and the output of a layer.
    return max(MIN_IMAGES, min(MAX_IMAGES, _MEMORY // (2 * 4 * largest)))


def _record_targets(
    original: Network, graph: ChannelGraph, rows: Mapping[str, Tensor], batches: Sequence[Tensor]
) -> dict[str, _Target]:
    """Run the unpruned network, one batch after the other, and keep what layers are fitted to."""
    device = batches[0].device
    generator = torch.Generator().manual_seed(0)
    fitted = {layer.name for layer in graph.layers if _is_fitted(original, layer)}
    # The input of a BN directly behind a fitted layer is that layer's output: one record for both.
    recorded_as = {}
    for name, norm in norms_behind(graph).items():
        if name in fitted:
            recorded_as[norm.name] = name

    targets: dict[str, _Target] = {}
    with eval_mode(original), ExitStack() as hooks:
        for layer in graph.layers:
            is_lone_norm = layer.kind == "norm" and layer.name not in recorded_as
            if layer.name not in fitted and not is_lone_norm:
                continue
            positions = sample_positions(layer.positions, generator, POSITIONS).to(device)
            targets[layer.name] = _Target(positions, [])
            record = partial(_record, layer, rows[layer.name].to(device), targets[layer.name])
            hook = original.get_submodule(layer.name).register_forward_hook(record)
            hooks.callback(hook.remove)
        for batch in batches:
            original(batch)

    for norm_name, name in recorded_as.items():
        targets[norm_name] = targets[name]
    return targets


def _record(
    layer: Layer, rows: Tensor, target: _Target, owner: nn.Module, args: Any, output: Tensor
) -> None:
    """Forward hook that keeps the surviving channels of a layer at the target's positions."""
    values = to_channels_first(owner, output) if layer.kind == "dense" else args[0]
    target.values.append(gather_positions(values, target.positions)[:, rows])


def _is_fitted(network: Network, layer: Layer) -> bool:
    """Return whether a layer is fitted by regression: 2-D convolutions and linear layers are."""
    if layer.kind != "dense":
        return False
    return isinstance(network.layer(layer.name), nn.Conv2d | nn.Linear)


def _fit_network(
    pruned: Network,
    targets: Mapping[str, _Target],
    batches: Sequence[Tensor],
    on_progress: Callable[[int, int], None] | None,
) -> None:
    """Run a network on all batches at once, node by node; each layer is fitted before it runs."""
    values: dict[str, list[Any]] = {pruned.graph.input: list(batches)}
    done = itertools.count(1)
    for node, step in zip(pruned.graph.nodes, pruned.steps, strict=True):
        if node.name in targets:
            layer = pruned.get_submodule(node.name)
            inputs = values[node.inputs[0]]
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                _fit_norm(targets[node.name], layer, inputs)
            else:
                _fit_dense(targets[node.name], layer, inputs)
            if on_progress:
                on_progress(next(done), len(targets))

        compute = pruned.eval_function(node)
        results = []
        for number in range(len(batches)):
            arguments = [values[name][number] for name in node.inputs]
            results.append(compute(*arguments))
        values[node.name] = results
        # Maps of all images at once: each is dropped as soon as nothing reads it any more.
        for name in step.last_uses:
            del values[name]


def _fit_dense(target: _Target, layer: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Solve `min_W E|W x - y|^2 + ridge |W - W_kept|^2` for the layer, about the means of x and y.

    The difference of the means becomes the bias; without a bias, the BN behind the layer takes it.
    """
    weight, bias = layer.get_parameter("weight"), layer.bias
    rows, fan_in = weight.shape[0], weight[0].numel()
    count = 0
    x_sum = weight.new_zeros(fan_in, dtype=torch.float64)
    y_sum = weight.new_zeros(rows, dtype=torch.float64)
    xx = weight.new_zeros(fan_in, fan_in, dtype=torch.float64)
    yx = weight.new_zeros(rows, fan_in, dtype=torch.float64)
    for images, wanted in zip(inputs, target.values, strict=True):
        x = input_patches(layer, images, target.positions)[0].double()
        y = wanted.transpose(1, 2).flatten(0, 1).double()
        count += len(x)
        x_sum = x_sum + x.sum(0)
        y_sum = y_sum + y.sum(0)
        xx.addmm_(x.T, x)
        yx.addmm_(y.T, x)

    x_mean, y_mean = x_sum / count, y_sum / count
    xx = xx / count - torch.outer(x_mean, x_mean)
    yx = yx / count - torch.outer(y_mean, x_mean)
    kept = weight.flatten(1).double()
    ridge = ridge_strength(xx)
    xx.diagonal().add_(ridge)
    solution = torch.linalg.solve(xx, (yx + ridge * kept).T).T
    weight.copy_(solution.reshape(weight.shape))
    if isinstance(bias, Tensor):
        bias.copy_(y_mean - solution @ x_mean)


def _fit_norm(target: _Target, norm: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Change the running statistics as the statistics of each channel have changed since.

    The new input counts as the old one scaled and shifted by channel.
    """
    arriving = torch.cat([gather_positions(batch, target.positions) for batch in inputs])
    now = _by_channel(arriving)
    before = _by_channel(torch.cat(target.values))
    mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    variance_before = before.var(1)
    # A constant channel tells nothing about the scale.
    ratio = torch.where(variance_before > 0, now.var(1) / variance_before, 1.0)
    mean.copy_(now.mean(1) + ratio.sqrt() * (mean - before.mean(1)))
    variance *= ratio


def _by_channel(values: Tensor) -> Tensor:
    """Return values [N, C, P] as float64 [C, N P]."""
    return values.double().transpose(0, 1).flatten(1)
