"""ONNX files in: what the imported graph computes, how its nodes are called,
and what is refused.
"""

import io
import warnings

import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fertool.graph.capture import capture
from fertool.graph.from_onnx import graph_of_onnx
from fertool.models import architecture_names
from fertool.models.architecture import get_architecture, resolve_arch_args
from fertool.onnx_runtime import open_session, session_options
from fertool.spec import InputSpec

TOLERANCE = 1e-5
SHAPE = (4, 8, 8)


def exported(module, shape=SHAPE, opset=17, *, keep_batch_norm=False, free_batch=True):
    """Return a module as ONNX, as torch.onnx.export writes it without dynamo."""
    options = {}
    if keep_batch_norm:
        options = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
    if free_batch:
        options["dynamic_axes"] = {"images": {0: "batch"}}
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            (torch.rand(2 if free_batch else 1, *shape),),
            buffer,
            dynamo=False,
            opset_version=opset,
            input_names=["images"],
            **options,
        )
    return onnx.load_from_string(buffer.getvalue())


def run(model, images):
    session = open_session(model.SerializeToString(), session_options(1), "test")
    name = session.get_inputs()[0].name
    return torch.from_numpy(session.run(None, {name: images.numpy()})[0])


def difference(found, model, module=None, batches=(1, 3)):
    """Return the largest difference to ONNX Runtime, and to the module."""
    torch.manual_seed(1)
    network, worst = found.captured.network(found.image), 0.0
    for batch in batches:
        images = torch.rand(batch, *found.image) * 4 - 2
        with torch.no_grad():
            results = network(images)
            references = [run(model, images)] + ([module(images)] if module is not None else [])
        for reference in references:
            assert results.shape == reference.shape
            scale = max(1.0, float(reference.abs().max()))
            worst = max(worst, float((results - reference).abs().max()) / scale)
    return worst


def ops(found):
    return [node.op for node in found.captured.graph.nodes]


class Does(nn.Module):
    """A function as a module, with layers under their own names."""

    def __init__(self, function, **layers):
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.function(self, x)


def trained(module):
    """Give norms numbers that no other norm has."""
    torch.manual_seed(0)
    for name, tensor in module.state_dict().items():
        if name.endswith("running_var"):
            nn.init.uniform_(tensor, 0.5, 2)
        elif tensor.dim() == 1 and tensor.is_floating_point():
            nn.init.normal_(tensor)
    return module


def layer(kind, *args, **options):
    return lambda: Does(lambda m, x: m.part(x), part=kind(*args, **options))


def function(call):
    return lambda: Does(lambda m, x: call(x))


