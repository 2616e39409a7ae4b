"""The layers that get traces, and a forward pass that records the input and output of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from fertool.errors import FertoolError
from fertool.gate_spec import profile_prefix
from fertool.models.profile_network import ProfileNetwork

WeightedLayer = nn.Conv2d | nn.Linear
"""The types of layers that have formulas for their traces."""
Pass = Callable[[], Tensor]
"""One pass over a batch: returns its contribution to the traces, [2, rows, channels].

The first axis has weights and activations. Rows are independent of each other: the images of the
batch, or the batch as a whole. Channels are those of all layers.
"""


class LayerRun:
    """The input of a layer in one forward pass, and its output's edge in the autograd graph.

    The output is the layer's activation, ahead of any batch norm.
    """

    def __init__(self, x: Tensor, output: Tensor) -> None:
        self.x = x
        # An edge, not the tensor: an in-place activation may overwrite the layer's output before
        # the backward pass.
        self.edge: GradientEdge = get_gradient_edge(output)


def weighted_layers(module: nn.Module) -> dict[str, WeightedLayer]:
    """Return the layers that get traces, by module path.

    Of a dynamic network they are those of its profiles.
    Raises FertoolError for a convolution without a formula.
    """
    layers: dict[str, WeightedLayer] = {}
    if isinstance(module, ProfileNetwork):
        for index, network in enumerate(module.networks):
            for name, layer in weighted_layers(network).items():
                layers[f"{profile_prefix(index)}{name}"] = layer
        return layers
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layers[name] = layer
        elif isinstance(layer, nn.modules.conv._ConvNd):
            # Left out in silence, such a layer would look insensitive to whoever reads the traces.
            raise FertoolError(
                f"layer {name}: no trace for {type(layer).__name__}", "use Conv2d and Linear layers"
            )
    return layers


def count_channels(layers: Mapping[str, WeightedLayer]) -> int:
    """Return the number of output channels of all layers."""
    return sum(len(layer.weight) for layer in layers.values())


def channel_slices(layers: Mapping[str, WeightedLayer]) -> dict[str, slice]:
    """Return the columns of each layer's output channels among those of all layers."""
    slices = {}
    start = 0
    for name, layer in layers.items():
        stop = start + len(layer.weight)
        slices[name] = slice(start, stop)
        start = stop
    return slices


def run_layers(
    network: Callable[[Tensor], Tensor], layers: Mapping[str, WeightedLayer], images: Tensor
) -> tuple[Tensor, dict[str, LayerRun]]:
    """Return the logits, in an autograd graph, and the runs of those of the `layers` that ran.

    Raises FertoolError for a layer that does not run once per image.
    """
    runs: dict[str, LayerRun] = {}

    def record(name: str, layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        # The formulas know one input and one output of each layer.
        if name in runs or len(args[0]) != len(images):
            raise FertoolError(
                f"layer {name} does not run once per image", "give every use a layer of its own"
            )
        runs[name] = LayerRun(args[0], output)

    hooks = [layer.register_forward_hook(partial(record, name)) for name, layer in layers.items()]
    try:
        return network(images), runs
    finally:
        for hook in hooks:
            hook.remove()
