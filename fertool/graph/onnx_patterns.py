"""Operators that exporters write as several nodes, found again.

Each rule looks at a draft and at what it reads; where it knows what the whole computes, the draft becomes that. What
nobody reads any more is left out afterwards.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from fertool.graph.onnx_values import ERF, Draft, complete_arguments

_CLOSE = 1e-5
"""Relative; exporters round their factors, and results shall be equal to 1e-5."""
_HELD = ("parameter", "constant")
_MOST_FACTORS = 8
_LARGEST_NORM = 1 << 24


@dataclass(frozen=True)
class _Product:
    """A product: a number and the drafts that are multiplied with it."""

    number: float
    factors: tuple[Draft, ...]

    def is_about(self, number: float, count: int) -> bool:
        """Whether it has this number, and so many factors."""
        return _close(self.number, number) and len(self.factors) == count


def found_again(drafts: list[Draft]) -> None:
    """Turn drafts into the operators of the table that they are the last part of."""
    for draft in drafts:
        for rule in _RULES.get(draft.op, ()):
            if rule(draft):
                break
    _splits(drafts)
    readers = Counter(id(source) for draft in drafts for source in draft.inputs)
    for draft in drafts:
        if draft.op == "add":
            _with_bias(draft, readers)


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=_CLOSE)


def _product(draft: Draft, whole: Draft | None = None, depth: int = 6) -> _Product:
    """Return a draft as a product, taken apart as far as it is one; `whole` stays in one piece."""
    other = draft.args.get("other")
    is_product = draft.op in ("mul", "div") and not (draft.op == "div" and other is None)
    if draft is whole or depth == 0 or not is_product:
        return _Product(1.0, (draft,))
    if other is not None:
        inner = _product(draft.inputs[0], whole, depth - 1)
        factor = other if draft.op == "mul" else 1 / other if other else math.inf
        return _Product(inner.number * factor, inner.factors)
    first, second = (_product(source, whole, depth - 1) for source in draft.inputs)
    factors = (*first.factors, *second.factors)
    if len(factors) > _MOST_FACTORS:
        return _Product(1.0, (draft,))
    return _Product(first.number * second.number, factors)


def _adds(draft: Draft, number: float) -> Draft | None:
    """Return what a draft adds a number to."""
    other = draft.args.get("other")
    return (
        draft.inputs[0]
        if draft.op == "add" and other is not None and _close(other, number)
        else None
    )


@dataclass(frozen=True)
class _Gate:
    """A function of x that makes, times x and a number, an operator of the table."""

    x: Draft
    number: float
    op: str
    form: str = ""


def _gate(draft: Draft) -> bool:
    """Find x * f(x): silu, hardswish, mish, gelu; and the hardsigmoid that is written as a clipped sum."""
    factors = _product(draft).factors
    for factor in factors:
        for gate in _gates(factor):
            product = _product(draft, gate.x)
            if (
                product.is_about(gate.number, 2)
                and gate.x in product.factors
                and factor in product.factors
            ):
                draft.becomes(
                    gate.op, [gate.x], **({"approximate": gate.form} if gate.form else {})
                )
                return True
    if len(factors) == 1 and factors[0].op == "relu6":
        source = _adds(factors[0].inputs[0], 3.0)
        if source is not None and _close(_product(draft).number, 1 / 6):
            draft.becomes("hardsigmoid", [source])
            return True
    return False


def _gates(factor: Draft) -> Iterator[_Gate]:
    """Return what a factor may be the gate of."""
    source = factor.inputs[0] if factor.inputs else factor
    if factor.op in ("sigmoid", "hardsigmoid"):
        yield _Gate(source, 1.0, "silu" if factor.op == "sigmoid" else "hardswish")
    clipped = _adds(source, 3.0) if factor.op == "relu6" else None
    if clipped is not None:
        yield _Gate(clipped, 1 / 6, "hardswish")
    if factor.op == "tanh" and source.op == "softplus":
        yield _Gate(source.inputs[0], 1.0, "mish")
    inner = _adds(factor, 1.0)
    argument = inner.inputs[0] if inner is not None and inner.inputs else None
    if inner is None or argument is None:
        return
    if inner.op == ERF and argument.args.get("other") is not None:
        x = argument.inputs[0]
        if _product(argument, x).is_about(math.sqrt(0.5), 1):
            yield _Gate(x, 0.5, "gelu", "none")
    if inner.op == "tanh":
        yield from (_Gate(x, 0.5, "gelu", "tanh") for x in _cubic_sources(argument))


def _cubic_sources(argument: Draft) -> list[Draft]:
    """Return the x for which a draft is sqrt(2 / pi) * (x + 0.044715 x^3) (1606.08415)."""
    product = _product(argument)
    if not product.is_about(math.sqrt(2 / math.pi), 1) or product.factors[0].op != "add":
        return []
    terms = product.factors[0].inputs
    pairs = [(terms[0], terms[1]), (terms[1], terms[0])] if len(terms) == 2 else []
    return [x for x, cube in pairs if _is_cube(cube, x)]


def _is_cube(cube: Draft, x: Draft) -> bool:
    """Whether a draft is 0.044715 x^3."""
    product = _product(cube, x)
    if product.is_about(0.044715, 3):
        return all(factor is x for factor in product.factors)
    power = product.factors[0]
    is_third = power.op == "pow" and power.args["exponent"] == 3 and power.inputs[0] is x
    return is_third and product.is_about(0.044715, 1)


def _shuffle(draft: Draft) -> bool:
    """Find [N, G, C / G, H, W] with the second and the third axis exchanged, which is a channel shuffle."""
    turned = draft.inputs[0]
    if turned.op != "permute" or tuple(turned.args["dims"]) != (0, 2, 1, 3, 4):
        return False
    grouped = turned.inputs[0]
    if grouped.op != "reshape" or grouped.inputs[0].shape != draft.shape or len(draft.shape) != 4:
        return False
    if grouped.shape[0] != draft.shape[0] or grouped.shape[3:] != draft.shape[2:]:
        return False
    draft.becomes("channel_shuffle", [grouped.inputs[0]], groups=grouped.shape[1])
    return True


def _turned_back(draft: Draft) -> bool:
    """Find two permutations that undo each other, as around a network whose images have their channels last."""
    before = draft.inputs[0]
    if before.op != "permute":
        return False
    order = [before.args["dims"][axis] for axis in draft.args["dims"]]
    if order == list(range(len(order))):
        draft.becomes("identity", [before.inputs[0]])
    else:
        draft.becomes("permute", [before.inputs[0]], dims=order)
    return True


def _layer_norm(draft: Draft) -> bool:
    """Find (x - mean) / sqrt(mean((x - mean)^2) + eps) over the last axes, with or without factors and terms.

    The division becomes a norm with factors of 1, which those that follow replace.
    """
    if draft.args.get("other") is not None:
        return False
    centred, root = draft.inputs
    inner = (
        root.inputs[0]
        if root.op == "sqrt" or (root.op == "pow" and root.args["exponent"] == 0.5)
        else None
    )
    if inner is None or inner.op != "add" or inner.args["other"] is None or centred.op != "sub":
        return False
    variance, (x, mean) = inner.inputs[0], (*centred.inputs, None)[:2]
    if mean is None or variance.op != "mean" or mean.op != "mean" or mean.inputs[0] is not x:
        return False
    rank = len(x.shape)
    dims = sorted(axis % rank for axis in mean.args["dim"])
    if dims != sorted(axis % rank for axis in variance.args["dim"]) or dims != list(
        range(rank - len(dims), rank)
    ):
        return False
    if (
        not mean.args["keepdim"]
        or not variance.args["keepdim"]
        or not _is_square(variance.inputs[0], centred)
    ):
        return False
    shape = x.shape[rank - len(dims) :]
    if math.prod(shape) > _LARGEST_NORM:
        return False
    draft.becomes("layer_norm", [x], axes=len(dims), eps=inner.args["other"])
    draft.tensors = {"weight": np.ones(shape, np.float32), "bias": np.zeros(shape, np.float32)}
    return True


def _is_square(draft: Draft, x: Draft) -> bool:
    if draft.op == "pow":
        return draft.args["exponent"] == 2 and draft.inputs[0] is x
    return (
        draft.op == "mul" and len(draft.inputs) == 2 and all(source is x for source in draft.inputs)
    )


def _group_norm(draft: Draft) -> bool:
    """Find the norm over groups that is written as one over single channels of [N, G, C / G * H * W]."""
    norm = draft.inputs[0]
    if norm.op != "group_norm" or norm.inputs[0].op != "reshape" or len(norm.shape) != 3:
        return False
    x, groups = norm.inputs[0].inputs[0], norm.shape[1]
    if norm.args["num_groups"] != groups or x.shape != draft.shape or norm.shape[0] != x.shape[0]:
        return False
    if not np.all(norm.tensors["weight"] == 1) or np.any(norm.tensors["bias"]):
        return False
    channels = x.shape[1]
    if channels > _LARGEST_NORM:
        return False
    draft.becomes("group_norm", [x], num_groups=groups, eps=norm.args["eps"])
    draft.tensors = {
        "weight": np.ones(channels, np.float32),
        "bias": np.zeros(channels, np.float32),
    }
    return True


def _scaled_norm(draft: Draft) -> bool:
    """Find a norm whose factors, or whose terms, stand behind it."""
    tensor = "weight" if draft.op == "mul" else "bias"
    if len(draft.inputs) != 2:
        return False
    for norm, other in (draft.inputs, draft.inputs[::-1]):
        if (
            norm.op not in ("layer_norm", "group_norm")
            or other.op not in _HELD
            or norm.held.get(tensor)
        ):
            continue
        if not np.all(norm.tensors["weight"] == 1) and tensor == "weight":
            continue
        if np.any(norm.tensors.get("bias", np.ones(1))):
            continue
        entries = _per_entry(other, norm)
        if entries is None:
            continue
        tensors = {**norm.tensors, tensor: entries}
        held = {**norm.held, tensor: other.held[""]}
        draft.becomes(norm.op, norm.inputs, **norm.args)
        draft.tensors, draft.held = tensors, held
        return True
    return False


def _per_entry(parameter: Draft, norm: Draft) -> np.ndarray | None:
    """Return a parameter as the tensor of a norm; None where it is not one number for each of its entries."""
    array, wanted = parameter.tensors[""], norm.tensors["weight"].shape
    if norm.op == "layer_norm":
        return array if array.shape == wanted else None
    shape = (1,) * (len(norm.shape) - array.ndim) + array.shape
    per_channel = (1, *wanted, *(1,) * (len(norm.shape) - 2))
    return array.reshape(-1) if shape == per_channel else None


def _splits(drafts: list[Draft]) -> None:
    """Turn the slices that share out the whole of an axis among them into one split."""
    shares: dict[tuple[int, int], list[Draft]] = {}
    for draft in drafts:
        if draft.op == "slice" and draft.args["step"] == 1:
            shares.setdefault((id(draft.inputs[0]), draft.args["dim"]), []).append(draft)
    before: dict[int, Draft] = {}
    for (_, axis), slices in shares.items():
        source = slices[0].inputs[0]
        ordered = sorted(slices, key=lambda part: int(part.args["start"]))
        starts, ends = ([part.args[bound] for part in ordered] for bound in ("start", "end"))
        if len(slices) < 2 or starts != [0, *ends[:-1]] or ends[-1] != source.shape[axis]:
            continue
        sizes = [end - start for start, end in zip(starts, ends, strict=True)]
        split = Draft(
            "split", [source], complete_arguments("split", 1, {"sizes": sizes, "dim": axis})
        )
        split.origin, split.results = slices[0].origin, tuple(part.results[0] for part in ordered)
        before[id(slices[0])] = split
        for index, part in enumerate(ordered):
            part.becomes("getitem", [split], index=index)
    drafts[:] = [
        new for draft in drafts for new in (before.get(id(draft)), draft) if new is not None
    ]


def _with_bias(draft: Draft, readers: Counter[int]) -> None:
    """Turn a sum of a layer and one number for each of its channels into the layer with a bias."""
    if len(draft.inputs) != 2:
        return
    for layer, other in (draft.inputs, draft.inputs[::-1]):
        if layer.op not in ("linear", "conv1d", "conv2d", "conv_transpose2d") or layer.args["bias"]:
            continue
        if other.op not in _HELD or readers[id(layer)] != 1:
            continue
        size, array = (
            layer.args["out_features" if layer.op == "linear" else "out_channels"],
            other.tensors[""],
        )
        behind = 0 if layer.op == "linear" else len(layer.shape) - 2
        shape = (1,) * (len(layer.shape) - array.ndim) + array.shape
        if shape != (1,) * (len(layer.shape) - behind - 1) + (size,) + (1,) * behind:
            continue
        tensors = {**layer.tensors, "bias": array.reshape(-1)}
        held = {**layer.held, "bias": other.held[""]}
        draft.becomes(layer.op, layer.inputs, **{**layer.args, "bias": True})
        # The layer's own node has its name, which the sum's has not.
        draft.tensors, draft.held, draft.origin = tensors, held, layer.origin
        return


_Rule = Callable[[Draft], bool]
_RULES: dict[str, tuple[_Rule, ...]] = {
    "mul": (_gate, _scaled_norm),
    "add": (_scaled_norm,),
    "div": (_gate, _layer_norm),
    "reshape": (_shuffle, _group_norm),
    "permute": (_turned_back,),
}
