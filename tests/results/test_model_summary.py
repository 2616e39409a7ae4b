from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from graphs import toy_graph

from fertool.gate_spec import GateSpec
from fertool.results import ModelSummary
from fertool.spec import InputSpec, Spec


def spec(**changes: Any) -> Spec:
    values = {
        "arch": "toy",
        "arch_args": {},
        "graph": toy_graph(),
        "input": InputSpec(),
        "classes": ("x", "y"),
    }
    return Spec(**{**values, **changes})


def shown(spec: Spec) -> dict[str, Any]:
    return ModelSummary.of(Path("m.pt"), 10, spec).as_dict()


def test_a_summary_has_channels_in_the_place_of_graphs() -> None:
    gates = GateSpec((toy_graph(), toy_graph(1)), 44, (0.5, 0.5))
    found = shown(spec(gates=gates))
    assert list(found)[:3] == ["file", "size_bytes", "arch"]
    assert "graph" not in found
    assert found["channels"] == {"conv": 3, "fc": 2}
    assert found["gates"] == {
        "profiles": ({"conv": 3, "fc": 2}, {"conv": 1, "fc": 2}),
        "hidden": 44,
        "shares": (0.5, 0.5),
        "kind": "statistics",
        "thresholds": None,
        "routing": None,
    }


def test_a_summary_has_what_a_header_left_out() -> None:
    header = json.loads(spec().to_json())
    del header["input"]["channels"]
    assert shown(Spec.from_json(json.dumps(header), "x")) == shown(spec())
