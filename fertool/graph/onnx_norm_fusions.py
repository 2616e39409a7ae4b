"""Fusion of layer norms (1607.06450) and group norms (1803.08494) written as several nodes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fertool.graph.onnx_builder import MAX_FILLED, STORED, Array, Draft


def fuse_layer_norm(draft: Draft) -> bool:
    """Fuse (x - mean) / sqrt(mean((x - mean)^2) + eps) over the last axes.

    The result has weights of 1 and biases of 0, which a product and a sum behind it replace.
    """
    if draft.args.get("other") is not None:
        return False
    centered, root = draft.inputs
    x = _centered_source(centered)
    radicand = _radicand(root)
    if x is None or radicand is None or radicand.op != "add":
        return False

    eps = radicand.args["other"]
    mean, variance = centered.inputs[1], radicand.inputs[0]
    if eps is None or variance.op != "mean" or not _is_square(variance.inputs[0], centered):
        return False
    axes = _reduced_last_axes(mean)
    if axes is None or axes != _reduced_last_axes(variance):
        return False

    shape = x.shape[len(x.shape) - axes :]
    if math.prod(shape) > MAX_FILLED:
        return False
    draft.replace_("layer_norm", [x], axes=axes, eps=eps)
    draft.tensors = _neutral_tensors(shape)
    return True


def _centered_source(draft: Draft) -> Draft | None:
    """Return x where a draft is `x - mean(x)`, else None."""
    if draft.op != "sub" or len(draft.inputs) != 2:
        return None
    x, mean = draft.inputs
    if mean.op != "mean" or mean.inputs[0] is not x:
        return None
    return x


def _reduced_last_axes(mean: Draft) -> int | None:
    """Return how many last axes a mean reduces and keeps as 1; None for other axes."""
    if not mean.args["keepdim"]:
        return None
    rank = len(mean.inputs[0].shape)
    axes = sorted(axis % rank for axis in mean.args["dim"])
    if axes != list(range(rank - len(axes), rank)):
        return None
    return len(axes)


def _radicand(draft: Draft) -> Draft | None:
    """Return what a draft is the square root of, else None."""
    if draft.op == "sqrt" or (draft.op == "pow" and draft.args["exponent"] == 0.5):
        return draft.inputs[0]
    return None


def _is_square(draft: Draft, x: Draft) -> bool:
    if draft.op == "pow":
        return draft.args["exponent"] == 2 and draft.inputs[0] is x
    # Drafts are compared by identity.
    return draft.op == "mul" and draft.inputs == [x, x]


def _neutral_tensors(shape: Sequence[int]) -> dict[str, Array]:
    return {"weight": np.ones(shape, np.float32), "bias": np.zeros(shape, np.float32)}


def fuse_group_norm(draft: Draft) -> bool:
    """Fuse a group norm that is written as an instance norm of [N, G, C / G * H * W].

    PyTorch exports group norms like this before opset 21.
    """
    norm = draft.inputs[0]
    if norm.op != "group_norm" or norm.inputs[0].op != "reshape" or len(norm.shape) != 3:
        return False

    x = norm.inputs[0].inputs[0]
    groups = norm.shape[1]
    if norm.args["num_groups"] != groups or x.shape != draft.shape or norm.shape[0] != x.shape[0]:
        return False
    if not np.all(norm.tensors["weight"] == 1) or np.any(norm.tensors["bias"]):
        return False

    channels = x.shape[1]
    if channels > MAX_FILLED:
        return False
    draft.replace_("group_norm", [x], num_groups=groups, eps=norm.args["eps"])
    draft.tensors = _neutral_tensors((channels,))
    return True


def fuse_norm_affine(draft: Draft) -> bool:
    """Fuse a norm without weights or biases and the product or sum that applies them."""
    key = "weight" if draft.op == "mul" else "bias"
    if len(draft.inputs) != 2:
        return False

    for norm, stored in (draft.inputs, draft.inputs[::-1]):
        if not _lacks_tensor(norm, key) or stored.op not in STORED:
            continue
        values = _as_norm_tensor(stored, norm)
        if values is None:
            continue

        tensors = {**norm.tensors, key: values}
        initializers = {**norm.initializers, key: stored.initializers[""]}
        draft.replace_(norm.op, norm.inputs, **norm.args)
        draft.tensors = tensors
        draft.initializers = initializers
        return True
    return False


def _lacks_tensor(norm: Draft, key: str) -> bool:
    """Whether a draft is a norm whose weight, or whose bias, can still be given to it.

    A weight cannot be applied after a bias, so that biases have to be 0 in both cases.
    """
    if norm.op not in ("layer_norm", "group_norm") or norm.initializers.get(key):
        return False
    if key == "weight" and not np.all(norm.tensors["weight"] == 1):
        return False
    # A norm of the file without a bias has no place for one.
    return "bias" in norm.tensors and not np.any(norm.tensors["bias"])


def _as_norm_tensor(stored: Draft, norm: Draft) -> Array | None:
    """Return a stored tensor in the shape of the norm's weight; None where it does not fit."""
    array = stored.tensors[""]
    shape = norm.tensors["weight"].shape
    if norm.op == "group_norm":
        (channels,) = shape
        return per_channel(array, channels, rank=len(norm.shape), axis=1)
    if array.shape != shape:
        return None
    return array


def per_channel(array: Array, channels: int, rank: int, axis: int) -> Array | None:
    """Return an array as one number a channel; None where it does not broadcast as such.

    `axis` is that of the channels in a result with `rank` axes.
    """
    padded = (1,) * (rank - array.ndim) + array.shape
    if padded != (1,) * axis + (channels,) + (1,) * (rank - axis - 1):
        return None
    return array.reshape(-1)
