"""The operators and layers of a network, as rows of text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fertool.report.text_table import TextTable
from fertool.report.units import count_text
from fertool.results import LayerSurvey, NodeSummary

_LAYER_HEADERS = ("layer", "operator", ">channels", ">MACs", "can be pruned", "can be integer")


def layout_nodes(nodes: Sequence[NodeSummary]) -> TextTable:
    """Lay out the operators of a graph, which `show` lists with its layers."""
    rows = []
    for node in nodes:
        arguments = []
        for name, value in node.get("args", {}).items():
            arguments.append(f"{name}={_argument_text(value)}")
        # The graph's inputs read nothing and have no arguments.
        inputs = ", ".join(node.get("in", ()))
        rows.append((node["name"], node["op"], inputs, " ".join(arguments)))
    return TextTable(("node", "operator", "reads", "arguments"), tuple(rows))


def _argument_text(value: Any) -> str:
    if isinstance(value, list):
        return "x".join(map(str, value))
    return str(value)


def layout_layers(layers: Sequence[LayerSurvey]) -> TextTable:
    """Lay out what can be done with each layer of an imported network."""
    rows = []
    for layer in layers:
        row = (
            layer.name,
            layer.operator,
            f"{layer.channels:,}",
            count_text(layer.macs),
            _prunable_text(layer),
            "yes" if layer.integer else "no",
        )
        rows.append(row)
    return TextTable(_LAYER_HEADERS, tuple(rows))


def _prunable_text(layer: LayerSurvey) -> str:
    if layer.prunable:
        return "yes"
    reason = layer.stays_because or "nothing is left to remove"
    return f"no: {reason}"
