"""Names of graph nodes, from the names that an ONNX file has for weights and for nodes.

A layer gets the name of its weight without `.weight`, which keeps the names of PyTorch's exports.
Where the exporter has renamed weights, the name of the node shows the module:
`/layer1/layer1.0/conv1/Conv` stands for `layer1.0.conv1`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set

from torch import nn

from fertool.graph.ir import INPUT
from fertool.graph.network import is_reserved
from fertool.graph.onnx_builder import Draft
from fertool.graph.operators import OPERATORS

_MAX_LENGTH = 200
"""Characters of a path; model files take names of 256, and numbers are appended to it."""
_GENERATED = re.compile(r"onnx::.*|\d*|.*(Constant|_output)_?\d*")
"""Names of tensors that an exporter has numbered and no author has chosen."""
_LAYER_TENSORS = ("weight", "bias", "running_mean", "running_var")


def assign_names(drafts: Sequence[Draft], node_names: Iterable[str]) -> dict[int, str]:
    """Return a unique name for each draft by its `id`; `node_names` are those of the whole file.

    Layers choose first, then tensors that are no part of one, then the rest: users know the names
    of layers, which plans and reports show.
    """
    layers: list[Draft] = []
    stored: list[Draft] = []
    for draft in drafts:
        if draft.op == "getitem" or not OPERATORS[draft.op].layer:
            continue
        if draft.inputs:
            layers.append(draft)
        else:
            stored.append(draft)

    names = _UniqueNames()
    _name_layers(layers, names)
    _name_stored_tensors(stored, layers, names)
    _name_others(drafts, set(map(scope_of, node_names)), names)
    return names.by_draft


class _UniqueNames:
    """The names chosen so far; a name that is not free gets a number."""

    def __init__(self) -> None:
        self.by_draft: dict[int, str] = {}
        self.reserved = {INPUT}
        self._module_prefixes: set[str] = set()
        self._counts: Counter[str] = Counter()

    def choose(self, draft: Draft, wanted: str) -> None:
        """Give a draft the name that is wanted, or one like it."""
        name = wanted
        # A prefix of a layer's name is a module that holds the layer, and so is not free either.
        while name in self.reserved or name in self._module_prefixes:
            self._counts[wanted] += 1
            name = f"{wanted}_{self._counts[wanted]}"

        self.by_draft[id(draft)] = name
        self.reserved.add(name)
        if draft.tensors:
            self._module_prefixes.update(_proper_prefixes(name))


def _name_layers(layers: Sequence[Draft], names: _UniqueNames) -> None:
    claims: Counter[str] = Counter()
    for draft in layers:
        claims.update(set(_tensor_prefixes(draft)))

    layers_in_scope = Counter(map(_scope, layers))
    outer_scopes = {""}
    for scope in layers_in_scope:
        outer_scopes.update(_proper_prefixes(scope))

    for draft in layers:
        scope = _scope(draft)
        # A scope with one layer and no others inside is the layer's own module.
        is_own_module = layers_in_scope[scope] == 1 and scope not in outer_scopes
        fallback = _join(scope, draft.op)
        if is_own_module:
            fallback = scope
        name = _layer_name(scope, fallback, _tensor_prefixes(draft), claims)
        names.choose(draft, _without_reserved_parts(name))


def _name_stored_tensors(
    stored: Sequence[Draft], layers: Sequence[Draft], names: _UniqueNames
) -> None:
    """Name the tensors outside of layers, which can be neither a layer nor a tensor of one."""
    layer_names = {names.by_draft[id(draft)] for draft in layers}
    for layer in layer_names:
        # Also of layers without a bias or statistics, which surgery and folding can add.
        for tensor in _LAYER_TENSORS:
            names.reserved.add(f"{layer}.{tensor}")

    claims = Counter(map(_tensor_name, stored))
    for draft in stored:
        name = _stored_tensor_name(draft, claims)
        name = _outside_layers(name, layer_names)
        names.choose(draft, _without_reserved_parts(name))


def _stored_tensor_name(draft: Draft, claims: Mapping[str, int]) -> str:
    """Return the name that a tensor should have; `claims` counts the tensors of each name."""
    scope = _scope(draft)
    name = _tensor_name(draft)
    if not name:
        return _join(scope, draft.op)
    # Exporters store equal tensors once: the name is that of only one of the uses.
    if scope and claims[name] > 1:
        return _join(scope, name.rpartition(".")[2])
    return name


def _name_others(drafts: Sequence[Draft], scopes: Set[str], names: _UniqueNames) -> None:
    """Name the drafts without tensors."""
    # Of the whole file, since fusion and folding have removed drafts of other modules.
    containers = {scope.rpartition(".")[0] for scope in scopes} | {""}
    drafts_in_scope = Counter(map(_scope, drafts))
    for draft in drafts:
        if id(draft) in names.by_draft:
            continue
        if draft.op == "getitem":
            source = names.by_draft[id(draft.inputs[0])]
            names.choose(draft, f"{source}.{draft.args['index']}")
            continue

        scope = _scope(draft)
        name = _join(scope, draft.op)
        # A module without tensors that became one node, such as an activation.
        if scope not in containers and drafts_in_scope[scope] == 1:
            name = scope
        names.choose(draft, name)


def scope_of(node_name: str) -> str:
    """Return the module of a node: `layer1.0.conv1` for `/layer1/layer1.0/conv1/Conv`.

    For modules in a sequence exporters repeat the path: `layer1` and then `layer1.0`.
    """
    # The last part is the operator itself.
    parts = node_name.strip("/").split("/")[:-1]
    path: list[str] = []
    for part in parts:
        if not part:
            continue
        if path and part.startswith(f"{path[-1]}."):
            path[-1] = part
        else:
            path.append(part)
    return _sanitize(".".join(path))


def _scope(draft: Draft) -> str:
    name = draft.origin.name
    scope = scope_of(name)
    if scope or not name or name.startswith("/"):
        return scope

    # A name without a path was chosen by an author, unless it is a numbered operator.
    op_type = re.escape(draft.origin.op_type)
    if re.fullmatch(rf"(node_)?{op_type}_?\d*", name, re.IGNORECASE):
        return ""
    return _sanitize(name)


def _layer_name(
    scope: str, fallback: str, prefixes: Sequence[str], claims: Mapping[str, int]
) -> str:
    """Return the name that a layer should have.

    `prefixes` are the names that its tensors suggest, `claims` the number of layers for each of
    them. Exporters store equal weights once, so that several layers have the name of one of them.
    """
    if scope in prefixes:
        return scope
    for prefix in prefixes:
        if claims[prefix] == 1:
            return prefix

    if not scope:
        return prefixes[0] if prefixes else fallback
    # The stored weight is that of the same module in another block, which has this last part too.
    last_parts = [prefix.rpartition(".")[2] for prefix in prefixes]
    if scope.rpartition(".")[2] in last_parts:
        return scope
    return fallback


def _tensor_prefixes(draft: Draft) -> list[str]:
    """Return the names of a layer's tensors without `.weight` and the like, where they end so."""
    prefixes: list[str] = []
    for key, name in draft.initializers.items():
        if name.endswith(f".{key}"):
            prefixes.append(_sanitize(name.removesuffix(f".{key}")))
    return prefixes


