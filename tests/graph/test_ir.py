import json
import time

import pytest
import torch
from graphs import network_of, toy_graph
from torch import nn

from fertool.errors import FertoolError
from fertool.graph.ir import MAX_NODES, Graph, make_node
from fertool.graph.network import Network
from fertool.graph.operator_types import MAX_PARTS
from fertool.graph.operators import OPERATORS
from fertool.header_json import canonical_json
from fertool.strict_json import WrongContentError

IMAGE = (1, 8, 8)
CONV = {"out_channels": 3, "kernel_size": [3, 3], "padding": [1, 1]}


def as_json(graph):
    return json.loads(canonical_json(graph.to_builtins()))


def test_a_graph_comes_back_from_json():
    graph = toy_graph()
    found = as_json(graph)
    assert found == {
        "inputs": ["x"],
        "nodes": [
            {"name": "conv", "op": "conv2d", "in": ["x"], "args": CONV},
            {"name": "relu", "op": "relu", "in": ["conv"]},
            {"name": "mean", "op": "mean", "in": ["relu"], "args": {"dim": [2, 3]}},
            {"name": "fc", "op": "linear", "in": ["mean"], "args": {"out_features": 2}},
        ],
        "outputs": ["fc"],
    }
    assert Graph.from_builtins(found) == graph


def test_what_is_left_out_and_what_is_written_out_are_the_same_graph():
    """Arguments at their default, however they are written, give one text,
    so that a file has one digest.
    """
    written = as_json(toy_graph())
    for node in written["nodes"]:
        node["args"] = {**node.get("args", {})}
        for name, argument in OPERATORS[node["op"]].arguments.items():
            node["args"].setdefault(name, argument.default)
    written["nodes"][0]["args"] = dict(reversed(written["nodes"][0]["args"].items()))
    read = Graph.from_builtins(json.loads(json.dumps(written)))
    assert read == toy_graph()
    assert canonical_json(read.to_builtins()) == canonical_json(toy_graph().to_builtins())


def test_every_kind_of_argument_comes_back():
    nodes = (
        make_node("pad", "pad", ["x"], pad=(1, -1, 2, 0), mode="reflect"),
        make_node("gelu", "gelu", ["pad"], approximate="tanh"),
        make_node("clamp", "clamp", ["gelu"], max=6.5),
        make_node("scaled", "mul", ["clamp"], other=-0.25),
        make_node("parts", "split", ["scaled"], sizes=(3, 7), dim=2),
        make_node("first", "getitem", ["parts"], index=0),
        make_node("cut", "slice", ["first"], dim=-1, start=-4, step=2),
        make_node("flat", "reshape", ["cut"], shape=(0, -1)),
    )
    graph = Graph("x", nodes, "flat")
    assert Graph.from_builtins(as_json(graph)) == graph
    assert Network(graph, IMAGE)(torch.randn(2, *IMAGE)).shape == (2, 6)


def node(name="n", op="relu", reads=("x",), **args):
    return {"name": name, "op": op, "in": list(reads), "args": args}


def graph_of(*nodes, output="n", inputs=("x",)):
    return {"inputs": list(inputs), "nodes": list(nodes), "outputs": [output]}