LAYERS = {
    "conv2d": (layer(nn.Conv2d, 4, 6, 3, 2, 1), ["conv2d"]),
    "conv2d without bias": (layer(nn.Conv2d, 4, 6, (1, 3), bias=False), ["conv2d"]),
    "conv2d in groups": (
        layer(nn.Conv2d, 4, 8, 3, dilation=2, groups=2, padding=(2, 1)),
        ["conv2d"],
    ),
    "conv2d with even kernel": (layer(nn.Conv2d, 4, 4, 4, padding="same"), ["pad", "conv2d"]),
    "conv1d": (
        lambda: Does(lambda m, x: m.part(x.flatten(2)), part=nn.Conv1d(4, 5, 3, 2, 1)),
        ["flatten", "conv1d"],
    ),
    "conv_transpose2d": (
        layer(nn.ConvTranspose2d, 4, 6, 3, 2, 1, output_padding=1, groups=2),
        ["conv_transpose2d"],
    ),
    "linear": (
        lambda: Does(lambda m, x: m.part(x.flatten(1)), part=nn.Linear(256, 5)),
        ["flatten", "linear"],
    ),
    "linear without bias": (
        lambda: Does(lambda m, x: m.part(x.flatten(1)), part=nn.Linear(256, 5, bias=False)),
        ["flatten", "linear"],
    ),
    "linear over the last axis": (layer(nn.Linear, 8, 5), ["linear"]),
    "batch norm": (layer(nn.BatchNorm2d, 4, eps=1e-3, momentum=0.03), ["batch_norm"]),
    "batch norm of features": (
        lambda: Does(lambda m, x: m.part(x.mean((2, 3))), part=nn.BatchNorm1d(4)),
        ["mean", "batch_norm"],
    ),
    "layer norm": (layer(nn.LayerNorm, 8), ["layer_norm"]),
    "layer norm over axes": (layer(nn.LayerNorm, [8, 8]), ["layer_norm"]),
    "group norm": (layer(nn.GroupNorm, 2, 4), ["group_norm"]),
    "prelu": (layer(nn.PReLU, 4), ["prelu"]),
    "shared prelu": (layer(nn.PReLU), ["prelu"]),
}
FUNCTIONS = {
    "relu": (F.relu, ["relu"]),
    "relu6": (F.relu6, ["relu6"]),
    "hardtanh": (lambda x: F.hardtanh(x, -0.5, 0.75), ["clamp"]),
    "clamp below": (lambda x: x.clamp(min=0.25), ["clamp"]),
    "clamp above": (lambda x: x.clamp(max=0.25), ["clamp"]),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.2), ["leaky_relu"]),
    "elu": (lambda x: F.elu(x, 0.7), ["elu"]),
    "selu": (F.selu, ["selu"]),
    "gelu": (F.gelu, ["gelu"]),
    "gelu by tanh": (lambda x: F.gelu(x, approximate="tanh"), ["gelu"]),
    "silu": (F.silu, ["silu"]),
    "mish": (F.mish, ["mish"]),
    "softplus": (F.softplus, ["softplus"]),
    "tanh": (torch.tanh, ["tanh"]),
    "sigmoid": (torch.sigmoid, ["sigmoid"]),
    "hardsigmoid": (F.hardsigmoid, ["hardsigmoid"]),
    "hardswish": (F.hardswish, ["hardswish"]),
    "hardswish by hand": (lambda x: x * F.relu6(x + 3) / 6, ["hardswish"]),
    "hardsigmoid by hand": (lambda x: F.relu6(x + 3) / 6, ["hardsigmoid"]),
    "softmax": (lambda x: x.softmax(3), ["softmax"]),
    "log_softmax": (lambda x: x.log_softmax(-1), ["log_softmax"]),
    "abs": (torch.abs, ["abs"]),
    "neg": (torch.neg, ["neg"]),
    "exp": (torch.exp, ["exp"]),
    "sqrt": (lambda x: x.abs().sqrt(), ["abs", "sqrt"]),
    "pow": (lambda x: x**3, ["pow"]),
    "add": (lambda x: x + 0.5 + x, ["add", "add"]),
    "number less tensor": (lambda x: 2 - x, ["mul", "add"]),
    "number by tensor": (lambda x: 1 / (x.abs() + 1), ["abs", "add", "pow"]),
    "mul and div": (lambda x: x * x / (x.abs() + 2), ["mul", "abs", "add", "div"]),
    "maximum": (lambda x: torch.maximum(x, -x), ["neg", "maximum"]),
    "minimum": (lambda x: torch.minimum(x, x * 2), ["mul", "minimum"]),
    "max_pool2d": (lambda x: F.max_pool2d(x, 3, 2, 1), ["max_pool2d"]),
    "max_pool2d with ceil": (lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True), ["max_pool2d"]),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 3, 2, 1), ["avg_pool2d"]),
    "avg_pool2d of what is there": (
        lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
        ["avg_pool2d"],
    ),
    "global average": (
        lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1),
        ["adaptive_avg_pool2d", "flatten"],
    ),
    "global maximum": (lambda x: F.adaptive_max_pool2d(x, 1), ["max_pool2d"]),
    "adaptive average": (lambda x: F.adaptive_avg_pool2d(x, 2), ["avg_pool2d"]),
    "mean": (lambda x: x.mean((2, 3), keepdim=True), ["mean"]),
    "sum": (lambda x: x.sum(1), ["sum"]),
    "amax": (lambda x: x.amax((2, 3)), ["amax"]),
    "norm": (lambda x: x.norm(2, 1, keepdim=True), ["norm"]),
    "normalize": (F.normalize, ["norm", "clamp", "div"]),
    "flatten": (lambda x: x.flatten(1), ["flatten"]),
    "view by size": (lambda x: x.view(x.size(0), -1), ["flatten"]),
    "view with sizes": (lambda x: x.view(x.size(0), x.size(1) * 2, -1), ["reshape"]),
    "permute": (lambda x: x.permute(0, 2, 3, 1), ["permute"]),
    "permute there and back": (
        lambda x: F.relu(x.permute(0, 2, 3, 1).permute(0, 3, 1, 2)),
        ["relu"],
    ),
    "squeeze": (lambda x: x.mean(1, keepdim=True).squeeze(1), ["mean", "squeeze"]),
    "unsqueeze": (lambda x: x.unsqueeze(1), ["unsqueeze"]),
    "cat": (lambda x: torch.cat([x, x.relu()], 1), ["relu", "cat"]),
    "chunk": (lambda x: torch.cat(x.chunk(2, 1)[::-1], 1), ["split", "getitem", "getitem", "cat"]),
    "split": (lambda x: x.split([1, 3], 1)[1], ["split", "getitem"]),
    "slice": (lambda x: x[:, 1:3, ::2], ["slice", "slice"]),
    "select": (lambda x: x[:, 2], ["select"]),
    "flip": (lambda x: x.flip(1), ["flip"]),
    "pad": (lambda x: F.pad(x, (1, 2, 0, 1), value=0.5), ["pad"]),
    "reflect": (lambda x: F.pad(x, (1, 2, 2, 1), mode="reflect"), ["pad"]),
    "replicate": (lambda x: F.pad(x, (1, 2, 2, 1), mode="replicate"), ["pad"]),
    "nearest": (lambda x: F.interpolate(x, scale_factor=2), ["interpolate"]),
    "nearest to size": (lambda x: F.interpolate(x, (12, 20)), ["interpolate"]),
    "bilinear": (
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False),
        ["interpolate"],
    ),
    "bilinear with corners": (
        lambda x: F.interpolate(x, (12, 20), mode="bilinear", align_corners=True),
        ["interpolate"],
    ),
    "bicubic": (lambda x: F.interpolate(x, (12, 20), mode="bicubic"), ["interpolate"]),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), ["pixel_shuffle"]),
    "pixel_unshuffle": (lambda x: F.pixel_unshuffle(x, 2), ["reshape", "permute", "reshape"]),
    "channel_shuffle": (
        lambda x: x.view(x.size(0), 2, 2, 8, 8).transpose(1, 2).reshape(x.size(0), 4, 8, 8),
        ["channel_shuffle"],
    ),
    "matmul": (lambda x: x @ x.transpose(2, 3), ["permute", "matmul"]),
    "expand": (lambda x: x.mean(1, keepdim=True).expand(-1, 4, 8, 8) + x, ["mean", "add"]),
    "repeat": (lambda x: x.repeat(1, 2, 1, 1), ["cat"]),
}
OPSETS = (11, 13, 17, 18)
"""Those between which the operators of networks differ."""


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("name", LAYERS)
def test_layers_come_in_with_their_names(name, opset):
    build, wanted = LAYERS[name]
    module = trained(build())
    model = exported(module, opset=opset, keep_batch_norm=True)
    found = graph_of_onnx(model)
    assert ops(found) == wanted
    assert difference(found, model, module) < TOLERANCE
    state = module.state_dict()
    assert found.captured.tensors.keys() == state.keys()
    assert all(torch.equal(tensor, state[key]) for key, tensor in found.captured.tensors.items())
    assert (
        difference(graph_of_onnx(folded := exported(module, opset=opset)), folded, module)
        < TOLERANCE
    )


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_come_in(name, opset):
    call, wanted = FUNCTIONS[name]
    module = Does(lambda _, x: call(x))
    for free_batch in (True, False):
        model = exported(module, opset=opset, free_batch=free_batch)
        found = graph_of_onnx(model)
        assert ops(found) == wanted
        assert (
            difference(found, model if free_batch else exported(module, opset=opset), module)
            < TOLERANCE
        )


