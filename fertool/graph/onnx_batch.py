"""From drafts for two numbers of images to drafts for any number of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fertool.graph.onnx_values import Array, Draft, UnreadableNodeError


def free_of_batch(first: Sequence[Draft], second: Sequence[Draft]) -> None:
    """Change the arguments of the first drafts so that they fit any number of images.

    `second` are those of the same graph for another number. Raises UnreadableNodeError with the draft that depends on
    the number in a way that no argument can say.
    """
    alone: set[int] = set()
    for one, two in zip(first, second, strict=False):
        if one.op != two.op:
            raise DependsOnBatchError(one)
        if one.op in ("parameter", "constant") and one.shape != two.shape:
            _keep_one_image(one, two)
            alone.add(id(one))
            continue
        if not _same_tensors(one, two):
            raise DependsOnBatchError(one)
        if one.op in ("cat", "stack") and any(id(source) in alone for source in one.inputs):
            raise DependsOnBatchError(one)
        for name, value in one.args.items():
            if name == "shape" and one.op == "reshape":
                one.args[name] = _free_shape(one, two)
            elif value != two.args[name]:
                raise DependsOnBatchError(one)
    if len(first) != len(second):
        raise DependsOnBatchError(first[-1])


class DependsOnBatchError(UnreadableNodeError):
    """A draft that depends on the number of images."""

    def __init__(self, draft: Draft) -> None:
        super().__init__("it depends on the number of images in a way that is not known")
        self.draft = draft


def _free_shape(one: Draft, two: Draft) -> tuple[int, ...]:
    """Return the target of a reshape: 0 or -1 where the batch stands, the rest as it was written."""
    written: tuple[Any, Any] = one.args["shape"], two.args["shape"]
    if written[0] == written[1]:
        return tuple(written[0])
    axes = [axis for axis, (a, b) in enumerate(zip(one.shape, two.shape, strict=True)) if a != b]
    if len(axes) != 1:
        raise DependsOnBatchError(one)
    (axis,) = axes
    if (
        axis == 0
        and one.shape[0] == one.inputs[0].shape[0]
        and two.shape[0] == two.inputs[0].shape[0]
    ):
        return (0, *written[0][1:])
    return (*one.shape[:axis], -1, *one.shape[axis + 1 :])


def _keep_one_image(one: Draft, two: Draft) -> None:
    """Keep what a constant holds for one image, where it holds the same for each, to be broadcast over images."""
    array, other = one.tensors[""], two.tensors[""]
    if array.shape[1:] != other.shape[1:] or not np.array_equal(
        np.broadcast_to(array[:1], other.shape), other
    ):
        raise DependsOnBatchError(one)
    one.tensors, one.args = {"": array[:1]}, {"shape": (1, *array.shape[1:])}


def _same_tensors(one: Draft, two: Draft) -> bool:
    return all(_same(array, two.tensors[name]) for name, array in one.tensors.items())


def _same(a: Array, b: Array) -> bool:
    if a is b:
        return True
    where = "__array_interface__"
    # Views of the same weight have the same place in memory, and comparing them would take longer than all the rest.
    same_place = getattr(a, where)["data"] == getattr(b, where)["data"] and a.strides == b.strides
    return a.shape == b.shape and (same_place or np.array_equal(a, b))
