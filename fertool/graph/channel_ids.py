"""Tensors of channel numbers: int64, laid out as the activations are whose channels they number."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from torch import Tensor


class FixedChannelsError(Exception):
    """Why the channels that a node reads and makes can not be removed."""


def along(x: Tensor, axis: int) -> Tensor:
    """Return the one number of each entry of an axis, shape [size]; raise where numbers differ along others too."""
    flat = x.movedim(axis, 0).reshape(x.shape[axis], -1)
    if not bool((flat == flat[:, :1]).all()):
        raise FixedChannelsError("a map whose places belong to different channels")
    return flat[:, 0].clone()


def varying(x: Tensor) -> list[int]:
    """Return the axes along which the numbers differ."""
    return [axis for axis in range(x.dim()) if bool((x != x.narrow(axis, 0, 1)).any())]


def broadcast(one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
    """Return both in the shape of their sum."""
    shape = np.broadcast_shapes(one.shape, two.shape)
    return one.expand(shape), two.expand(shape)


def is_broadcast_over(narrow: Tensor, wide: Tensor) -> bool:
    """Return whether a tensor is repeated along an axis on which another one's channels lie."""
    new = wide.dim() - narrow.dim()
    repeated = [
        axis
        for axis in range(wide.dim())
        if axis < new or narrow.shape[axis - new] < wide.shape[axis]
    ]
    return any(axis in repeated for axis in varying(wide))


def without_repeats(one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
    """Return two tensors of one shape without the axes along which neither of them varies."""
    constant = set(range(one.dim())) - {*varying(one), *varying(two)}
    for axis in constant:
        one, two = one.narrow(axis, 0, 1), two.narrow(axis, 0, 1)
    return one, two


def spread(ids: Tensor, places: Iterable[int]) -> Tensor:
    """Return [1, C, *places] with the number of each channel at all its places, laid out as an activation would be."""
    places = tuple(places)
    return ids.reshape(1, -1, *[1] * len(places)).expand(1, -1, *places).contiguous()


def is_channel_row(x: Tensor) -> bool:
    """Return whether the channels lie side by side in one map, as places."""
    return x.shape[1] == 1 and x.numel() == max(x.shape[2:]) and bool((x != x.flatten()[0]).any())


def all_tensors(value: Any) -> list[Tensor]:
    """Return the tensors of a nest of lists and tuples."""
    if isinstance(value, Tensor):
        return [value]
    return [tensor for part in value for tensor in all_tensors(part)]