def of_the_zoo(arch):
    """A network of the zoo as the plain module that its function makes."""
    return get_architecture(arch)(
        num_classes=3, in_channels=1, **resolve_arch_args(arch, {}, InputSpec().size)
    )


@pytest.mark.parametrize("arch", architecture_names())
def test_every_network_of_the_zoo_comes_in(arch):
    spec = InputSpec()
    module = trained(of_the_zoo(arch))
    image = (spec.channels, spec.size, spec.size)
    model = exported(module, image, keep_batch_norm=True)
    found = graph_of_onnx(model)
    assert found.image == image
    assert difference(found, model, module) < TOLERANCE
    state = module.state_dict()
    assert found.captured.tensors.keys() == state.keys()
    counters = [name for name in state if name.endswith("num_batches_tracked")]
    assert all(
        torch.equal(found.captured.tensors[name], state[name])
        for name in state
        if name not in counters
    )
    norms = [node for node in found.captured.graph.nodes if node.op == "batch_norm"]
    assert len(norms) == len(counters)
    assert {(node.args["eps"], node.args["momentum"]) for node in norms} == {
        (part.eps, part.momentum) for part in module.modules() if isinstance(part, nn.BatchNorm2d)
    }


@pytest.mark.parametrize("arch", architecture_names())
def test_every_network_of_the_zoo_comes_in_with_its_norms_folded(arch):
    spec = InputSpec()
    module = trained(of_the_zoo(arch))
    model = exported(module, (spec.channels, spec.size, spec.size))
    found = graph_of_onnx(model)
    assert difference(found, model, module) < TOLERANCE
    layers = {
        name for name, part in module.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)
    }
    assert {
        node.name for node in found.captured.graph.nodes if node.operator.channel_effect == "mixes"
    } == layers


