"""The passes over an exported graph: their names, their order and what runs them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial

from onnx import ModelProto

from fertool.errors import UsageError
from fertool.exporting.compaction import compact_graph
from fertool.exporting.gate_clipping import clip_gates
from fertool.exporting.kernel_layout import arrange_for_kernels
from fertool.exporting.linear_scales import halve_linear_scales
from fertool.exporting.pool_layout import reduce_extreme_pools, transpose_pooled_maps
from fertool.exporting.redundant_relus import remove_redundant_relus
from fertool.exporting.scale_packing import pack_scales
from fertool.exporting.simplification import simplify_graph
from fertool.exporting.weight_packing import pack_weights
from fertool.exporting.weight_unpacking import unpack_weights

Pass = Callable[[ModelProto], ModelProto]
"""Returns a graph with the same logits; the given one stays as it is."""

# Simplification comes first: onnxsim knows neither the packed form nor the kernels' layout, and
# would fold both away.
STANDARD_OPERATORS = (
    "simplify",
    "clip-gates",
    "reduce-extreme-pools",
    "transpose-pooled-maps",
    "remove-redundant-relus",
)
"""Passes for every file; their graphs have standard operators, and integer weights of one byte."""
PLAIN = ("unpack-weights", "halve-linear-scales", "compact")
"""Passes after those, for the operators that every runtime computes on integers."""
FAST = ("unpack-weights", "pack-scales", "arrange-for-kernels", "compact")
"""Passes in place of those, for the speed of ONNX Runtime alone."""
SMALL = ("unpack-weights", "pack-scales", "pack-weights", "arrange-for-kernels", "compact")
"""Passes in place of those, for weights in as few bits as they need."""


def list_passes(
    simplify_timeout_s: float = 300.0, on_note: Callable[[str], None] = lambda note: None
) -> dict[str, Pass]:
    """Return all passes by name, in the order in which they run.

    onnxsim may take `simplify_timeout_s` seconds. `on_note` is told where a pass could do nothing.
    """
    return {
        "simplify": partial(simplify_graph, timeout_s=simplify_timeout_s, on_note=on_note),
        "clip-gates": clip_gates,
        "reduce-extreme-pools": reduce_extreme_pools,
        "transpose-pooled-maps": transpose_pooled_maps,
        "remove-redundant-relus": remove_redundant_relus,
        "unpack-weights": unpack_weights,
        "halve-linear-scales": halve_linear_scales,
        "pack-scales": pack_scales,
        "pack-weights": partial(pack_weights, on_note=on_note),
        "arrange-for-kernels": arrange_for_kernels,
        "compact": compact_graph,
    }


def run_passes(
    model: ModelProto,
    passes: Mapping[str, Pass],
    names: Iterable[str],
    skipped: Collection[str] = (),
) -> ModelProto:
    """Return the graph after the passes of these names, without those that are skipped."""
    for name in names:
        if name not in skipped:
            model = passes[name](model)
    return model


def require_known_passes(names: Iterable[str]) -> None:
    """Raise UsageError for names that no pass has."""
    known = list_passes()
    for name in names:
        if name not in known:
            raise UsageError(
                f"``skipped_passes``: unknown pass '{name}'", f"choose from {', '.join(known)}"
            )
