"""One Hessian trace per output channel of every convolution and linear weight.

The Hessian is that of KL(float model || model) at the float weights, mean over images. Let p be the softmax of the
logits z, J the derivative of z by the weights of a channel, and S the K x K matrix of columns `sqrt(p_k) (e_k - p)`,
so that `S S^T = diag(p) - p p^T`, the Hessian of KL by z. As KL has its minimum there, the Hessian by the weights is
exactly `J^T S S^T J`, whatever the activation functions (Martens 2020, "New insights and perspectives on the natural
gradient method", sections 8 and 9), and its trace

    mean over images of  sum_k || J^T S_k ||^2

needs no labels and no second derivatives, and is never negative. A probe replaces the sum over k by a random
combination `u = S e` of independent signs e, as E[u u^T] = S S^T. Squares are taken image by image, so one backward
pass serves a batch, and the products of two images, most of the noise of a plain probe, do not arise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import cast, get_args

import torch
from torch import Tensor, nn

from fertool.errors import FertoolError, UsageError, unknown_name
from fertool.hessian.norms import Layer, LayerRun
from fertool.hessian.sensitivity import LayerSensitivity, Method
from fertool.losses import output_factor, output_probes
from fertool.modes import eval_mode


def weighted_layers(module: nn.Module) -> dict[str, Layer]:
    """Return the layers that get traces, by module path; raises FertoolError for a layer type without a formula."""
    for name, layer in module.named_modules():
        if isinstance(layer, nn.modules.conv._ConvNd) and not isinstance(layer, nn.Conv2d):
            raise FertoolError(f"layer {name}: no trace for {type(layer).__name__}", "use Conv2d and Linear layers")
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}


def estimate(
    module: nn.Module,
    images: Tensor,
    *,
    method: Method = "exact",
    probes: int = 10,
    seed: int = 0,
    batch_size: int = 32,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[LayerSensitivity, ...]:
    """Return the traces of every convolution and linear layer of a float network, in the network's order.

    `images` are normalised inputs [N, C, S, S], at least two. "exact" takes one backward pass per class, "probe" one
    per probe, in batches of `batch_size` images. The network runs in eval mode; its training flags and gradients are
    on return as they were. Raises UsageError for options that make no sense; FertoolError for a network without such
    layers, with a layer used twice, or with traces that are not finite.
    """
    _check_options(method, probes, batch_size, len(images))
    layers = weighted_layers(module)
    if not layers:
        raise FertoolError("the model has no float convolution or linear layer", "give the model before quantisation")
    device = next(iter(layers.values())).weight.device
    columns = partial(torch.permute, dims=(2, 0, 1))
    signs = partial(output_probes, probes=probes, generator=torch.Generator().manual_seed(seed))
    directions = signs if method == "probe" else columns
    tallies = {name: _Tally(layer.weight, probes if method == "probe" else 0) for name, layer in layers.items()}
    done = 0
    with eval_mode(module), torch.enable_grad():
        for batch in torch.split(images, batch_size):
            for passes in _measure(module, tallies, batch.detach().to(device), directions):
                done += len(batch)
                if on_progress is not None:
                    on_progress(done, len(images) * passes)
    return tuple(tally.summary(name, len(images)) for name, tally in tallies.items())


def _check_options(method: str, probes: int, batch_size: int, samples: int) -> None:
    if method not in get_args(Method):
        raise unknown_name("--method", method, get_args(Method))
    for option, value, least in (("--samples", samples, 2), ("--probes", probes, 2), ("--batch-size", batch_size, 1)):
        if value < least:
            raise UsageError(f"{option} {value}: at least {least} needed", f"for example {option} 32")


def _measure(
    module: nn.Module, tallies: Mapping[str, _Tally], batch: Tensor, directions: Callable[[Tensor], Tensor]
) -> Iterator[int]:
    """Add a batch to the tallies; yields, after each backward pass, how many there are. `directions` takes S."""
    logits, runs = _forward(module, tallies, batch)
    factor = output_factor(logits.detach().cpu())  # in float64, which not every device has
    chosen = directions(factor)
    for direction in chosen:
        _backward(logits, runs, direction.to(logits))
        yield len(chosen)
    for name, run in runs.items():
        tallies[name].add(run)


def _forward(module: nn.Module, names: Iterable[str], batch: Tensor) -> tuple[Tensor, dict[str, LayerRun]]:
    """Return the logits, in a graph, and the runs of those of the layers `names` that took part."""
    runs: dict[str, LayerRun] = {}

    def record(name: str, layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if name in runs or len(args[0]) != len(batch):
            raise FertoolError(f"layer {name} does not run once per image", "give every use a layer of its own")
        runs[name] = LayerRun(cast("Layer", layer), args[0], output)

    hooks = [module.get_submodule(name).register_forward_hook(partial(record, name)) for name in names]
    try:
        # No gradient of the images is ever made: they put every layer's output into the graph, frozen weights or not.
        return module(batch.requires_grad_()), runs
    finally:
        for hook in hooks:
            hook.remove()


def _backward(logits: Tensor, runs: Mapping[str, LayerRun], direction: Tensor) -> None:
    """Add to every run the squared gradients of each image's `direction . logits`; `direction` is [N, K]."""
    # Only gradients at layer outputs are asked for, so the pass makes none of the weights.
    edges = [run.edge for run in runs.values()]
    gradients = torch.autograd.grad(logits, edges, direction, retain_graph=True, allow_unused=True)
    for run, gradient in zip(runs.values(), gradients, strict=True):
        if gradient is not None:
            run.add(gradient)


class _Tally:
    """One layer's traces summed over images, and what their standard error needs; `probes` is 0 for exact traces."""

    def __init__(self, weight: Tensor, probes: int) -> None:
        self.probes, self.weight_params = probes, weight[0].numel()
        self.total = torch.zeros(len(weight), dtype=torch.float64)
        self.squares, self.noise = torch.zeros_like(self.total), torch.zeros_like(self.total)

    def add(self, run: LayerRun) -> None:
        """Add a batch: an image's trace is the sum over its passes or, of probes, their mean."""
        traces = run.total / max(self.probes, 1)
        self.total += traces.sum(0)
        self.squares += traces.square().sum(0)
        if self.probes:
            self.noise += (_variance(run.total, run.squares, self.probes) / self.probes).sum(0)

    def summary(self, name: str, images: int) -> LayerSensitivity:
        """Return mean and standard error; raises FertoolError when a trace is not finite."""
        if not bool(torch.isfinite(self.squares).all()):
            raise FertoolError(f"layer {name}: a trace is not finite", "check the model's weights for infinite values")
        # The mean's variance: of the probes' noise at these very images or, without it, of drawing other images.
        spread = _variance(self.total, self.squares, images) / images
        variance = self.noise / images**2 if self.probes else spread
        trace, sem = (self.total / images).tolist(), variance.sqrt().tolist()
        return LayerSensitivity(name, tuple(trace), tuple(sem), self.weight_params)


def _variance(total: Tensor, squares: Tensor, count: int) -> Tensor:
    """Return the unbiased variance of `count` values with sum `total` and sum of squares `squares`."""
    return ((squares - total.square() / count) / (count - 1)).clamp(min=0)