def test_what_comes_in_is_what_is_captured():
    """The ONNX file of a module and the module itself make the same graph,
    but for what vanishes in an export.
    """
    module = trained(of_the_zoo("mobilenet_v3_small"))
    image = (InputSpec().channels, InputSpec().size, InputSpec().size)
    found = graph_of_onnx(exported(module, image, keep_batch_norm=True)).captured.graph
    captured = capture(module, image).graph
    assert [node.op for node in found.nodes] == [
        node.op for node in captured.nodes if node.op != "dropout"
    ]
    layers = [[node for node in graph.nodes if node.operator.layer] for graph in (found, captured)]
    assert [(node.name, node.op, node.args) for node in layers[0]] == [
        (node.name, node.op, node.args) for node in layers[1]
    ]


def test_equal_weights_that_the_exporter_joined_keep_their_layers_names():
    module = nn.Sequential(
        *[nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)) for _ in range(2)]
    )
    for part in module:
        nn.init.ones_(part[0].weight)
    model = exported(module, keep_batch_norm=True)
    assert len(model.graph.initializer) < len(module.state_dict()) - 2
    found = graph_of_onnx(model)
    assert found.captured.tensors.keys() == module.state_dict().keys()
    assert difference(found, model, module) < TOLERANCE


def test_layer_scale_is_a_parameter_under_its_name():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)
            self.gamma = nn.Parameter(torch.rand(4, 1, 1))

        def forward(self, x):
            return x + self.gamma * self.conv(x)

    module = nn.Sequential(Scaled(), Scaled())
    found = graph_of_onnx(model := exported(module))
    assert ops(found) == ["conv2d", "parameter", "mul", "add"] * 2
    assert found.captured.tensors.keys() == module.state_dict().keys()
    assert difference(found, model, module) < TOLERANCE


def test_norms_that_older_opsets_write_out_are_found_again():
    module = trained(
        nn.Sequential(nn.GroupNorm(2, 4), nn.LayerNorm(8), nn.LayerNorm([4, 8, 8], bias=False))
    )
    found = graph_of_onnx(model := exported(module, opset=13))
    assert ops(found) == ["group_norm", "layer_norm", "layer_norm"]
    assert found.captured.tensors["0.weight"].equal(module[0].weight)
    assert difference(found, model, module) < TOLERANCE
