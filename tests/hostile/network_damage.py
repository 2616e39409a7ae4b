"""Damaged graphs of model files, as JSON texts: whole but for one place, or of another meaning."""

import json
from collections.abc import Callable
from random import Random
from typing import Any

from json_damage import damages

Graph = dict[str, Any]

NUMBERS = (0, 1, -1, 2, 3, 7, 63, 64, 1000, 1024, 65_536, 2**31, 10**9, 0.5, 1e30)
OPERATORS = (
    *(
        "conv2d",
        "conv1d",
        "conv_transpose2d",
        "linear",
        "batch_norm",
        "layer_norm",
        "group_norm",
        "prelu",
    ),
    *(
        "parameter",
        "constant",
        "relu",
        "clamp",
        "pow",
        "dropout",
        "stochastic_depth",
        "add",
        "div",
        "maximum",
    ),
    *(
        "max_pool2d",
        "avg_pool2d",
        "adaptive_avg_pool2d",
        "interpolate",
        "pad",
        "mean",
        "amax",
        "identity",
    ),
    *(
        "flatten",
        "reshape",
        "expand",
        "permute",
        "transpose",
        "squeeze",
        "cat",
        "stack",
        "chunk",
        "split",
        "unbind",
    ),
    *(
        "getitem",
        "select",
        "slice",
        "channel_shuffle",
        "pixel_shuffle",
        "roll",
        "softmax",
        "matmul",
        "norm",
    ),
    *("scaled_dot_product_attention", "eval", "os.system", ""),
)
NAMES = (
    "forward",
    "training",
    "graph",
    "steps",
    "_modules",
    "a..b",
    ".x",
    "x.",
    "x",
    "tap relu",
    "grids",
    "\u001b[31m",
)


def damaged_graph(graph: Graph, draw: Random) -> tuple[str, str]:
    """Return what was done, and the text of a graph damaged in one place."""
    if draw.random() < 0.3:
        return next(damages(graph, draw))
    changed = json.loads(json.dumps(graph))
    what = draw.choice(_DAMAGES)(changed, draw)
    return what, json.dumps(changed)


def _node(graph: Graph, draw: Random) -> Graph:
    found: Graph = draw.choice(graph["nodes"])
    return found


def _another_operator(graph: Graph, draw: Random) -> str:
    node = _node(graph, draw)
    node["op"] = draw.choice(OPERATORS)
    if draw.random() < 0.5:
        node["args"] = draw.choice(graph["nodes"]).get("args", {})
    return f"{node['name']} is {node['op']}"


def _another_number(graph: Graph, draw: Random) -> str:
    node = draw.choice([node for node in graph["nodes"] if node.get("args")])
    key = draw.choice(list(node["args"]))
    value = draw.choice(NUMBERS)
    if isinstance(node["args"][key], list):
        place = draw.randrange(len(node["args"][key]))
        node["args"][key][place] = value
    else:
        node["args"][key] = value
    return f"{node['name']} with {key} = {value}"


def _another_input(graph: Graph, draw: Random) -> str:
    node = draw.choice([node for node in graph["nodes"] if node.get("in")])
    source = draw.choice(
        [*graph["inputs"], "nowhere", *(other["name"] for other in graph["nodes"])]
    )
    node["in"][draw.randrange(len(node["in"]))] = source
    return f"{node['name']} reads {source}"


def _more_inputs(graph: Graph, draw: Random) -> str:
    node = draw.choice([node for node in graph["nodes"] if node.get("in")])
    count = draw.choice([2, 3, 1000, 100_000])
    node["in"] = node["in"] * count
    return f"{node['name']} reads {count} times as much"


def _another_name(graph: Graph, draw: Random) -> str:
    """Under another name everywhere, so that the graph as such is whole."""
    old, new = (
        _node(graph, draw)["name"],
        draw.choice([*NAMES, _node(graph, draw)["name"], "a" + ".a" * 120]),
    )
    for node in graph["nodes"]:
        node["name"] = new if node["name"] == old else node["name"]
        node["in"] = [new if source == old else source for source in node.get("in", [])]
    graph["outputs"] = [new if name == old else name for name in graph["outputs"]]
    return f"{old} under the name {new[:20]!r}"