def _tensor_name(draft: Draft) -> str:
    """Return the author's name of a tensor outside of layers, "" if it has none."""
    (name,) = draft.initializers.values()
    if _GENERATED.fullmatch(name):
        return ""
    return _sanitize(name)


def _outside_layers(name: str, layers: Set[str]) -> str:
    """Return a name that is not inside a layer: `conv_constant` for `conv.constant`."""
    while not layers.isdisjoint(_proper_prefixes(name)):
        outer, _, last = name.rpartition(".")
        name = f"{outer}_{last}"
    return name


def _join(scope: str, op: str) -> str:
    return f"{scope}.{op}" if scope else op


def _sanitize(name: str) -> str:
    """Return a name with only the characters of module paths; "" where it is empty or too long."""
    parts: list[str] = []
    for part in re.split(r"[./]", name):
        clean = re.sub(r"[^\w-]+", "_", part, flags=re.ASCII).strip("_")
        if clean:
            parts.append(clean)
    path = ".".join(parts)
    if len(path) > _MAX_LENGTH:
        return ""
    return path


def _proper_prefixes(name: str) -> list[str]:
    """Return the paths of the modules that hold a module: `a` and `a.b` for `a.b.c`."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _without_reserved_parts(path: str) -> str:
    """Return a path none of whose parts is an attribute of the module that holds it."""
    first, *inner = path.split(".")
    parts = [first]
    if is_reserved(path):
        parts = [f"{first}_"]
    # An instance, which has more attributes than its class, such as `training`.
    container = nn.Module()
    for part in inner:
        if hasattr(container, part):
            part = f"{part}_"
        parts.append(part)
    return ".".join(parts)
