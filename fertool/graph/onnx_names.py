"""Names of nodes, from the names that an ONNX file has for weights and for nodes.

A layer is called as its weight is without `.weight`, which keeps the names of PyTorch's exports. Where the exporter
has renamed weights, the name of the node tells the module: `/layer1/layer1.0/conv1/Conv` stands for `layer1.0.conv1`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set

from torch import nn

from fertool.graph.ir import INPUT
from fertool.graph.onnx_values import Draft
from fertool.graph.operators import OPERATORS

_LONGEST = 200
_MADE_UP = re.compile(r"onnx::.*|\d*|.*(Constant|_output)_?\d*")
"""Names of tensors that only an exporter's counter stands behind."""
_TENSORS = ("weight", "bias", "running_mean", "running_var")


def names_of(drafts: Sequence[Draft], nodes: Iterable[str]) -> dict[int, str]:
    """Return a name for each draft by its `id`; `nodes` are the names of all nodes of the file.

    Layers choose first, then tensors that are no part of one, then the rest.
    """
    scopes = {scope_of(node) for node in nodes}
    containers = {path.rpartition(".")[0] for path in scopes} | {""}
    made_in = Counter(_scope(draft) for draft in drafts)
    taken = {INPUT}
    inside: set[str] = set()
    found: dict[int, str] = {}
    uses: Counter[str] = Counter()

    def choose(draft: Draft, wanted: str) -> None:
        name = wanted
        # A module that is made after what stands in it would take its place.
        while name in taken or name in inside:
            uses[wanted] += 1
            name = f"{wanted}_{uses[wanted]}"
        found[id(draft)] = name
        taken.add(name)
        if draft.tensors:
            inside.update(_prefixes(name))

    layers = [
        draft
        for draft in drafts
        if draft.op != "getitem" and OPERATORS[draft.op].layer and draft.inputs
    ]
    held = [draft for draft in drafts if OPERATORS[draft.op].layer and not draft.inputs]
    claims = Counter(prefix for draft in layers for prefix in set(_held_prefixes(draft)))
    in_scope = Counter(map(_scope, layers))
    around = {prefix for scope in in_scope for prefix in _prefixes(scope)} | {""}
    for draft in layers:
        scope = _scope(draft)
        own = scope if in_scope[scope] == 1 and scope not in around else _below(scope, draft.op)
        choose(draft, _module_name(_layer_name(scope, own, _held_prefixes(draft), claims)))
    # Tensors stand beside the layers, whose names and parts they can not have.
    layer_names = {found[id(draft)] for draft in layers}
    taken |= {f"{found[id(draft)]}.{tensor}" for draft in layers for tensor in _TENSORS}
    claims = Counter(map(_tensor_name, held))
    for draft in held:
        own, scope = _tensor_name(draft), _scope(draft)
        if own and scope and claims[own] > 1:
            own = _below(scope, own.rpartition(".")[2])
        choose(draft, _module_name(_outside(own or _below(scope, draft.op), layer_names)))
    for draft in drafts:
        if id(draft) in found:
            continue
        if draft.op == "getitem":
            choose(draft, f"{found[id(draft.inputs[0])]}.{draft.args['index']}")
            continue
        scope = _scope(draft)
        is_whole_module = scope not in containers and made_in[scope] == 1
        choose(draft, scope if is_whole_module else _below(scope, draft.op))
    return found


def _outside(name: str, layers: Set[str]) -> str:
    """Return a name for a tensor that is in no layer, which may be made after it: `conv_constant`."""
    while not layers.isdisjoint(_prefixes(name)):
        outer, _, last = name.rpartition(".")
        name = f"{outer}_{last}"
    return name


def scope_of(node: str) -> str:
    """Return the path of the module that a node comes from: `/layer1/layer1.0/conv1/Conv` from `layer1.0.conv1`.

    Exporters write the whole of a path again for modules in a sequence: `layer1` and then `layer1.0`.
    """
    parts = [part for part in node.split("/") if part]
    path: list[str] = []
    for part in parts[:-1]:
        if path and part.startswith(f"{path[-1]}."):
            path[-1] = part
        else:
            path.append(part)
    return _plain(".".join(path))


def _scope(draft: Draft) -> str:
    name = draft.origin.name
    scope = scope_of(name)
    if scope or not name or name.startswith("/"):
        return scope
    # A name without a path is its author's, unless it only counts operators.
    return (
        ""
        if re.fullmatch(rf"(node_)?{re.escape(draft.origin.op_type)}_?\d*", name, re.IGNORECASE)
        else _plain(name)
    )


def _layer_name(scope: str, own: str, prefixes: Sequence[str], claims: Mapping[str, int]) -> str:
    """Return the name that a layer shall have, given what its tensors are called and how many layers claim each name.

    Exporters keep one of several weights that are equal: what several layers have is the name of one of them.
    """
    if scope in prefixes:
        return scope
    unshared = [prefix for prefix in prefixes if claims[prefix] == 1]
    if unshared:
        return unshared[0]
    # The same module of another block has the weight that is kept: this one is called alike.
    if scope and any(prefix.rpartition(".")[2] == scope.rpartition(".")[2] for prefix in prefixes):
        return scope
    return own if scope or not prefixes else prefixes[0]


def _held_prefixes(draft: Draft) -> list[str]:
    """Return what the names of a layer's tensors have before `.weight` and the like, where they have such names."""
    names = [(key, name) for key, name in draft.held.items() if name.endswith(f".{key}")]
    return [_plain(name.removesuffix(f".{key}")) for key, name in names]


def _tensor_name(draft: Draft) -> str:
    (name,) = draft.held.values()
    return "" if _MADE_UP.fullmatch(name) else _plain(name)


def _below(scope: str, op: str) -> str:
    return f"{scope}.{op}" if scope else op


def _plain(name: str) -> str:
    """Return a name with nothing in it but what paths of modules have; "" where that leaves nothing, or too much."""
    parts = [
        re.sub(r"[^\w-]+", "_", part, flags=re.ASCII).strip("_") for part in re.split(r"[./]", name)
    ]
    path = ".".join(part for part in parts if part)
    return path if len(path) <= _LONGEST else ""


def _prefixes(name: str) -> Iterable[str]:
    parts = name.split(".")
    return (".".join(parts[:count]) for count in range(1, len(parts)))


def _module_name(path: str) -> str:
    """Return a path none of whose parts is an attribute that every module has."""
    return ".".join(f"{part}_" if hasattr(nn.Module, part) else part for part in path.split("."))