def _without_a_node(graph: Graph, draw: Random) -> str:
    """What read the node reads what the node read."""
    node = _node(graph, draw)
    graph["nodes"].remove(node)
    source = (node.get("in") or graph["inputs"])[0]
    for other in graph["nodes"]:
        other["in"] = [source if name == node["name"] else name for name in other.get("in", [])]
    return f"without {node['name']}"


def _one_more_node(graph: Graph, draw: Random) -> str:
    """A node without arguments behind another one, before all that read it."""
    place = draw.randrange(len(graph["nodes"]))
    before = graph["nodes"][place]["name"]
    op = draw.choice(OPERATORS)
    for node in graph["nodes"][place + 1 :]:
        node["in"] = ["more" if name == before else name for name in node.get("in", [])]
    graph["nodes"].insert(place + 1, {"name": "more", "op": op, "in": [before]})
    return f"{op} behind {before}"


def _another_order(graph: Graph, draw: Random) -> str:
    if draw.random() < 0.5:
        graph["nodes"].reverse()
        return "nodes in reverse order"
    first, second = draw.randrange(len(graph["nodes"])), draw.randrange(len(graph["nodes"]))
    nodes = graph["nodes"]
    nodes[first], nodes[second] = nodes[second], nodes[first]
    return f"nodes {first} and {second} in each other's place"


def _another_output(graph: Graph, draw: Random) -> str:
    graph["outputs"] = [draw.choice([*graph["inputs"], "nowhere", _node(graph, draw)["name"]])]
    return f"the result is {graph['outputs'][0]}"


def _another_name_of_the_images(graph: Graph, draw: Random) -> str:
    graph["inputs"] = [draw.choice([*NAMES, _node(graph, draw)["name"]])]
    return f"the images are {graph['inputs'][0]!r}"


def _twice(graph: Graph, draw: Random) -> str:
    graph["nodes"] += graph["nodes"]
    return "all nodes twice"


def _very_many(graph: Graph, draw: Random) -> str:
    """A chain of one operator before the result; the slowest to build are among them."""
    count = draw.choice([1_000, 4_500, 1_000_000])
    op, args = draw.choice(
        [
            ("relu", {}),
            ("interpolate", {"size": [48, 48], "mode": "bicubic"}),
            ("linear", {"out_features": 48}),
            ("conv2d", {"out_channels": 1, "kernel_size": [1, 1]}),
            ("normalize", {}),
            ("split", {"sizes": [1] * 48, "dim": 3}),
        ]
    )
    reads = [graph["inputs"][0], *(f"many{index}" for index in range(count - 1))]
    if op == "split":
        reads = [graph["inputs"][0]] * count
    chain = [
        {"name": f"many{k}", "op": op, "in": [source], "args": args}
        for k, source in enumerate(reads)
    ]
    graph["nodes"] = chain + graph["nodes"]
    return f"{count} times {op}"


def _huge(graph: Graph, draw: Random) -> str:
    """A graph that fits together and would need a lot of memory."""
    wide = {
        "name": "wide",
        "op": "expand",
        "in": graph["inputs"],
        "args": {"shape": [-1, 65_536, 48, 48]},
    }
    layers = [
        {
            "name": f"wide{k}",
            "op": "conv2d",
            "in": ["wide"],
            "args": {"out_channels": 65_536, "kernel_size": [7, 7]},
        }
        for k in range(3)
    ]
    mixed = {
        "name": "large",
        "op": "conv2d",
        "in": graph["inputs"],
        "args": {"out_channels": 50_000, "kernel_size": [1, 1]},
    }
    graph["nodes"] = draw.choice([[wide, *layers], [mixed], [wide]]) + graph["nodes"]
    return "something huge in front"


_DAMAGES: tuple[Callable[[Graph, Random], str], ...] = (
    _another_operator,
    _another_operator,
    _another_number,
    _another_number,
    _another_number,
    _another_input,
    _more_inputs,
    _another_name,
    _without_a_node,
    _one_more_node,
    _one_more_node,
    _another_order,
    _another_output,
    _another_name_of_the_images,
    _twice,
    _very_many,
    _huge,
)
