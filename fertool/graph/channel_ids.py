"""Tensors of channel ids: int64, with the shape of the activations whose channels they identify."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from torch import Tensor


class FixedChannelsError(Exception):
    """Why the channels of a node's inputs and outputs cannot be removed."""


def ids_along(x: Tensor, axis: int) -> Tensor:
    """Return the id of each entry of an axis, shape [size].

    Raises FixedChannelsError where ids differ along other axes too.
    """
    rows = x.movedim(axis, 0).reshape(x.shape[axis], -1)
    if not bool((rows == rows[:, :1]).all()):
        raise FixedChannelsError("a map whose positions belong to different channels")
    return rows[:, 0].clone()


def varying_axes(x: Tensor) -> list[int]:
    """Return the axes along which the ids differ."""
    axes = []
    for axis in range(x.dim()):
        first = x.narrow(axis, 0, 1)
        if bool((x != first).any()):
            axes.append(axis)
    return axes


def broadcast(one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
    """Return both in the shape of their sum."""
    shape = np.broadcast_shapes(one.shape, two.shape)
    return one.expand(shape), two.expand(shape)


def is_broadcast_over(narrow: Tensor, wide: Tensor) -> bool:
    """Return whether a tensor is repeated along an axis along which another one's channels lie."""
    new_axes = wide.dim() - narrow.dim()
    # Broadcasting aligns shapes at their ends: axes that `narrow` lacks come first.
    repeated = set(range(new_axes))
    for axis in range(new_axes, wide.dim()):
        if narrow.shape[axis - new_axes] < wide.shape[axis]:
            repeated.add(axis)
    return not repeated.isdisjoint(varying_axes(wide))


def without_repeats(one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
    """Return two tensors of one shape without the axes along which neither of them varies."""
    constant = set(range(one.dim())) - {*varying_axes(one), *varying_axes(two)}
    for axis in constant:
        one = one.narrow(axis, 0, 1)
        two = two.narrow(axis, 0, 1)
    return one, two


def spread_over(ids: Tensor, sides: Iterable[int]) -> Tensor:
    """Return a map [1, C, *sides] with the id of each channel at all its positions."""
    sides = tuple(sides)
    column = ids.reshape(1, -1, *[1] * len(sides))
    # Contiguous as an activation would be, so that rearrangements give the same layout on ids.
    return column.expand(1, -1, *sides).contiguous()


def is_channel_row(x: Tensor) -> bool:
    """Return whether channels lie side by side in one map, as its positions."""
    if x.shape[1] != 1 or x.numel() != max(x.shape[2:]):
        return False
    return bool((x != x.flatten()[0]).any())


def reduce_ids(x: Tensor, dims: tuple[int, ...], *, keepdim: bool) -> Tensor:
    """Return the ids of a reduction's result; raises FixedChannelsError if it mixes ids."""
    highest = x.amax(dims, keepdim)
    lowest = x.amin(dims, keepdim)
    if not highest.equal(lowest):
        raise FixedChannelsError("it computes over the channels")
    return highest


def flatten_tensors(value: Any) -> list[Tensor]:
    """Return the tensors of nested lists and tuples."""
    if isinstance(value, Tensor):
        return [value]
    found: list[Tensor] = []
    for part in value:
        found += flatten_tensors(part)
    return found
