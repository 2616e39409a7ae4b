"""Fusion of operators that exporters write as several nodes.

Each rule looks at a draft and at its inputs. Where it recognizes what they compute together, the
draft becomes that operator. Drafts that nothing reads any more are removed afterwards.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fertool.graph.onnx_builder import ERF, STORED, Array, Draft, complete_arguments
from fertool.graph.onnx_norm_fusions import (
    fuse_group_norm,
    fuse_layer_norm,
    fuse_norm_affine,
    per_channel,
)
from fertool.graph.operators import OPERATORS

_REL_TOLERANCE = 1e-5
"""Exporters round their factors, and logits have to be equal to 1e-5."""
_MAX_DEPTH = 6
"""Products inside each other that are taken apart."""
_MAX_FACTORS = 8
"""Of a product; without a limit a chain of squares would have 2^n factors."""


def fuse_patterns_(drafts: list[Draft]) -> None:
    """Turn the last draft of each pattern into the operator that the pattern computes."""
    for draft in drafts:
        _apply_first_rule_(draft)
    _fuse_slices_(drafts)
    _fuse_biases_(drafts)


def _apply_first_rule_(draft: Draft) -> None:
    for rule in _RULES.get(draft.op, ()):
        if rule(draft):
            return


@dataclass(frozen=True)
class _Product:
    """A product of a number and drafts."""

    number: float
    factors: tuple[Draft, ...]

    def matches(self, number: float, count: int) -> bool:
        """Whether the product has this number, and so many other factors."""
        return _is_close(self.number, number) and len(self.factors) == count


def _is_close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=_REL_TOLERANCE)


def _factorize(draft: Draft, whole: Draft | None = None, depth: int = _MAX_DEPTH) -> _Product:
    """Return a draft as a product, taken apart as far as possible; `whole` is not taken apart."""
    number = draft.args.get("other")
    is_product = draft.op == "mul" or (draft.op == "div" and number is not None)
    if draft is whole or depth == 0 or not is_product:
        return _Product(1.0, (draft,))

    if number is not None:
        inner = _factorize(draft.inputs[0], whole, depth - 1)
        factor = number
        if draft.op == "div":
            factor = _reciprocal(number)
        return _Product(inner.number * factor, inner.factors)

    first = _factorize(draft.inputs[0], whole, depth - 1)
    second = _factorize(draft.inputs[1], whole, depth - 1)
    factors = (*first.factors, *second.factors)
    if len(factors) > _MAX_FACTORS:
        return _Product(1.0, (draft,))
    return _Product(first.number * second.number, factors)


def _reciprocal(number: float) -> float:
    if number == 0:
        return math.inf
    return 1 / number


def _summand(draft: Draft, number: float) -> Draft | None:
    """Return x where a draft is `x + number`, else None."""
    other = draft.args.get("other")
    if draft.op != "add" or other is None or not _is_close(other, number):
        return None
    return draft.inputs[0]


@dataclass(frozen=True)
class _Gate:
    """A function of x that makes, multiplied with x and a number, an operator of the table."""

    x: Draft
    number: float
    op: str
    args: Mapping[str, str] = field(default_factory=dict)


def _fuse_gate(draft: Draft) -> bool:
    """Fuse x * f(x): silu, hardswish, mish and gelu."""
    for factor in _factorize(draft).factors:
        for gate in _possible_gates(factor):
            # x may be a product itself, so that the factors are found again with x as one.
            product = _factorize(draft, gate.x)
            is_gated = gate.x in product.factors and factor in product.factors
            if product.matches(gate.number, 2) and is_gated:
                draft.replace_(gate.op, [gate.x], **gate.args)
                return True
    return False


def _fuse_hardsigmoid(draft: Draft) -> bool:
    """Fuse relu6(x + 3) / 6 (1905.02244)."""
    product = _factorize(draft)
    factor = product.factors[0]
    if factor.op != "relu6" or not product.matches(1 / 6, 1):
        return False
    x = _summand(factor.inputs[0], 3.0)
    if x is None:
        return False
    draft.replace_("hardsigmoid", [x])
    return True


def _possible_gates(factor: Draft) -> list[_Gate]:
    """Return the gates that a factor of a product may be."""
    find_gates = _GATE_FINDERS.get(factor.op)
    if find_gates is None:
        return []
    return find_gates(factor)


def _silu_gates(factor: Draft) -> list[_Gate]:
    return [_Gate(factor.inputs[0], 1.0, "silu")]


def _hardswish_gates(factor: Draft) -> list[_Gate]:
    """Return the gate of hardswish: hardsigmoid(x), or relu6(x + 3) (1905.02244)."""
    source = factor.inputs[0]
    if factor.op == "hardsigmoid":
        return [_Gate(source, 1.0, "hardswish")]
    x = _summand(source, 3.0)
    if x is None:
        return []
    return [_Gate(x, 1 / 6, "hardswish")]


def _mish_gates(factor: Draft) -> list[_Gate]:
    """Return the gate of mish: tanh(softplus(x)) (1908.08681)."""
    source = factor.inputs[0]
    if source.op != "softplus":
        return []
    return [_Gate(source.inputs[0], 1.0, "mish")]


def _gelu_gates(factor: Draft) -> list[_Gate]:
    """Return the gates of gelu: 1 + erf(x / sqrt(2)), or 1 + tanh(…) (Hendrycks, 1606.08415)."""
    inner = _summand(factor, 1.0)
    if inner is None or inner.op not in (ERF, "tanh"):
        return []

    argument = inner.inputs[0]
    if inner.op == "tanh":
        return [_Gate(x, 0.5, "gelu", {"approximate": "tanh"}) for x in _cubic_sources(argument)]
    if argument.args.get("other") is None:
        return []
    x = argument.inputs[0]
    if not _factorize(argument, x).matches(math.sqrt(0.5), 1):
        return []
    return [_Gate(x, 0.5, "gelu", {"approximate": "none"})]


_GATE_FINDERS: dict[str, Callable[[Draft], list[_Gate]]] = {
    "sigmoid": _silu_gates,
    "hardsigmoid": _hardswish_gates,
    "relu6": _hardswish_gates,
    "tanh": _mish_gates,
    "add": _gelu_gates,
}
"""By the operator that computes the gate."""


def _cubic_sources(argument: Draft) -> list[Draft]:
    """Return each x for which a draft is sqrt(2 / pi) * (x + 0.044715 x^3) (1606.08415)."""
    product = _factorize(argument)
    if not product.matches(math.sqrt(2 / math.pi), 1) or product.factors[0].op != "add":
        return []

    terms = product.factors[0].inputs
    if len(terms) != 2:
        return []
    found: list[Draft] = []
    for x, cube in (terms, reversed(terms)):
        if _is_scaled_cube(cube, x):
            found.append(x)
    return found


def _is_scaled_cube(draft: Draft, x: Draft) -> bool:
    """Whether a draft is 0.044715 x^3."""
    product = _factorize(draft, x)
    if product.matches(0.044715, 3):
        return all(factor is x for factor in product.factors)

    power = product.factors[0]
    is_cube = power.op == "pow" and power.args["exponent"] == 3 and power.inputs[0] is x
    return is_cube and product.matches(0.044715, 1)


def _fuse_channel_shuffle(draft: Draft) -> bool:
    """Fuse [N, C, H, W] -> [N, G, C / G, H, W] -> [N, C / G, G, H, W] -> [N, C, H, W]."""
    permuted = draft.inputs[0]
    if permuted.op != "permute" or tuple(permuted.args["dims"]) != (0, 2, 1, 3, 4):
        return False
    grouped = permuted.inputs[0]
    if grouped.op != "reshape" or len(draft.shape) != 4:
        return False

    x = grouped.inputs[0]
    batch, _, height, width = draft.shape
    groups, group_size = grouped.shape[1:3]
    if x.shape != draft.shape or grouped.shape != (batch, groups, group_size, height, width):
        return False
    draft.replace_("channel_shuffle", [x], groups=groups)
    return True


def _fuse_permutes(draft: Draft) -> bool:
    """Fuse two permutations, such as those around a network with its channels last."""
    before = draft.inputs[0]
    if before.op != "permute":
        return False

    inner_dims = before.args["dims"]
    order = [inner_dims[axis] for axis in draft.args["dims"]]
    if order == sorted(order):
        draft.replace_("identity", [before.inputs[0]])
    else:
        draft.replace_("permute", [before.inputs[0]], dims=order)
    return True


def _fuse_slices_(drafts: list[Draft]) -> None:
    """Turn slices that together are the whole of an axis into one split, placed before the first.

    Pruning can remove channels from a split, but not from slices with fixed bounds.
    """
    slices_by_axis: dict[tuple[int, int], list[Draft]] = {}
    for draft in drafts:
        if draft.op == "slice" and draft.args["step"] == 1:
            key = (id(draft.inputs[0]), draft.args["dim"])
            slices_by_axis.setdefault(key, []).append(draft)

    splits: dict[int, Draft] = {}
    for (_, axis), slices in slices_by_axis.items():
        split = _split_for(slices, axis)
        if split is not None:
            splits[id(slices[0])] = split

    ordered: list[Draft] = []
    for draft in drafts:
        if id(draft) in splits:
            ordered.append(splits[id(draft)])
        ordered.append(draft)
    drafts[:] = ordered


def _split_for(slices: list[Draft], axis: int) -> Draft | None:
    """Turn slices of one draft into parts of a split; None where they are not the whole axis."""
    source = slices[0].inputs[0]
    ordered = sorted(slices, key=lambda part: int(part.args["start"]))
    sizes: list[int] = []
    position = 0
    for part in ordered:
        if part.args["start"] != position:
            return None
        position = part.args["end"]
        sizes.append(part.shape[axis])
    if len(slices) < 2 or position != source.shape[axis]:
        return None

    args = complete_arguments("split", 1, {"sizes": sizes, "dim": axis})
    split = Draft("split", [source], args, origin=slices[0].origin)
    split.results = tuple(part.results[0] for part in ordered)
    for index, part in enumerate(ordered):
        part.replace_("getitem", [split], index=index)
    return split


def _fuse_biases_(drafts: list[Draft]) -> None:
    """Turn each layer without a bias and the sum behind it into a layer with a bias."""
    readers: Counter[int] = Counter()
    for draft in drafts:
        readers.update(map(id, draft.inputs))
    for draft in drafts:
        if draft.op == "add":
            _fuse_bias_(draft, readers)


def _fuse_bias_(draft: Draft, readers: Counter[int]) -> None:
    """Turn a sum of a layer without bias and one number for each channel into a layer with bias."""
    if len(draft.inputs) != 2:
        return
    for layer, stored in (draft.inputs, draft.inputs[::-1]):
        if not _can_take_bias(layer) or stored.op not in STORED:
            continue
        # Another reader of the layer's result needs it without the bias.
        bias = _as_bias(stored, layer)
        if bias is None or readers[id(layer)] != 1:
            continue

        args = {**layer.args, "bias": True}
        tensors = {**layer.tensors, "bias": bias}
        initializers = {**layer.initializers, "bias": stored.initializers[""]}
        draft.replace_(layer.op, layer.inputs, **args)
        draft.tensors = tensors
        draft.initializers = initializers
        # The node of the layer has the name of its module, that of the sum has not.
        draft.origin = layer.origin
        return


def _can_take_bias(draft: Draft) -> bool:
    """Whether a draft is a layer that mixes channels and has no bias."""
    if draft.op == ERF or OPERATORS[draft.op].channel_effect != "mixes":
        return False
    return not draft.args["bias"]


def _as_bias(stored: Draft, layer: Draft) -> Array | None:
    """Return a stored tensor as the bias of a layer; None where it is not one number a channel."""
    array = stored.tensors[""]
    rank = len(layer.shape)
    if layer.op == "linear":
        return per_channel(array, layer.args["out_features"], rank=rank, axis=rank - 1)
    return per_channel(array, layer.args["out_channels"], rank=rank, axis=1)


_Rule = Callable[[Draft], bool]
_RULES: dict[str, tuple[_Rule, ...]] = {
    "mul": (_fuse_gate, _fuse_hardsigmoid, fuse_norm_affine),
    "add": (fuse_norm_affine,),
    "div": (_fuse_gate, _fuse_hardsigmoid, fuse_layer_norm),
    "reshape": (_fuse_channel_shuffle, fuse_group_norm),
    "permute": (_fuse_permutes,),
}
