"""Networks drawn at random from the whole kind: captured, cut, written, exported and read again,
they stay the same.
"""

import io
import os

import onnx
import pytest
import torch
from masking import masked, randomise_norms
from random_networks import random_network

from fertool.config.exporting import ExportConfig
from fertool.config.pruning import SelectionConfig
from fertool.cost import count
from fertool.data.pixels import to_input
from fertool.exporting import export_model
from fertool.graph.capture import capture
from fertool.graph.channels import trace_channels
from fertool.graph.from_onnx import graph_of_onnx
from fertool.models import load_model, save_model
from fertool.onnx_runtime import open_session, session_options
from fertool.pruning import Constraints, Targets, UnreachableError, plan_step
from fertool.spec import InputSpec, Spec

SIZE = 24
IMAGE = (3, SIZE, SIZE)
INPUT = InputSpec(3, SIZE, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
FIRST, COUNT = (
    int(os.environ.get(name, usual))
    for name, usual in (("FERTOOL_NETWORK_SEED", 0), ("FERTOOL_NETWORKS", 24))
)
SEEDS = range(FIRST, FIRST + COUNT)


@pytest.fixture(params=SEEDS)
def module(request):
    return randomise_norms(random_network(request.param, size=SIZE)).eval()


def images(n=3, kind=torch.float32):
    return torch.randn(n, *IMAGE, dtype=kind, generator=torch.Generator().manual_seed(7))


def cut_to(network, target):
    """Return the cut to this part of the MACs; None where channels that stay, or go together,
    do not allow it.
    """
    try:
        return plan_step(
            described(network),
            network,
            Constraints(Targets(macs=target)),
            SelectionConfig(round_to=1),
        )
    except UnreachableError:
        return None


def described(network):
    return Spec("random", {}, network.graph, INPUT, ("a", "b", "c"))


@torch.no_grad()
def test_a_captured_network_answers_as_its_module_and_so_does_its_file(module, tmp_path):
    network = capture(module, IMAGE).network(IMAGE)
    expected = module(images())
    torch.testing.assert_close(network(images()), expected, atol=1e-6, rtol=1e-6)
    assert {name for name, _ in network.named_parameters()} == {
        name for name, _ in module.named_parameters()
    }
    save_model(tmp_path / "model.pt", described(network), network)
    _, loaded = load_model(tmp_path / "model.pt")
    assert torch.equal(loaded(images()), network(images()))


@torch.no_grad()
def test_what_is_cut_answers_as_what_is_masked(module):
    network = capture(module, IMAGE).network(IMAGE)
    cut = next(filter(None, (cut_to(network, target) for target in (0.6, 0.9, 0.99))))
    assert (
        trace_channels(network).fixing_nodes
        or trace_channels(network).equal_parts
        or cut.plan.macs_ratio <= 0.6
    )
    smaller = cut.apply(network)
    got, expected = (
        part.double()(images(kind=torch.float64))
        for part in (smaller, masked(network, cut.plan.kept))
    )
    torch.testing.assert_close(got, expected, atol=1e-8, rtol=1e-8)
    counted = count(smaller, INPUT)
    assert (counted.macs, counted.params) == (cut.plan.macs, cut.plan.params)


@torch.no_grad()
def test_onnx_runtime_agrees_with_an_exported_network(module):
    network = capture(module, IMAGE).network(IMAGE)
    pixels = torch.randint(256, (3, *IMAGE), generator=torch.Generator().manual_seed(3)).to(
        torch.uint8
    )
    content = export_model(described(network), network, ExportConfig(simplify=False))
    (found,) = open_session(content, session_options(1), "test").run(
        ["logits"], {"images": pixels.numpy()}
    )
    expected = module(to_input(pixels, INPUT))
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=2e-4, rtol=2e-4)


@torch.no_grad()
def test_an_onnx_file_of_the_module_comes_in_as_the_same_network(module):
    buffer = io.BytesIO()
    torch.onnx.export(
        module,
        (images(2),),
        buffer,
        dynamo=False,
        opset_version=17,
        input_names=["x"],
        dynamic_axes={"x": {0: "n"}},
    )
    found = graph_of_onnx(onnx.load_from_string(buffer.getvalue()))
    network = found.captured.network(found.image)
    torch.testing.assert_close(network(images()), module(images()), atol=1e-4, rtol=1e-4)
