"""What stands in a file's graph and what stands in its tensors have to be the same network."""

import itertools
import time
from dataclasses import replace

import pytest
import torch
from graphs import toy_graph

from fertool.artifact import store
from fertool.errors import FertoolError
from fertool.graph.ir import Graph, make_node
from fertool.graph.network import Network
from fertool.models import load_model, with_random_weights
from fertool.spec import InputSpec, Spec

SPEC = Spec("toy", {}, toy_graph(), InputSpec(1, 8), ("a", "b"))


def tensors():
    torch.manual_seed(0)
    return dict(with_random_weights(Network(SPEC.graph, (1, 8, 8))).state_dict())


def load(tmp_path, spec, state):
    store.save(tmp_path / "m.pt", spec, state)
    return load_model(tmp_path / "m.pt")


def test_a_whole_file_is_read(tmp_path):
    _, network = load(tmp_path, SPEC, tensors())
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"conv.weight": None, "conv.bias": None}, "there are none of conv"),
        ({"conv.bias": None}, "conv.bias is missing"),
        ({"extra": torch.zeros(2)}, "extra is unknown"),
        (
            {"conv.weight": torch.zeros(4, 1, 3, 3)},
            r"conv.weight is float32\[4, 1, 3, 3\], the spec says",
        ),
        (
            {"fc.bias": torch.zeros(2, dtype=torch.float64)},
            r"fc.bias is float64\[2\], the spec says float32\[2\]",
        ),
    ],
)
def test_tensors_that_do_not_fit_the_graph_are_named(tmp_path, change, said):
    state = {name: tensor for name, tensor in {**tensors(), **change}.items() if tensor is not None}
    with pytest.raises(FertoolError, match=rf"m\.pt: the tensors do not fit the spec: .*{said}"):
        load(tmp_path, SPEC, state)


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        (toy_graph(classes=3), r"the graph makes \[3\] for one image, where there are 2 classes"),
        (replace(toy_graph(), output="mean"), r"the graph makes \[3\] for one image"),
        (replace(toy_graph(), output="conv"), r"the graph makes \[3, 8, 8\] for one image"),
    ],
)
def test_a_graph_whose_result_is_not_one_number_a_class_is_refused(tmp_path, graph, said):
    with pytest.raises(FertoolError, match=rf"m\.pt: {said}"):
        load(tmp_path, replace(SPEC, graph=graph), tensors())


def test_thousands_of_layers_without_tensors_are_refused_before_they_are_built(tmp_path):
    names = ["x", *(f"n{index}" for index in range(4_900))]
    layers = [
        make_node(to, "linear", [of], out_features=65_536) for of, to in itertools.pairwise(names)
    ]
    begun = time.process_time()
    with pytest.raises(FertoolError, match="there are none of n0, n1, n2, n3, n4 and 4,895 more"):
        load(tmp_path, replace(SPEC, graph=Graph("x", tuple(layers), names[-1])), tensors())
    assert time.process_time() - begun < 2


SLOW = [
    ("interpolate", {"size": (8, 8), "mode": "bicubic"}),
    ("normalize", {}),
    ("log_softmax", {"dim": 1}),
    ("batch_norm", {"affine": False}),
]


@pytest.mark.parametrize(("op", "args"), SLOW)
def test_a_thousand_operators_are_built_quickly(op, args):
    names = ["x", *(f"n{index}" for index in range(1_000))]
    nodes = [make_node(to, op, [of], **args) for of, to in itertools.pairwise(names)]
    begun = time.process_time()
    assert Network(Graph("x", tuple(nodes), names[-1]), (1, 8, 8)).shapes[names[-1]] == (1, 8, 8)
    assert time.process_time() - begun < 1
