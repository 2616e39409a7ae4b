"""Post-training quantisation: measure ranges with the float network, then compute every integer from them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fertool.data.dataset import FaceDataset
from fertool.data.pixels import to_input
from fertool.errors import FertoolError, UsageError, unknown_name
from fertool.graph.counting import layer_macs
from fertool.graph.folding import fold_for_inference
from fertool.graph.network import Network
from fertool.models.build import static
from fertool.models.entrance import rounded_sites
from fertool.models.quantized import QuantizedNet, quantized_module, tapped_at_sites
from fertool.models.sites import Site, Sites
from fertool.quant.activation_bits import ACTIVATION_WIDTHS, rounding_losses, shared_out
from fertool.quant.observers import (
    Grid,
    HistogramObserver,
    RangeObserver,
    activation_grid,
    gated_grid,
)
from fertool.quant.weight_rounding import IntegerLayer, fill_layer, fit_layers
from fertool.spec import InputSpec, QuantSpec, Spec, WeightQuant, affordable_batch

PORTABLE_LIMIT = 63
"""Largest integer weight of 7 bits; its products with two unsigned bytes fit 16 bits together: 2 x 255 x 63 < 32,768.

Processors without VNNI add such pairs in 16 bits and saturate, so that weights up to 127 give them other answers.
"""
FULL_LIMIT = 127
ROUNDINGS = ("compensated", "nearest")


@dataclass(frozen=True)
class QuantizeConfig:
    """How to choose ranges: methods for activations and weights, calibration images, the weights' magnitude.

    `samples` images are drawn evenly over the classes by `seed`; `limit` is the largest integer of an 8-bit weight.
    Activations have `activation_bits`, or as many as a mean of `average_activation_bits` over all values leaves their
    site (`activations.shared_out`). Layers whose names match `keep_float` stay float.
    """

    activations: str = "mse"
    weights: str = "mse"
    rounding: str = "compensated"
    percentile: float = 99.99
    samples: int = 512
    batch_size: int = 64
    limit: int = PORTABLE_LIMIT
    activation_bits: int = 8
    average_activation_bits: float | None = None
    keep_float: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if not 50 < self.percentile <= 100:
            raise UsageError(
                f"percentile {self.percentile}: not above 50 and up to 100", "for example 99.99"
            )
        if self.rounding not in ROUNDINGS:
            raise unknown_name("--rounding", self.rounding, ROUNDINGS)
        if self.samples < 1:
            raise UsageError(
                f"{self.samples} calibration samples: there must be some", "for example 512"
            )
        for bits in (self.activation_bits, self.average_activation_bits):
            if bits is not None and not ACTIVATION_WIDTHS[0] <= bits <= ACTIVATION_WIDTHS[-1]:
                raise UsageError(
                    f"activations of {bits:g} bits: not within 4 to 8", "8 costs nothing more"
                )
        if (
            self.average_activation_bits is not None
            and self.activation_bits != ACTIVATION_WIDTHS[-1]
        ):
            raise UsageError(
                f"--activation-bits {self.activation_bits} and --average-activation-bits "
                f"{self.average_activation_bits:g}: more than one budget",
                "give one of them",
            )
        if not 1 <= self.limit <= FULL_LIMIT:
            raise UsageError(
                f"weight limit {self.limit}: not within 1 to 127",
                "63 is portable, 127 the full range",
            )


def plan_quantization(
    spec: Spec,
    module: nn.Module,
    config: QuantizeConfig,
    bits: Mapping[str, Sequence[int]] | None = None,
) -> QuantSpec:
    """Return which tensors become integers of how many bits: weights of 8, or of as many as `bits` says by channel.

    Raises FertoolError for a network that is quantised already, or dynamic.
    """
    if spec.quant is not None:
        raise FertoolError(
            "the model is quantised already", "quantise the float model that it was made from"
        )
    spec.require_static("quantised")
    sites = rounded_sites(fold_for_inference(static(module)), spec.input, config.keep_float)
    return QuantSpec(
        weights={
            name: WeightQuant(tuple(bits[name]) if bits else (8,), config.limit)
            for name in sites.layer_inputs
        },
        activations={site.name: config.activation_bits for site in sites.sites},
    )


def quantize_model(
    spec: Spec,
    module: nn.Module,
    calibration: FaceDataset,
    config: QuantizeConfig | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    bits: Mapping[str, Sequence[int]] | None = None,
) -> tuple[QuantSpec, QuantizedNet]:
    """Return the integer form of a float network, and what to write into `spec.quant`; `module` stays as it is.

    Weights: signed, one symmetric scale per output channel, of 8 bits or of as many as `bits` says for each channel of
    each layer. Activations: unsigned, affine, per tensor, of the bits that `config` says. Biases: int32 in units of
    exactly input scale x weight scale. `on_progress` counts batches of the passes over the images, then layers
    that are fitted.
    Raises FertoolError without images, for a network that is quantised already, or for one of infinite activations.
    """
    config = config or QuantizeConfig()
    quant = plan_quantization(spec, module, config, bits)
    if len(calibration) == 0:
        raise FertoolError("there are no calibration images", "name a data set with --data")
    images = calibration.balanced_subset(config.samples, config.seed).images
    graph_module = fold_for_inference(static(module))
    sites = rounded_sites(graph_module, spec.input, config.keep_float)
    layers = {name: graph_module.get_submodule(name) for name in quant.weights}
    fits, done = config.rounding == "compensated", itertools.count(1)
    passes = 2 if config.average_activation_bits is None else 3
    batch_size = affordable_batch(config.batch_size, spec.input.size)
    total = passes * math.ceil(len(images) / batch_size) + fits * len(layers)

    def tick() -> None:
        on_progress(next(done), total)

    grids, activations = _choose_grids(
        graph_module,
        sites,
        _Images(images, spec.input, batch_size, tick),
        config,
        quant.activations,
    )
    quant = replace(quant, activations=activations)
    net = quantized_module(static(module), replace(spec, quant=quant))
    for name, index in net.grids.index.items():
        net.grids.scale[index], net.grids.zero_point[index] = (
            grids[name].scale,
            grids[name].zero_point,
        )
    for name, source in layers.items():
        layer = net.get_submodule(name)
        assert isinstance(layer, IntegerLayer)
        fill_layer(layer, source, quant.weights[name], config.weights)
    if fits:
        fit_layers(net, graph_module, quant.weights, images, spec.input, config.weights, tick)
    return quant, net


def integer_share(network: Network, quant: QuantSpec) -> str:
    """Return in words how much of a float network's work is done by integers under a plan."""
    macs = {node.name: layer_macs(network, node) for node in network.graph.nodes}
    layers = [name for name, count in macs.items() if count]
    done = sum(macs[name] for name in quant.weights)
    share = 100 * done / max(1, sum(macs.values()))
    counts = f"{len(quant.weights)} of {len(layers)} layers"
    return f"{counts} compute on integers: {share:.0f} % of the multiply-accumulates"


