from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from graphs import network_of
from onnx.helper import get_node_attr_value
from settled import CLASSES, patterns
from torch import nn

from fertool.config.exporting import ExportConfig
from fertool.config.quantization import QuantizeConfig
from fertool.exporting import export_model
from fertool.models.blocks import SqueezeExcitation
from fertool.quant import quantize_model
from fertool.spec import InputSpec, Spec


class Block(nn.Module):
    """A first layer, then an inverted residual around a depthwise convolution."""

    def __init__(self, stem, hidden, *, kernel=5, stride=1, squeeze=True, shortcut=False):
        super().__init__()
        self.stem, width = nn.Sequential(stem, nn.ReLU()), stem.out_channels
        self.expand = nn.Sequential(nn.Conv2d(width, hidden, 1), nn.Hardswish())
        self.depthwise = nn.Conv2d(
            hidden, hidden, kernel, stride, kernel // 2, groups=hidden, bias=False
        )
        self.squeeze = (
            SqueezeExcitation(hidden, 4, scale_act=nn.Hardsigmoid) if squeeze else nn.Identity()
        )
        self.project, self.head = nn.Conv2d(hidden, 8, 1), nn.Linear(8, len(CLASSES))
        self.shortcut = shortcut

    def forward(self, x):
        hidden = self.expand(self.stem(x))
        filtered = self.depthwise(hidden)
        mixed = self.project(self.squeeze(filtered + hidden if self.shortcut else filtered))
        return self.head(mixed.mean([2, 3]))


def files(module, size):
    """Return the ONNX file of the quantised network, arranged and as it was."""
    network = network_of(module, (1, size, size))
    spec = Spec("net", {}, network.graph, InputSpec(1, size), CLASSES)
    quant, integer = quantize_model(
        spec, network, patterns(14, size=size), QuantizeConfig(calibration_images=14)
    )
    spec, options = replace(spec, quant=quant), ExportConfig(simplify=False)
    arranged = export_model(spec, integer, options, arranged=True)
    plain = replace(options, skipped_passes=("arrange-for-kernels",))
    return arranged, export_model(spec, integer, plain, arranged=True)


def logits(content, size):
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": patterns(21, size=size, seed=1).images.numpy()})[0]


def attribute(content, name):
    """That of each convolution, in their order."""
    graph = onnx.load_from_string(content).graph
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    return [
        get_node_attr_value(node, name) if name in {a.name for a in node.attribute} else 1
        for node in convolutions
    ]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize(("hidden", "kernel", "stride"), [(24, 5, 1), (5, 3, 2), (40, 3, 1)])
@pytest.mark.parametrize("squeeze", [True, False])
def test_depthwise_channels_fill_registers_and_change_no_bit(hidden, kernel, stride, squeeze):
    module = Block(nn.Conv2d(1, 6, 3, 3), hidden, kernel=kernel, stride=stride, squeeze=squeeze)
    arranged, plain = files(module, 18)
    assert np.array_equal(logits(arranged, 18), logits(plain, 18))
    assert sum(attribute(plain, "group")) == hidden + len(attribute(plain, "group")) - 1
    assert max(attribute(arranged, "group")) == -(-hidden // 16) * 16
    # The file keeps the weights as they are.
    assert len(arranged) < len(plain) + 1500


def test_a_gate_that_makes_and_reads_the_same_channels_changes_no_bit():
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(24, 24, 1)

        def forward(self, x):
            return x * torch.sigmoid(self.conv(x.mean([2, 3], keepdim=True)))

    module = Block(nn.Conv2d(1, 6, 3, 3), 24)
    module.squeeze = Gate()
    arranged, plain = files(module, 18)
    assert np.array_equal(logits(arranged, 18), logits(plain, 18))
    assert max(attribute(arranged, "group")) == 32


def test_channels_that_are_added_to_others_stay():
    arranged, plain = files(Block(nn.Conv2d(1, 6, 3, 3), 24, shortcut=True), 18)
    assert attribute(arranged, "group") == attribute(plain, "group")
    full, _ = files(Block(nn.Conv2d(1, 6, 3, 3), 32), 18)
    assert max(attribute(full, "group")) == 32


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_first_layers_read_four_pixels_and_change_no_bit(kernel, stride):
    module = Block(nn.Conv2d(1, 6, kernel, stride, kernel // 2), 16)
    arranged, plain = files(module, 16)
    assert np.array_equal(logits(arranged, 16), logits(plain, 16))
    assert attribute(plain, "strides")[0] == [stride, stride] or stride == 1
    rows, columns = attribute(arranged, "kernel_shape")[0]
    assert rows == kernel
    assert attribute(arranged, "strides")[0] == [stride, 1] or stride == 1
    # The window of all the columns of one block, in whole blocks of pixels; 6 channels are so few
    # that they take 8.
    first, last = -(kernel // 2), (8 // stride - 1) * stride - kernel // 2 + kernel - 1
    assert columns == last // 8 - first // 8 + 1


@pytest.mark.parametrize(
    ("stem", "size"),
    [
        (nn.Conv2d(1, 6, 3, 2, 1), 18),
        (nn.Conv2d(1, 6, 3, 2, 0), 16),
        (nn.Conv2d(1, 6, 3, 1, 2, 2), 16),
    ],
    ids=["size", "padding", "dilation"],
)
def test_first_layers_that_do_not_divide_stay(stem, size):
    arranged, plain = files(Block(stem, 16), size)
    assert attribute(arranged, "kernel_shape")[0] == attribute(plain, "kernel_shape")[0]
    assert np.array_equal(logits(arranged, size), logits(plain, size))


@pytest.mark.parametrize(("size", "widened"), [(36, True), (34, False), (16, False)])
def test_gates_of_large_maps_multiply_four_pixels_and_change_no_bit(size, widened):
    arranged, plain = files(Block(nn.Conv2d(1, 8, 3, 1, 1), 16), size)
    assert np.array_equal(logits(arranged, size), logits(plain, size))
    graph = onnx.load_from_string(arranged).graph
    joined = [
        node
        for node in graph.node
        if node.op_type == "Concat" and get_node_attr_value(node, "axis") == 1
    ]
    assert [len(node.input) for node in joined] == [4] * widened
