"""From drafts for two numbers of images to drafts for any number of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fertool.graph.onnx_builder import STORED, Array, Draft, UnsupportedNodeError


class DependsOnBatchError(UnsupportedNodeError):
    """A draft that depends on the number of images."""

    def __init__(self, draft: Draft) -> None:
        super().__init__("it depends on the number of images in a way that is not known")
        self.draft = draft


def generalize_batch_(first: Sequence[Draft], second: Sequence[Draft]) -> None:
    """Change the arguments of the first drafts so that they fit any number of images.

    `second` are the drafts of the same graph for another number. Raises DependsOnBatchError with
    the draft that depends on the number in a way that no argument can express.
    """
    broadcast: set[int] = set()
    for one, two in zip(first, second, strict=False):
        if one.op != two.op:
            raise DependsOnBatchError(one)
        if one.op in STORED and one.shape != two.shape:
            _keep_one_image_(one, two)
            broadcast.add(id(one))
            continue

        if not _has_same_tensors(one, two):
            raise DependsOnBatchError(one)
        # Joining does not broadcast, so that one row would stay one row for any number of images.
        if one.op in ("cat", "stack") and not broadcast.isdisjoint(map(id, one.inputs)):
            raise DependsOnBatchError(one)
        _generalize_arguments_(one, two)

    if len(first) != len(second):
        raise DependsOnBatchError(first[-1])


def _generalize_arguments_(one: Draft, two: Draft) -> None:
    for name, value in one.args.items():
        if name == "shape" and one.op == "reshape":
            one.args[name] = _batch_free_shape(one, two)
        elif value != two.args[name]:
            raise DependsOnBatchError(one)


def _batch_free_shape(one: Draft, two: Draft) -> tuple[int, ...]:
    """Return the target of a reshape with 0 or -1 for the batch and the other sizes as they are."""
    written: tuple[int, ...] = tuple(one.args["shape"])
    if written == tuple(two.args["shape"]):
        return written

    differing: list[int] = []
    for axis, (size, other) in enumerate(zip(one.shape, two.shape, strict=True)):
        if size != other:
            differing.append(axis)
    if len(differing) != 1:
        raise DependsOnBatchError(one)

    (axis,) = differing
    keeps_batch = one.shape[0] == one.inputs[0].shape[0] and two.shape[0] == two.inputs[0].shape[0]
    if axis == 0 and keeps_batch:
        # 0 copies the size, which leaves a -1 among the other sizes possible.
        return (0, *written[1:])
    return (*one.shape[:axis], -1, *one.shape[axis + 1 :])


def _keep_one_image_(one: Draft, two: Draft) -> None:
    """Keep what a constant has for one image, to be broadcast; all images must have the same."""
    array, other = one.tensors[""], two.tensors[""]
    if array.shape[1:] != other.shape[1:]:
        raise DependsOnBatchError(one)
    if not np.array_equal(np.broadcast_to(array[:1], other.shape), other):
        raise DependsOnBatchError(one)
    one.tensors = {"": array[:1]}
    one.args = {"shape": (1, *array.shape[1:])}


def _has_same_tensors(one: Draft, two: Draft) -> bool:
    return all(_is_same_array(array, two.tensors[name]) for name, array in one.tensors.items())


def _is_same_array(a: Array, b: Array) -> bool:
    if a is b:
        return True
    if a.shape != b.shape:
        return False

    # Views of the same weight have the same address, and comparing their numbers would take
    # longer than all the rest of the import.
    address_a, _ = a.__array_interface__["data"]
    address_b, _ = b.__array_interface__["data"]
    is_same_view = address_a == address_b and a.strides == b.strides
    return is_same_view or np.array_equal(a, b)
