"""Layer-by-layer reconstruction of a pruned network by least squares, without labels.

The surviving weights of a layer minimize the squared distance between its output and that of the
unpruned layer, on what arrives from the reconstructed layers before it (recipe 3's local channel
retraining; He et al. 2017, arXiv 1707.06168, equation 5, without its LASSO). That is linear
regression: its exact solution takes the place of epochs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fertool.data.pixels import channels_last, to_input
from fertool.errors import UsageError
from fertool.graph.channel_graph import ChannelGraph, Layer
from fertool.graph.network import Network
from fertool.inference import eval_mode
from fertool.models.batched_run import BatchedRun
from fertool.models.regression import measure_moments, regress_
from fertool.models.sampling import gather_positions, sample_positions, to_channels_first
from fertool.pruning.scored_layers import norms_behind
from fertool.spec import InputSpec, affordable_batch

# Many images with few positions of each tell more about a layer than few images with many.
MIN_IMAGES, MAX_IMAGES = 16, 2048
POSITIONS = 32
# Few, so that the maps of a batch stay in the cache of a processor.
_BATCH = 16
# Bytes for the largest maps of all images, of both networks: they are in memory at once.
_MEMORY = 1 << 29


@dataclass(frozen=True)
class _Sample:
    """Where a layer is observed: at `positions` [P] of its map, and the `rows` that survive.

    Of a dense layer the output is observed, of a BN the input.
    """

    positions: Tensor
    rows: Tensor


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
    (`surviving_rows`); `images` uint8 [N, C, S, S], of which the first are used. Both networks run
    forward once, node by node on all images together. `on_progress` counts reconstructed layers.
    Raises UsageError when there are too few images.
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
        batches.append(channels_last(to_input(batch.to(device), input)))
    samples = _choose_samples(original, graph, rows, device)
    done = itertools.count(1)
    with eval_mode(original), eval_mode(pruned):
        wanted_run = BatchedRun(original, batches)
        run = BatchedRun(pruned, batches)
        for node in pruned.graph.nodes:
            if node.name not in samples:
                continue
            _fit(pruned, original, node.name, samples[node.name], run, wanted_run)
            if on_progress:
                on_progress(next(done), len(samples))


def _affordable_images(graph: ChannelGraph) -> int:
    """Return how many images fit into the memory with the largest maps of a network."""
    largest = 0
    for layer in graph.layers:
        channels = max(len(layer.inputs), len(layer.outputs))
        largest = max(largest, layer.positions * channels)
    # Two maps of float32: one of each network.
    return max(MIN_IMAGES, min(MAX_IMAGES, _MEMORY // (2 * 4 * largest)))


def _choose_samples(
    original: Network, graph: ChannelGraph, rows: Mapping[str, Tensor], device: torch.device
) -> dict[str, _Sample]:
    """Return where each layer that can be fitted is observed."""
    generator = torch.Generator().manual_seed(0)
    fitted = {layer.name for layer in graph.layers if _is_fitted(original, layer)}
    # The input of a BN directly behind a fitted layer is that layer's output.
    owners = {}
    for name, norm in norms_behind(graph).items():
        if name in fitted:
            owners[norm.name] = name

    samples: dict[str, _Sample] = {}
    for layer in graph.layers:
        is_lone_norm = layer.kind == "norm" and layer.name not in owners
        if layer.name in fitted or is_lone_norm:
            positions = sample_positions(layer.positions, generator, POSITIONS).to(device)
            samples[layer.name] = _Sample(positions, rows[layer.name].to(device))
    for norm_name, name in owners.items():
        samples[norm_name] = samples[name]
    return samples


def _is_fitted(network: Network, layer: Layer) -> bool:
    """Return whether a layer is fitted by regression: 2-D convolutions and linear layers are."""
    if layer.kind != "dense":
        return False
    return isinstance(network.layer(layer.name), nn.Conv2d | nn.Linear)


def _fit(
    pruned: Network,
    original: Network,
    name: str,
    sample: _Sample,
    run: BatchedRun,
    wanted_run: BatchedRun,
) -> None:
    """Fit one layer of the pruned network to the unpruned one, after those before it."""
    layer = pruned.get_submodule(name)
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        before = _gathered(wanted_run.inputs_of(name), sample)
        before = [values[:, sample.rows] for values in before]
        _fit_norm(layer, _gathered(run.inputs_of(name), sample), before)
        return
    source = original.get_submodule(name)
    outputs = [to_channels_first(source, output) for output in wanted_run.outputs_of(name)]
    wanted = [values[:, sample.rows] for values in _gathered(outputs, sample)]
    _fit_dense(layer, run.inputs_of(name), wanted, sample.positions)


def _gathered(maps: Sequence[Tensor], sample: _Sample) -> list[Tensor]:
    return [gather_positions(batch, sample.positions) for batch in maps]


def _fit_dense(
    layer: nn.Module, inputs: Sequence[Tensor], wanted: Sequence[Tensor], positions: Tensor
) -> None:
    """Solve `min_W E|W x - y|^2 + ridge |W - W_kept|^2` for the layer, about the means of x and y.

    The difference of the means becomes the bias; without a bias, the BN behind the layer takes it.
    """
    weight, bias = layer.get_parameter("weight"), layer.bias
    moments = measure_moments(layer, inputs, wanted, positions)
    order = torch.arange(weight[0].numel(), device=weight.device)[None]
    solutions, _ = regress_(weight.flatten(1)[None], moments, order)
    solution = solutions[0]
    weight.copy_(solution.reshape(weight.shape))
    if isinstance(bias, Tensor):
        bias.copy_(moments.y_mean[0] - solution @ moments.x_mean[0])


def _fit_norm(norm: nn.Module, arriving: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    """Change the running statistics as the statistics of each channel have changed since.

    The new input counts as the old one scaled and shifted by channel.
    """
    mean_now, variance_now = _statistics(arriving)
    mean_before, variance_before = _statistics(wanted)
    mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    # A constant channel tells nothing about the scale.
    ratio = torch.where(variance_before > 0, variance_now / variance_before, 1.0)
    mean.copy_(mean_now + ratio.sqrt() * (mean - mean_before))
    variance *= ratio


def _statistics(batches: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return mean and variance, float64 [C], of values [N, C, P] by batch."""
    count = sum(len(values) * values.shape[2] for values in batches)
    # By batch: all values in float64 would take as much memory as the maps.
    total = sum(values.double().sum((0, 2)) for values in batches)
    mean = torch.as_tensor(total / count)
    squares = sum((values - mean[:, None]).square().sum((0, 2)) for values in batches)
    return mean, torch.as_tensor(squares / (count - 1))