HOSTILE = {
    "unknown operator": (
        graph_of(node(op="__import__")),
        'node "n" has the unknown operator "__import__"',
    ),
    "too few inputs": (
        graph_of(node(op="add", reads=())),
        'node "n": add reads 1 to 2 inputs, not 0',
    ),
    "too many inputs": (graph_of(node(reads=["x"] * 3)), 'node "n": relu reads 1 inputs, not 3'),
    "far too many inputs": (graph_of(node(op="cat", reads=["x"] * 2000, dim=1)), "length <= 1024"),
    "a parameter that reads": (
        graph_of(node(op="parameter", shape=[1])),
        "parameter reads 0 inputs, not 1",
    ),
    "reads itself": (graph_of(node(reads=["n"])), 'node "n" reads "n", which is not before it'),
    "reads what follows": (
        graph_of(node("a", reads=["n"]), node(reads=["a"])),
        'node "a" reads "n", which is not before it',
    ),
    "reads what is not there": (
        graph_of(node(reads=["y"])),
        'reads "y", which is not before it',
    ),
    "10 ** 9 channels": (
        graph_of(node(op="conv2d", out_channels=10**9, kernel_size=[1, 1])),
        'node "n" (conv2d): `out_channels` is 1000000000, expected int <= 65536',
    ),
    "no channels": (
        graph_of(node(op="linear", out_features=0)),
        "`out_features` is 0, expected int >= 1",
    ),
    "negative stride": (
        graph_of(node(op="conv2d", out_channels=1, kernel_size=[1, 1], stride=[-1, 1])),
        "`stride[0]` is -1, expected int >= 1",
    ),
    "one name twice": (graph_of(node(), node(reads=["n"])), 'the name "n" is used twice'),
    "the name of the images": (graph_of(node("x"), output="x"), 'the name "x" is used twice'),
    "no such output": (
        graph_of(node(), output="m"),
        'the output "m" is no node with a single result',
    ),
    "the images as output": (
        graph_of(node(), output="x"),
        'the output "x" is no node with a single result',
    ),
    "several results as output": (
        graph_of(node(op="chunk", chunks=2, dim=1)),
        'the output "n" is no node with a single result',
    ),
    "two outputs": ({**graph_of(node()), "outputs": ["n", "n"]}, "`outputs` is a list of 2"),
    "two inputs": (graph_of(node(), inputs=["x", "y"]), "`inputs` is a list of 2"),
    "no nodes": (graph_of(output="x"), "`nodes` is a list of 0"),
    "an argument of another type": (
        graph_of(node(op="linear", out_features="3")),
        '`out_features` is "3", expected int',
    ),
    "a number that is true": (
        graph_of(node(op="linear", out_features=True)),
        "`out_features` is true, expected int",
    ),
    "a list too short": (
        graph_of(node(op="conv2d", out_channels=1, kernel_size=[1])),
        "`kernel_size` is a list of 1",
    ),
    "an argument missing": (graph_of(node(op="linear")), "`out_features` is missing"),
    "an unknown argument": (
        graph_of(node(**{"\x1b[31m": 1})),
        'relu has no argument "\\u001b[31m"',
    ),
    "an unknown choice": (
        graph_of(node(op="gelu", approximate="eval")),
        '`approximate` is "eval", which is not known',
    ),
    "infinitely steep": (
        graph_of(node(op="leaky_relu", negative_slope=1e300)),
        "expected float <= 1e+30",
    ),
    "a sum without the other": (
        graph_of(node(op="add")),
        "add reads two inputs, or one and a number",
    ),
    "a sum with two others": (
        graph_of(node(op="add", reads=["x", "x"], other=1)),
        "two inputs, or one and a number",
    ),
    "a clamp without ends": (
        graph_of(node(op="clamp")),
        "clamp has no lower bound below an upper bound",
    ),
    "ends the wrong way round": (
        graph_of(node(op="hardtanh", min_val=2.0)),
        "hardtanh has no lower bound below",
    ),
    "an item of a single result": (
        graph_of(node(op="getitem", index=0)),
        'node "n" (getitem) reads "x", which is a single result',
    ),
    "several results read as one": (
        graph_of(node("c", "chunk", chunks=2, dim=1), node(reads=["c"])),
        'node "n" (relu) reads "c", which is a tuple of results',
    ),
    "a thousand results": (
        graph_of(node(op="chunk", chunks=1000, dim=1)),
        f"expected int <= {MAX_PARTS}",
    ),
    "an unknown key": ({**graph_of(node()), "code": "x"}, "unknown keys: code"),
    "an unknown key of a node": (graph_of({**node(), "code": "x"}), "unknown keys: nodes[0].code"),
    "no graph": ([1], "the whole is a list of 1"),
    "a name with an empty part": (
        graph_of(node("a..b"), output="a..b"),
        'the name "a..b" is not 1 to 16 parts',
    ),
    "a name that begins with a dot": (
        graph_of(node(".x"), output=".x"),
        'the name ".x" is not 1 to 16 parts',
    ),
    "a name that ends with a dot": (
        graph_of(node("x."), output="x."),
        'the name "x." is not 1 to 16 parts',
    ),
    "a name of 100 parts": (graph_of(node("a" + ".a" * 99)), "is not 1 to 16 parts between dots"),
    "an endless name": (graph_of(node("a" * 300)), "expected text of length <= 256"),
    "10 ** 6 nodes": (graph_of(*[node(str(k)) for k in range(10**6)]), f"length <= {MAX_NODES}"),
    "a million edges": (
        graph_of(*[node(f"{k}", "cat", ["x"] * 1000, dim=1) for k in range(1000)], output="0"),
        "the nodes have more than 50,000 inputs",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_graphs_are_one_error_each(kind):
    data, said = HOSTILE[kind]
    begun = time.process_time()
    with pytest.raises(WrongContentError) as caught:
        Graph.from_builtins(data)
    assert said in str(caught.value)
    assert str(caught.value).isprintable()
    assert time.process_time() - begun < 2


MISFITS = {
    "no such axis": (graph_of(node(op="flatten", start_dim=7)), "flatten"),
    "sums of other shapes": (
        graph_of(
            node("a", "conv2d", out_channels=3, kernel_size=[2, 2]),
            node(op="add", reads=["x", "a"]),
        ),
        "add",
    ),
    "a kernel larger than its map": (
        graph_of(node(op="conv2d", out_channels=1, kernel_size=[9, 9])),
        "conv2d",
    ),
    "groups that do not divide": (
        graph_of(node(op="conv2d", out_channels=4, kernel_size=[1, 1], groups=2)),
        "in_channels must be divisible by groups",
    ),
    "group norm that does not divide": (
        graph_of(node(op="group_norm", num_groups=3)),
        "group_norm",
    ),
    "a huge map": (graph_of(node(op="interpolate", size=[65_536, 65_536])), "values for one image"),
    "huge in between": (
        graph_of(
            node("a", "expand", shape=[-1, 2_000, 8, 8]),
            node("b", "reshape", ["a"], shape=[0, 128_000, 1]),
            node("c", "reshape", ["a"], shape=[0, 1, 128_000]),
            node(op="matmul", reads=["b", "c"]),
        ),
        "values for one image",
    ),
    "an item that is not there": (
        graph_of(node("c", "chunk", chunks=1, dim=1), node(op="getitem", reads=["c"], index=9)),
        "getitem",
    ),
    "parts of another sum": (
        graph_of(node("c", "split", sizes=[3, 3], dim=2), node(op="getitem", reads=["c"], index=0)),
        "split",
    ),
    "a hundred parts": (
        graph_of(
            node("r", "reshape", shape=[0, 64, 1]),
            node("s", "expand", ["r"], shape=[-1, 64, 300]),
            node("u", "unbind", ["s"], dim=2),
            node(op="getitem", reads=["u"], index=0),
        ),
        "more than 64 results",
    ),
    "batch norm of five axes": (
        graph_of(node("a", "unsqueeze", dim=1), node(op="batch_norm", reads=["a"])),
        "5 axes",
    ),
}


@pytest.mark.parametrize("kind", MISFITS)
def test_nodes_that_do_not_fit_are_one_error_when_the_network_is_built(kind):
    data, said = MISFITS[kind]
    graph = Graph.from_builtins(data)
    with pytest.raises(FertoolError, match="the graph does not fit together: node ") as caught:
        Network(graph, IMAGE)
    assert said in caught.value.message
    assert caught.value.message.isprintable()


RESERVED = (
    "forward",
    "training",
    "graph",
    "steps",
    "image",
    "layer",
    "train",
    "grids",
    "_modules",
    "tap relu",
)


@pytest.mark.parametrize("name", RESERVED)
@pytest.mark.parametrize("inside", ["", ".conv"])
def test_layers_that_would_be_what_a_network_has_of_its_own_are_refused(name, inside):
    data = graph_of(node(name + inside, "conv2d", **CONV), output=name + inside)
    with pytest.raises(FertoolError, match=r"the graph does not fit together: .* is taken"):
        Network(Graph.from_builtins(data), IMAGE)


@pytest.mark.parametrize("name", ["a.forward", "a.training", "a.weight.b", "a.bias"])
def test_layers_that_would_be_what_another_layer_has_are_refused(name):
    data = graph_of(
        node("a", "conv2d", **CONV), node(name, "conv2d", reads=["a"], **CONV), output=name
    )
    with pytest.raises(FertoolError, match=r"the graph does not fit together: .* is taken"):
        Network(Graph.from_builtins(data), IMAGE)


@pytest.mark.parametrize("order", [["a", "a.weight"], ["a.weight", "a"]])
def test_tensors_of_one_name_are_refused(order):
    found = {
        "a": node("a", "conv2d", **CONV),
        "a.weight": node("a.weight", "parameter", (), shape=[1]),
    }
    data = graph_of(*(found[name] for name in order), node("n", "add", ["a", "a.weight"]))
    with pytest.raises(FertoolError, match="the name is taken"):
        Network(Graph.from_builtins(data), IMAGE)


def test_what_has_no_tensors_may_have_any_name():
    data = graph_of(*(node(name) for name in RESERVED), node("n", "conv2d", ["forward"], **CONV))
    assert Network(Graph.from_builtins(data), IMAGE).shapes["n"] == (3, 8, 8)


def test_a_layer_inside_another_may_run_before_or_after_it():
    for order in (["fc", "fc.inner"], ["fc.inner", "fc"]):
        first, second = order
        nodes = [
            make_node("flat", "flatten", ["x"], start_dim=1),
            make_node(first, "linear", ["flat"], out_features=4),
        ]
        graph = Graph("x", (*nodes, make_node(second, "linear", [first], out_features=2)), second)
        network = Network(graph, IMAGE)
        assert set(network.state_dict()) == {
            f"{name}.{kind}" for name in order for kind in ("weight", "bias")
        }
        assert network.to_empty(device="cpu")(torch.zeros(2, *IMAGE)).shape == (2, 2)


def test_modules_with_names_that_networks_have_get_others():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU())
            self.graph, self.steps = nn.Linear(128, 4), nn.Parameter(torch.ones(4))

        def forward(self, x):
            return self.graph(self.layer(x).flatten(1)) * self.steps

    module = Own()
    network = network_of(module, IMAGE)
    assert set(network.state_dict()) == {
        "layer_.0.weight",
        "layer_.0.bias",
        "graph_.weight",
        "graph_.bias",
        "steps_",
    }
    images = torch.randn(3, *IMAGE)
    torch.testing.assert_close(network(images), module(images))
