"""The layers that get traces, and one run of a network that remembers what each of them read and wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import accumulate

from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from fertool.errors import FertoolError

Layer = nn.Conv2d | nn.Linear
Pass = Callable[[], Tensor]
"""One pass over a batch: returns what it adds to the traces in weights and in activations, [2, rows, channels].

Rows are independent of each other: the images of the batch, or the batch as a whole. Channels are those of all layers.
"""


class LayerRun:
    """What a layer read in one run, and the place in the graph of what it wrote: its activation, ahead of any BN."""

    def __init__(self, x: Tensor, output: Tensor) -> None:
        self.x = x
        # An edge, not the tensor: an in-place activation may overwrite the layer's output before the backward pass.
        self.edge: GradientEdge = get_gradient_edge(output)


def weighted_layers(module: nn.Module) -> dict[str, Layer]:
    """Return the layers that get traces, by module path; raises FertoolError for a layer type without a formula."""
    for name, layer in module.named_modules():
        if isinstance(layer, nn.modules.conv._ConvNd) and not isinstance(layer, nn.Conv2d):
            raise FertoolError(
                f"layer {name}: no trace for {type(layer).__name__}", "use Conv2d and Linear layers"
            )
    return {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    }


def channel_slices(layers: Mapping[str, Layer]) -> dict[str, slice]:
    """Return where each layer's output channels stand in a row of those of all layers."""
    ends = list(accumulate((len(layer.weight) for layer in layers.values()), initial=0))
    return {name: slice(*ends[index : index + 2]) for index, name in enumerate(layers)}


def run_layers(
    network: Callable[[Tensor], Tensor], layers: Mapping[str, Layer], images: Tensor
) -> tuple[Tensor, dict[str, LayerRun]]:
    """Return the logits, in a graph, and the runs of those of the `layers` that took part.

    Raises FertoolError for a layer that does not run once per image.
    """
    runs: dict[str, LayerRun] = {}

    def record(name: str, layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
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
