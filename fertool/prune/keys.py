"""Which entry of the `widths` map decides how many channels a layer makes, found by building the network once more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fertool.errors import FertoolError
from fertool.prune.graph import ChannelGraph, Layer

Builder = Callable[[Mapping[str, int]], nn.Module]
"""Makes the network for a `widths` map; called on the meta device, since only shapes are read."""

_NOBODY = -1
_GRAIN = 8
"""The probe's widths are multiples of this, for architectures that split channels evenly."""


@dataclass(frozen=True, eq=False)
class WidthKeys:
    """The keys of `widths` that pruning can lower.

    `of_class` [classes] is the index into `names`, or -1 for classes that stay.
    """

    names: tuple[str, ...]
    of_class: Tensor


def find_width_keys(build: Builder, widths: Mapping[str, int], graph: ChannelGraph) -> WidthKeys:
    """Return which key each class of channels belongs to.

    Every key gets a width of its own in one probe network; a layer's output width then tells its key. A key whose
    channels meet ones that must stay is left out. Raises FertoolError where an addition ties two keys, which could
    not be lowered apart.
    """
    names = list(widths)
    owners: list[set[int]] = [{_NOBODY} if fixed else set() for fixed in graph.fixed.tolist()]
    dense = [layer for layer in graph.layers if layer.kind == "dense"]
    for layer, key in zip(dense, _keys_of_layers(build, names, dense), strict=True):
        for index in layer.outputs.tolist():
            owners[index].add(key)
    stays = set().union(*(keys for keys in owners if _NOBODY in keys))
    for keys in owners:
        if len(keys - stays) > 1:
            tied = " and ".join(f"'{names[key]}'" for key in sorted(keys))
            raise FertoolError(f"cannot prune: an addition ties widths {tied}", "give tied channel counts one key")
    used = sorted({key for keys in owners for key in keys} - stays)
    place = {key: k for k, key in enumerate(used)}
    of_class = torch.tensor([place.get(min(keys), -1) for keys in owners])
    return WidthKeys(tuple(names[key] for key in used), of_class)


def _keys_of_layers(build: Builder, names: list[str], layers: list[Layer]) -> list[int]:
    """Return for each layer the index of the key of which its output width is a multiple, or _NOBODY."""
    base = 16 * (len(names) + 1)
    probe = build({name: _GRAIN * (base + i) for i, name in enumerate(names)})
    found = []
    for layer in layers:
        made = probe.get_parameter(f"{layer.name}.weight").shape[0]
        multiple = made // (_GRAIN * base)
        index = made // (_GRAIN * multiple) - base if multiple else _NOBODY
        keyed = index < len(names) and made == _GRAIN * multiple * (base + index)
        found.append(index if keyed else _NOBODY)
    return found
