"""Shapes by rules against those that PyTorch computes."""

import subprocess
import sys
from random import Random

import pytest
import torch
from torch.nn import functional as F

from fertool.graph.ir import make_node
from fertool.graph.shapes import known_result
from fertool.models import create, save_model
from fertool.spec import InputSpec


def _shape(op, args, *inputs):
    try:
        return list(known_result(make_node("node", op, ["x"] * len(inputs), **args), inputs).shape)
    except ValueError:
        return None


def _expected(function, *inputs, **args):
    try:
        return list(function(*inputs, **args).shape)
    except RuntimeError:
        return None


@pytest.mark.parametrize("op", ["max_pool2d", "avg_pool2d"])
def test_windows_of_pools_are_counted_and_refused_as_pytorch_does(op):
    draw = Random(op)
    refused = 0
    for _ in range(1000):
        args = {
            "kernel_size": (draw.randint(1, 5), draw.randint(1, 5)),
            "stride": (draw.randint(1, 4), draw.randint(1, 4)),
            "padding": (draw.randint(0, 2), draw.randint(0, 2)),
            "ceil_mode": draw.random() < 0.5,
        }
        if op == "max_pool2d":
            args["dilation"] = (draw.randint(1, 3), draw.randint(1, 3))
        images = torch.zeros(2, 3, draw.randint(1, 12), draw.randint(1, 12))
        expected = _expected(getattr(F, op), images, **args)
        refused += expected is None
        assert _shape(op, args, images.to("meta")) == expected, (args, images.shape)
    assert 50 < refused < 900


@pytest.mark.parametrize("dim", [1, -1])
def test_joined_tensors_have_the_shape_of_pytorch_or_are_refused(dim):
    draw = Random(dim)
    for _ in range(200):
        inputs = [
            torch.zeros(2, *(draw.randint(1, 2) for _ in range(3)))
            for _ in range(draw.randint(1, 3))
        ]
        expected = _expected(lambda *tensors: torch.cat(tensors, dim), *inputs)
        assert _shape("cat", {"dim": dim}, *(x.to("meta") for x in inputs)) == expected


def test_opening_a_model_imports_no_computer_algebra_system(tmp_path):
    # PyTorch imports it for shapes that it computes in Python: a second for every command.
    path = tmp_path / "model.pt"
    spec, network = create("shufflenet_v2_x0_5", {}, InputSpec(), ("a", "b"))
    save_model(path, spec, network)
    opening = "import sys, pathlib; from fertool.models import load_model"
    script = f"{opening}; load_model(pathlib.Path({str(path)!r})); print('sympy' in sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert ended.stdout == "False\n"