@dataclass(frozen=True)
class _Images:
    """The calibration images in batches, and what is called after each."""

    images: Tensor
    input: InputSpec
    batch_size: int
    tick: Callable[[], None]

    def run(self, network: nn.Module) -> None:
        device = next(network.parameters()).device
        with torch.inference_mode():
            for batch in torch.split(self.images, self.batch_size):
                network(to_input(batch.to(device), self.input))
                self.tick()


def _choose_grids(
    graph_module: Network,
    sites: Sites,
    images: _Images,
    config: QuantizeConfig,
    bits: Mapping[str, int],
) -> tuple[dict[str, Grid], Mapping[str, int]]:
    """Return the grid of each site and its bits: those given, or shares of a mean."""
    seen = _observe(graph_module, sites, images)
    if config.average_activation_bits is not None:
        by_width = {
            site.name: [_grid(site, seen[site.name], config, width) for width in ACTIVATION_WIDTHS]
            for site in sites.sites
        }
        items = rounding_losses(
            *(graph_module, sites, by_width, images.images, images.input),
            batch_size=images.batch_size,
            seed=config.seed,
            tick=images.tick,
        )
        widths = shared_out(items, config.average_activation_bits)
        bits = {site.name: width for site, width in zip(sites.sites, widths, strict=True)}
    return {
        site.name: _grid(site, seen[site.name], config, bits[site.name]) for site in sites.sites
    }, bits


def _observe(graph_module: Network, sites: Sites, images: _Images) -> dict[str, HistogramObserver]:
    """Run the float network twice: the first pass bounds the histograms of the second."""
    ranges = {site.name: RangeObserver(site.gated) for site in sites.sites}
    images.run(tapped_at_sites(graph_module, sites, ranges))
    for name, seen in ranges.items():
        if not (torch.tensor([seen.low, seen.high]).isfinite().all()):
            raise FertoolError(
                f"the activations at {name} are not finite",
                "train the model again, or with a lower lr",
            )
    counts = {name: HistogramObserver(seen.low, seen.high) for name, seen in ranges.items()}
    images.run(tapped_at_sites(graph_module, sites, counts))
    return counts


def _grid(site: Site, seen: HistogramObserver, config: QuantizeConfig, bits: int) -> Grid:
    if site.gated:
        return gated_grid(seen, site.gated, config.activations, bits, config.percentile)
    return activation_grid(seen, config.activations, bits, config.percentile)
