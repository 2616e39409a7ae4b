"""Repair a pruned network layer by layer, without labels: each layer learns to say again what it said before.

The surviving weights of a layer minimise the squared distance between its output and that of the unpruned layer, on
what now arrives from the repaired layers before it (recipe 3's local channel retraining; He et al. 2017, arXiv
1707.06168, equation 5, without its LASSO). That is linear regression: its exact solution takes the place of epochs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fertool.data.pixels import to_input
from fertool.errors import UsageError
from fertool.models.patches import FEWEST, at, draw_places, enough, patches
from fertool.modes import eval_mode
from fertool.prune.graph import ChannelGraph, Layer
from fertool.spec import InputSpec

RIDGE = 0.01
"""Weight of staying at the surviving weights, relative to the mean variance of a layer's inputs."""
_BATCH = 64


@dataclass(frozen=True)
class _Before:
    """Of the unpruned network: what a layer's surviving channels were [N, out, P] at `places` [P] of its map.

    Of a dense layer its output, of a BN what arrives there.
    """

    places: Tensor
    values: Tensor


@torch.no_grad()
def reconstruct(
    original: nn.Module,
    pruned: nn.Module,
    graph: ChannelGraph,
    rows: Mapping[str, Tensor],
    images: Tensor,
    input: InputSpec,
) -> None:
    """Repair `pruned` in place: the weights and biases of its dense layers and the statistics of its BN.

    `graph` is that of the original network, `rows` says which of a layer's outputs survive (`surviving_rows`);
    `images` uint8 [N, C, S, S], of which the first are enough. Each network runs forwards once, the pruned one on all
    images together. Raises UsageError when there are too few.
    """
    images = enough(images, input.size)
    if len(images) < FEWEST:
        raise UsageError(f"--local-retrain needs {FEWEST} images or more, not {len(images)}", "raise --samples")
    device = next(pruned.parameters()).device
    layers = [layer for layer in graph.layers if layer.kind in ("dense", "norm")]
    before = _record(original, layers, rows, images, input, device)
    with eval_mode(pruned), ExitStack() as hooks:
        for layer in layers:
            mend = partial(_mend_dense if layer.kind == "dense" else _mend_norm, before[layer.name])
            hooks.callback(pruned.get_submodule(layer.name).register_forward_pre_hook(mend).remove)
        pruned(to_input(images.to(device), input))


def _record(
    original: nn.Module,
    layers: list[Layer],
    rows: Mapping[str, Tensor],
    images: Tensor,
    input: InputSpec,
    device: torch.device,
) -> dict[str, _Before]:
    """Look at the unpruned network, one batch after the other."""
    generator, parts = torch.Generator().manual_seed(0), dict[str, list[Tensor]]()
    places = {layer.name: draw_places(layer.positions, generator).to(device) for layer in layers}

    def keep(layer: Layer, _: nn.Module, args: Any, output: Tensor) -> None:
        there = output if layer.kind == "dense" else args[0]
        seen = at(there, places[layer.name])[:, rows[layer.name].to(device)]
        parts.setdefault(layer.name, []).append(seen)

    with eval_mode(original), ExitStack() as hooks:
        for layer in layers:
            hook = original.get_submodule(layer.name).register_forward_hook(partial(keep, layer))
            hooks.callback(hook.remove)
        for batch in torch.split(images, _BATCH):
            original(to_input(batch.to(device), input))
    return {name: _Before(places[name], torch.cat(seen)) for name, seen in parts.items()}


def _mend_dense(before: _Before, layer: nn.Module, args: Any) -> None:
    """Solve `min_W E|W x - y|^2 + ridge |W - W_kept|^2` for the layer, about the means of x and y.

    What means are left over goes into the bias; where there is none, the BN behind the layer takes it up.
    """
    weight, bias = layer.get_parameter("weight"), layer.bias
    rows = weight.shape[0]
    count, width = 0, weight[0].numel()
    x_sum, y_sum = weight.new_zeros(width, dtype=torch.float64), weight.new_zeros(rows, dtype=torch.float64)
    xx = weight.new_zeros(width, width, dtype=torch.float64)
    yx = weight.new_zeros(rows, width, dtype=torch.float64)
    for x, y in _samples(layer, args[0], before):
        count += len(x)
        x_sum, y_sum = x_sum + x.sum(0), y_sum + y.sum(0)
        xx, yx = xx + x.T @ x, yx + y.T @ x
    x_mean, y_mean = x_sum / count, y_sum / count
    xx, yx = xx / count - torch.outer(x_mean, x_mean), yx / count - torch.outer(y_mean, x_mean)
    old = weight.flatten(1).double()
    ridge = (RIDGE * xx.diagonal().mean()).clamp(min=1e-12)
    xx.diagonal().add_(ridge)
    new = torch.linalg.solve(xx, (yx + ridge * old).T).T
    weight.copy_(new.reshape(weight.shape))
    if isinstance(bias, Tensor):
        bias.copy_(y_mean - new @ x_mean)


def _mend_norm(before: _Before, norm: nn.Module, args: Any) -> None:
    """Let the running statistics follow what arrives, as though each channel were scaled and shifted since."""
    now, then = (x.double().transpose(0, 1).flatten(1) for x in (at(args[0], before.places), before.values))
    mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    old = then.var(1)
    ratio = torch.where(old > 0, now.var(1) / old, 1.0)
    mean.copy_(now.mean(1) + ratio.sqrt() * (mean - then.mean(1)))
    variance *= ratio


def _samples(layer: nn.Module, x: Tensor, before: _Before) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield what arrives at the layer at the places and what it said there: float64 [n, fan-in] and [n, out]."""
    for images, said in zip(torch.split(x, _BATCH), torch.split(before.values, _BATCH), strict=True):
        yield patches(layer, images, before.places)[0].double(), said.transpose(1, 2).flatten(0, 1).double()
