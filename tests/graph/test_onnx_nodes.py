"""ONNX files that PyTorch does not write: operators node by node, layouts, older opsets,
and bad files.
"""

import time

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from fertool.errors import FertoolError
from fertool.graph.from_onnx import graph_of_onnx
from fertool.onnx_runtime import open_session, session_options

FLOAT = TensorProto.FLOAT
SHAPE = (None, 4, 9, 8)


def node(op, inputs, outputs="y", **attributes):
    return helper.make_node(op, inputs.split(","), outputs.split(","), **attributes)


def model_of(nodes, weights=None, opset=17, shape=SHAPE, kind=FLOAT, extra_inputs=(), output="y"):
    """Return a file that reads `x` and has the output `y`."""
    entrance = helper.make_tensor_value_info(
        "x", kind, ["batch" if size is None else size for size in shape]
    )
    graph = helper.make_graph(
        nodes,
        "test",
        [entrance, *extra_inputs],
        [helper.make_tensor_value_info(output, FLOAT, None)],
        [
            numpy_helper.from_array(np.asarray(array), name)
            for name, array in (weights or {}).items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def ops(found):
    return [entry.op for entry in found.captured.graph.nodes]


def difference(model, found, batches=(1, 3), *, channels_last=False):
    """Return the largest difference to ONNX Runtime."""
    session = open_session(model.SerializeToString(), session_options(1), "test")
    network, worst = found.captured.network(found.image), 0.0
    for batch in batches:
        images = (
            torch.rand(batch, *found.image, generator=torch.Generator().manual_seed(batch)) * 4 - 2
        )
        if session.get_inputs()[0].type == "tensor(uint8)":
            images = ((images + 2) * 60).byte()
        fed = images.permute(0, 2, 3, 1) if channels_last else images
        expected = torch.from_numpy(session.run(None, {"x": fed.numpy()})[0])
        with torch.no_grad():
            found_result = network(images.float())
        assert found_result.shape == expected.shape
        worst = max(
            worst,
            float((found_result - expected).abs().max()) / max(1.0, float(expected.abs().max())),
        )
    return worst


def one(op, opset=17, inputs="x", weights=None, **attributes):
    return model_of([node(op, inputs, **attributes)], weights, opset)


W3, B6 = numbers(6, 4, 3, 3), numbers(6)
CHANNELS = {
    "s": numbers(4),
    "b": numbers(4, seed=1),
    "m": numbers(4, seed=2),
    "v": np.abs(numbers(4, seed=3)) + 0.1,
}
TWO = {"kernel_shape": [2, 2], "strides": [2, 2]}
INT = np.int64
CASES = {
    "conv same upper": (
        one(
            "Conv",
            inputs="x,w,b",
            weights={"w": W3, "b": B6},
            auto_pad="SAME_UPPER",
            strides=[2, 2],
        ),
        "pad conv2d",
    ),
    "conv same lower": (
        one("Conv", inputs="x,w", weights={"w": W3}, auto_pad="SAME_LOWER", strides=[2, 2]),
        "pad conv2d",
    ),
    "conv same": (one("Conv", inputs="x,w", weights={"w": W3}, auto_pad="SAME_UPPER"), "conv2d"),
    "conv valid": (
        one("Conv", inputs="x,w", weights={"w": W3}, auto_pad="VALID", dilations=[2, 1]),
        "conv2d",
    ),
    "conv uneven": (one("Conv", inputs="x,w", weights={"w": W3}, pads=[0, 1, 2, 1]), "pad conv2d"),
    "conv and sum": (
        model_of(
            [node("Conv", "x,w", "c"), node("Add", "c,b")], {"w": W3, "b": numbers(1, 6, 1, 1)}
        ),
        "conv2d",
    ),
    "transposed conv to size": (
        one(
            "ConvTranspose",
            inputs="x,w",
            weights={"w": numbers(4, 3, 3, 3)},
            output_shape=[17, 16],
            strides=[2, 2],
        ),
        "conv_transpose2d pad",
    ),
    "transposed conv same": (
        one(
            "ConvTranspose",
            inputs="x,w",
            weights={"w": numbers(4, 3, 2, 2)},
            auto_pad="SAME_UPPER",
            strides=[2, 2],
        ),
        "conv_transpose2d",
    ),
    "transposed conv uneven": (
        one(
            "ConvTranspose",
            inputs="x,w",
            weights={"w": numbers(4, 3, 3, 3)},
            pads=[0, 1, 1, 0],
            strides=[2, 2],
        ),
        "conv_transpose2d pad",
    ),
    "gemm with factors": (
        model_of(
            [node("Flatten", "x", "f"), node("Gemm", "f,w,b", alpha=0.5, beta=2.0)],
            {"w": numbers(288, 5), "b": numbers(1, 5)},
        ),
        "flatten linear",
    ),
    "gemm with a number": (
        model_of(
            [node("Flatten", "x", "f"), node("Gemm", "f,w,b", transB=1)],
            {"w": numbers(5, 288), "b": np.float32(2)},
        ),
        "flatten linear",
    ),
    "product and sum": (
        model_of(
            [node("MatMul", "x,w", "p"), node("Add", "b,p")], {"w": numbers(8, 5), "b": numbers(5)}
        ),
        "linear",
    ),
    "constant times images": (
        one("MatMul", inputs="w,x", weights={"w": numbers(5, 9)}),
        "parameter matmul",
    ),
    "batch norm": (one("BatchNormalization", 9, "x,s,b,m,v", CHANNELS, epsilon=1e-3), "batch_norm"),
    "instance norm": (one("InstanceNormalization", inputs="x,s,b", weights=CHANNELS), "group_norm"),
    "group norm by group": (
        one("GroupNormalization", 18, "x,s,b", {"s": numbers(2), "b": numbers(2)}, num_groups=2),
        "group_norm",
    ),
    "group norm": (one("GroupNormalization", 21, "x,s,b", CHANNELS, num_groups=2), "group_norm"),
    "layer norm": (
        one("LayerNormalization", inputs="x,w", weights={"w": numbers(9, 8)}, axis=2),
        "layer_norm",
    ),
    "prelu": (one("PRelu", inputs="x,s", weights={"s": numbers(4, 1, 1)}), "prelu"),
    "clip of opset 6": (one("Clip", 10, min=0.0, max=6.0), "relu6"),
    "clip from below": (one("Clip", 10, min=0.0), "relu"),
    "clip by inputs": (one("Clip", 12, "x,,h", {"h": np.float32(0.5)}), "clamp"),
    "clip of nothing": (model_of([node("Clip", "x", "c"), node("Neg", "c")]), "neg"),
    "max as relu": (one("Max", inputs="x,z", weights={"z": np.float32(0)}), "relu"),
    "min and max": (
        one("Min", inputs="x,h,w", weights={"h": np.float32(1), "w": numbers(4, 1, 1)}),
        "clamp parameter minimum",
    ),
    "hardsigmoid": (one("HardSigmoid"), "mul add clamp"),
    "hardsigmoid of mobile nets": (one("HardSigmoid", alpha=1 / 6, beta=0.5), "hardsigmoid"),
    "hardswish of two": (
        model_of([node("HardSigmoid", "x", "h", alpha=1 / 6, beta=0.5), node("Mul", "h,x")]),
        "hardswish",
    ),
    "hardswish": (one("HardSwish"), "hardswish"),
    "mish": (one("Mish", 18), "mish"),
    "mish of three": (
        model_of([node("Softplus", "x", "s"), node("Tanh", "s", "t"), node("Mul", "x,t")]),
        "mish",
    ),
    "gelu": (one("Gelu", 20, approximate="tanh"), "gelu"),
    "leaky": (one("LeakyRelu", alpha=0.3), "leaky_relu"),
    "thirds": (one("Elu", alpha=1 / 3), "elu"),
    "reciprocal": (model_of([node("Exp", "x", "e"), node("Reciprocal", "e")]), "exp pow"),
    "sum of three": (one("Sum", inputs="x,x,x"), "add add"),
    "mean of two": (one("Mean", inputs="x,x"), "add div"),
    "scale and shift": (
        model_of(
            [node("Mul", "x,a", "m"), node("Add", "m,b")],
            {"a": numbers(1, 4, 1, 1), "b": numbers(4, 1, 1)},
        ),
        "parameter mul parameter add",
    ),
    "number less images": (one("Sub", inputs="a,x", weights={"a": np.float32(2)}), "mul add"),
    "max pool same": (
        one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
        "pad max_pool2d",
    ),
    "max pool of relu": (
        model_of(
            [node("Relu", "x", "r"), node("MaxPool", "r", kernel_shape=[3, 3], pads=[0, 0, 1, 1])]
        ),
        "relu pad max_pool2d",
    ),
    "max pool of negative products": (
        model_of(
            [
                node("Relu", "x", "r"),
                node("Mul", "r,c", "m"),
                node("MaxPool", "m", kernel_shape=[3, 3], pads=[0, 0, 1, 1]),
            ],
            {"c": np.float32(-1)},
        ),
        "relu mul pad max_pool2d",
    ),
    "max pool dilated": (one("MaxPool", kernel_shape=[2, 2], dilations=[2, 3]), "max_pool2d"),
    "average pool same": (
        one("AveragePool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
        "pad avg_pool2d constant mul",
    ),
    "average pool uneven": (
        one("AveragePool", kernel_shape=[3, 3], pads=[0, 1, 1, 0], count_include_pad=1),
        "pad avg_pool2d",
    ),
    "average pool": (one("AveragePool", pads=[1, 1, 1, 1], **TWO), "avg_pool2d"),
    "average pool ceil": (one("AveragePool", ceil_mode=1, **TWO), "avg_pool2d"),
    "global max": (one("GlobalMaxPool"), "adaptive_max_pool2d"),
    "mean by input": (
        one("ReduceMean", 18, "x,a", {"a": np.array([2, -1], INT)}, keepdims=0),
        "mean",
    ),
    "max by attribute": (one("ReduceMax", axes=[1]), "amax"),
    "sum of opset 11": (one("ReduceSum", 11, axes=[-1]), "sum"),
    "flatten at 2": (
        model_of(
            [node("Flatten", "x", "f", axis=2), node("Reshape", "f,s")],
            {"s": np.array([-1, 4, 72], INT)},
        ),
        "reshape reshape",
    ),
    "reshape keeping": (
        one("Reshape", inputs="x,s", weights={"s": np.array([0, 2, -1], INT)}),
        "reshape",
    ),
    "reshape free": (
        one("Reshape", inputs="x,s", weights={"s": np.array([-1, 8, 9, 4], INT)}),
        "reshape",
    ),
    "flat by arithmetic": (
        model_of(
            [
                node("Shape", "x", "shape"),
                node("Slice", "shape,zero,one", "n"),
                node("Slice", "shape,one,four", "rest"),
                node("ReduceProd", "rest", "size", keepdims=1),
                node("Concat", "n,size", "target", axis=0),
                node("Reshape", "x,target"),
            ],
            {"zero": np.array([0], INT), "one": np.array([1], INT), "four": np.array([4], INT)},
        ),
        "flatten",
    ),
    "squeeze by input": (
        model_of(
            [node("GlobalAveragePool", "x", "p"), node("Squeeze", "p,a")],
            {"a": np.array([-1, 2], INT)},
            13,
        ),
        "adaptive_avg_pool2d squeeze",
    ),
    "unsqueeze twice": (one("Unsqueeze", 11, axes=[1, -1]), "unsqueeze unsqueeze"),
    "split in equal parts": (
        model_of([node("Split", "x", "a,b", axis=1), node("Concat", "b,a", axis=1)]),
        "split getitem getitem cat",
    ),
    "split by count": (
        model_of([node("Split", "x", "a,y", axis=2, num_outputs=2)], opset=18),
        "split getitem",
    ),
    "split by sizes": (
        model_of([node("Split", "x,s", "a,y", axis=1)], {"s": np.array([1, 3], INT)}),
        "split getitem",
    ),
    "slice of opset 9": (one("Slice", 9, starts=[1, 0], ends=[-1, 999], axes=[2, 3]), "slice"),
    "slice with steps": (
        one(
            "Slice",
            inputs="x,s,e,a,t",
            weights={
                "s": np.array([0, -1], INT),
                "e": np.array([2**63 - 1, -(2**63)], INT),
                "a": np.array([2, 1], INT),
                "t": np.array([2, -1], INT),
            },
        ),
        "slice flip",
    ),
    "one channel": (
        one("Gather", inputs="x,i", weights={"i": np.array(-1, INT)}, axis=1),
        "select",
    ),
    "some channels": (
        one("Gather", inputs="x,i", weights={"i": np.array([1, 3], INT)}, axis=1),
        "slice",
    ),
    "channels in reverse": (
        one("Gather", inputs="x,i", weights={"i": np.array([3, 2, 1, 0], INT)}, axis=1),
        "flip",
    ),
    "pad of opset 10": (one("Pad", 10, pads=[0, 0, 1, 0, 0, 0, 0, 2], value=3.0), "pad"),
    "pad of axes": (
        one(
            "Pad",
            18,
            "x,p,v,a",
            {"p": np.array([1, 2], INT), "v": np.float32(1), "a": np.array([-1], INT)},
        ),
        "pad",
    ),
    "reflect one axis": (
        one("Pad", 17, "x,p", {"p": np.array([0, 0, 0, 1, 0, 0, 0, 2], INT)}, mode="reflect"),
        "pad",
    ),
    "upsample": (
        one("Upsample", 9, "x,s", {"s": np.array([1, 1, 2, 3], np.float32)}, mode="nearest"),
        "interpolate",
    ),
    "resize of opset 10": (
        one("Resize", 10, "x,s", {"s": np.array([1, 1, 2, 2], np.float32)}),
        "interpolate",
    ),
    "resize to nearest centre": (
        one("Resize", 13, "x,,s", {"s": np.array([1, 1, 2, 2], np.float32)}),
        "interpolate",
    ),
    "resize by sizes": (
        one("Resize", 18, "x,,,s", {"s": np.array([4, 3], INT)}, axes=[3, 2], mode="linear"),
        "interpolate",
    ),
    "depth to space": (one("DepthToSpace", blocksize=2), "reshape permute reshape"),
    "depth to space by columns": (one("DepthToSpace", blocksize=2, mode="CRD"), "pixel_shuffle"),
    "identity and dropout": (
        model_of(
            [node("Identity", "x", "i"), node("Dropout", "i,r", "d"), node("Neg", "d")],
            {"r": np.float32(0.25)},
            13,
        ),
        "dropout neg",
    ),
    "softmax of opset 11": (
        model_of([node("Flatten", "x", "f"), node("Softmax", "f")], opset=11),
        "flatten softmax",
    ),
    "l1 norm": (one("ReduceL1", axes=[1]), "norm"),
    "swish": (model_of([node("Sigmoid", "x", "s"), node("Mul", "s,x")]), "silu"),
    "gelu of a product": (
        model_of(
            [
                node("Sigmoid", "x", "s"),
                node("Mul", "x,c", "n"),
                node("Mul", "n,s", "p"),
                node("Mul", "p,half", "h"),
                node("Div", "p,root", "d"),
                node("Erf", "d", "e"),
                node("Add", "e,one", "g"),
                node("Mul", "h,g"),
            ],
            {
                "c": numbers(4, 1, 1),
                "half": np.float32(0.5),
                "root": np.float32(2**0.5),
                "one": np.float32(1),
            },
        ),
        "sigmoid parameter mul mul gelu",
    ),
    "squares times a gate": (
        model_of([node("Sigmoid", "x", "s"), node("Mul", "x,x", "q"), node("Mul", "q,s")]),
        "sigmoid mul mul",
    ),
    "convolution of a constant": (
        model_of(
            [
                node("Shape", "x", "s"),
                node(
                    "ConstantOfShape",
                    "s",
                    "ones",
                    value=numpy_helper.from_array(np.array([1], np.float32)),
                ),
                node("CumSum", "ones,axis", "places"),
                node("Cos", "places", "waves"),
                node("Conv", "waves,w", "code"),
                node("Add", "x,code"),
            ],
            {"axis": np.array(2, INT), "w": numbers(4, 4, 1, 1)},
        ),
        "constant conv2d add",
    ),
    "number with the name of a parameter": (
        one("Mul", inputs="x,block.scale", weights={"block.scale": np.ones(1, np.float32)}),
        "parameter mul",
    ),
    "attention": (
        model_of(
            [
                node("Reshape", "x,s", "r"),
                node("Transpose", "r", "t", perm=[2, 0, 1, 3]),
                node("Split", "t", "q,k,v", axis=0),
                node("Squeeze", "q,first", "q0"),
                node("Squeeze", "k,first", "k0"),
                node("Squeeze", "v,first", "v0"),
                node("Transpose", "k0", "kt", perm=[0, 2, 1]),
                node("MatMul", "q0,kt", "qk"),
                node("Softmax", "qk", "p", axis=-1),
                node("MatMul", "p,v0"),
            ],
            {"s": np.array([-1, 12, 3, 8], INT), "first": np.array([0], INT)},
        ),
        "reshape permute split getitem getitem getitem squeeze squeeze squeeze "
        "permute matmul softmax matmul",
    ),
    "constants of all kinds": (
        model_of(
            [
                node("Constant", "", "a", value_float=0.5),
                node("Constant", "", "s", value_ints=[4, 1, 1]),
                node("Constant", "", "r", value_int=3),
                node("Constant", "", "v", value=numpy_helper.from_array(np.array([2], np.float32))),
                node(
                    "ConstantOfShape",
                    "s",
                    "ones",
                    value=numpy_helper.from_array(np.array([1], np.float32)),
                ),
                node("Mul", "ones,v", "twos"),
                node("Mul", "x,twos", "m"),
                node("Add", "m,a"),
            ]
        ),
        "constant mul add",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_nodes_come_in(name):
    model, wanted = CASES[name]
    found = graph_of_onnx(model)
    assert " ".join(ops(found)) == wanted
    assert difference(model, found) < 1e-5


def test_a_file_for_one_image_takes_any_number():
    target = {
        "s": np.array([1, 2, 144], INT),
        "t": np.array([1, 288], INT),
        "e": np.array([1, 2, 144], INT),
    }
    nodes = [
        node("Reshape", "x,s", "a"),
        node("Softmax", "a", "b"),
        node("Expand", "b,e", "c"),
        node("Reshape", "c,t"),
    ]
    fixed, free = (model_of(nodes, target, shape=(batch, *SHAPE[1:])) for batch in (1, None))
    found = graph_of_onnx(fixed)
    assert ops(found) == ["reshape", "softmax", "flatten"]
    assert found.captured.graph.nodes[0].args["shape"] == (0, 2, 144)
    assert "any number" in found.notes[0]
    assert difference(free, found, (1,)) < 1e-6
    images = torch.rand(3, *found.image)
    network = found.captured.network(found.image)
    with torch.no_grad():
        assert torch.equal(network(images), torch.cat([network(image[None]) for image in images]))


def test_images_with_channels_last_are_turned_once():
    nodes = [
        node("Sub", "x,h", "a"),
        node("Transpose", "a", "b", perm=[0, 3, 1, 2]),
        node("Conv", "b,w"),
    ]
    weights = {"h": np.float32(0.5), "w": numbers(5, 3, 3, 3)}
    model = model_of(nodes, weights, shape=(None, 9, 8, 3))
    found = graph_of_onnx(model)
    assert found.image == (3, 9, 8)
    assert "channels last" in " ".join(found.notes)
    assert difference(model, found, channels_last=True) < 1e-6
    model = model_of(
        [node("Transpose", "x", "b", perm=[0, 3, 1, 2]), nodes[2]], weights, shape=(None, 9, 8, 3)
    )
    direct = graph_of_onnx(model)
    assert ops(direct) == ["conv2d"]


@pytest.mark.parametrize(
    "nodes",
    [
        [
            node("Cast", "x", "c", to=FLOAT),
            node("Sub", "c,m", "d"),
            node("Div", "d,s", "e"),
            node("Conv", "e,w"),
        ],
        [node("DequantizeLinear", "x,q,z", "e"), node("Conv", "e,w")],
    ],
)
def test_preprocessing_in_the_graph_is_part_of_it(nodes):
    weights = {
        "m": numbers(1, 3, 1, 1),
        "s": np.abs(numbers(1, 3, 1, 1)) + 1,
        "w": numbers(5, 3, 3, 3),
        "q": np.float32(1 / 64),
        "z": np.uint8(128),
    }
    model = model_of(nodes, weights, shape=(None, 3, 9, 8), kind=TensorProto.UINT8)
    found = graph_of_onnx(model)
    assert ops(found)[-1] == "conv2d"
    assert "0 to 255" in " ".join(found.notes)
    assert difference(model, found) < 1e-5


def test_the_output_that_counts_can_be_named():
    model = model_of([node("Relu", "x", "middle"), node("ArgMax", "middle", "y", axis=1)])
    with pytest.raises(FertoolError, match='"ArgMax"'):
        graph_of_onnx(model)
    found = graph_of_onnx(model, output="middle")
    assert (ops(found), found.output, found.outputs) == (["relu"], "middle", ("y",))
    with pytest.raises(FertoolError, match="unknown output of the ONNX file 'why'"):
        graph_of_onnx(model, output="why")


def test_the_size_is_the_files_or_the_callers():
    model = model_of([node("GlobalAveragePool", "x")], shape=(None, 3, None, None))
    with pytest.raises(FertoolError, match="leaves the shape of its images open"):
        graph_of_onnx(model)
    assert graph_of_onnx(model, (3, 20, 10)).image == (3, 20, 10)
    with pytest.raises(FertoolError, match=r"takes images of 3 x \? x \? .*, not 1 x 20 x 10"):
        graph_of_onnx(model, (1, 20, 10))


def test_names_come_from_weights_then_from_nodes():
    nodes = [
        helper.make_node("Conv", ["x", "body.conv.weight"], ["a"], name="Conv_0"),
        helper.make_node("Relu", ["a"], ["b"], name="/body/act/Relu"),
        helper.make_node(
            "Conv", ["b", "onnx::Conv_7"], ["c"], name="/body/layers/layers.0/conv2/Conv"
        ),
        helper.make_node("Add", ["c", "c"], ["d"], name="/body/layers/layers.0/Add"),
        helper.make_node("Mul", ["d", "body.scale"], ["e"]),
        helper.make_node("Conv", ["e", "W"], ["f"], name="Conv_9"),
        helper.make_node("Conv", ["f", "W"], ["y"]),
    ]
    weights = {
        "body.conv.weight": numbers(4, 4, 1, 1),
        "onnx::Conv_7": numbers(4, 4, 1, 1),
        "body.scale": numbers(4, 1, 1),
        "W": numbers(4, 4, 1, 1),
    }
    found = graph_of_onnx(model_of(nodes, weights))
    names = [entry.name for entry in found.captured.graph.nodes]
    assert names == [
        "body.conv",
        "body.act",
        "body.layers.0.conv2",
        "body.layers.0.add",
        "body.scale",
        "mul",
        "conv2d",
        "conv2d_1",
    ]
    assert "each use of W has its own tensors now" in found.notes


@pytest.mark.parametrize("name", ["graph", "steps", "forward", "body.training", "body.type"])
def test_layers_with_the_name_of_an_attribute_of_modules_get_another(name):
    model = one("Conv", inputs=f"x,{name}.weight", weights={f"{name}.weight": W3})
    found = graph_of_onnx(model)
    assert [entry.name for entry in found.captured.graph.nodes] == [f"{name}_"]
    assert difference(model, found) < 1e-6


def test_a_constant_that_a_layer_reads_stands_beside_it():
    constant = numpy_helper.from_array(numbers(1, 4, 9, 8))
    nodes = [
        helper.make_node("Constant", [], ["c"], name="/body/conv/Constant", value=constant),
        helper.make_node("Conv", ["c", "body.conv.weight"], ["d"], name="/body/conv/Conv"),
        node("Add", "x,d"),
    ]
    found = graph_of_onnx(model_of(nodes, {"body.conv.weight": numbers(4, 4, 1, 1)}))
    assert list(found.captured.tensors) == ["body.conv_constant", "body.conv.weight"]


def quantized():
    weights = {"q": np.float32(0.1), "z": np.uint8(0)}
    return model_of(
        [node("QuantizeLinear", "x,q,z", "a"), node("DequantizeLinear", "a,q,z")], weights
    )


def branches():
    body = helper.make_graph(
        [node("Neg", "x", "b")], "then", [], [helper.make_tensor_value_info("b", FLOAT, None)]
    )
    nodes = [node("ReduceMax", "x", "m", keepdims=0), node("Cast", "m", "c", to=TensorProto.BOOL)]
    return model_of([*nodes, node("If", "c", then_branch=body, else_branch=body)])


def outside():
    model = one("Conv", inputs="x,w", weights={"w": W3})
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    model.graph.initializer[0].external_data.add(key="location", value="weights.bin")
    return model


def damaged():
    model = one("Conv", inputs="x,w", weights={"w": W3})
    model.graph.initializer[0].raw_data = b"1234"
    return model


def growing():
    nodes = [node("Concat", f"{'a' * n},{'a' * n}", "a" * (n + 1), axis=0) for n in range(1, 60)]
    return model_of([*nodes, node("Add", f"x,{'a' * 60}")], {"a": numbers(1000, 1, 1)})


SECOND = helper.make_tensor_value_info("z", FLOAT, ["batch", 4, 9, 8])
BAD = {
    "unknown operator": (
        one("NonZero"),
        'the ONNX operator "NonZero" .* is not known, so the graph cannot be imported',
    ),
    "operator of a runtime": (
        model_of([helper.make_node("FusedConv", ["x"], ["y"], domain="com.microsoft")]),
        "com.microsoft.FusedConv",
    ),
    "quantized": (quantized(), "quantized"),
    "quantized weight": (
        model_of(
            [node("DequantizeLinear", "q,s", "w"), node("Conv", "x,w")],
            {"q": np.ones((5, 4, 3, 3), np.int8), "s": np.float32(0.1)},
        ),
        "quantized",
    ),
    "two inputs": (
        model_of([node("Add", "x,z")], extra_inputs=[SECOND]),
        r"reads 2 inputs \(x, z\)",
    ),
    "no input": (model_of([node("Add", "w,w")], {"w": W3}), "depends on no input"),
    "control flow": (branches(), "'If' .* decides at run time"),
    "missing weight": (
        one("Conv", inputs="x,w"),
        '"w", which is neither a weight nor computed before',
    ),
    "weight outside": (outside(), "stored in another file"),
    "damaged weight": (damaged(), 'weight "w" is damaged'),
    "weight of another shape": (
        one("Conv", inputs="x,w", weights={"w": numbers(6, 5, 3, 3)}),
        "its weight reads 5 channels of 4",
    ),
    "bias of another shape": (
        one("Conv", inputs="x,w,b", weights={"w": W3, "b": numbers(5)}),
        r"has the shape \(5,\), not \(6,\)",
    ),
    "half precision": (
        one("Conv", inputs="x,w", weights={"w": W3.astype(np.float16)}),
        "numbers of the type float16, not float32",
    ),
    "computed weight": (one("Conv", inputs="x,x"), "is computed from the images"),
    "images mixed": (one("ReduceMean"), "mixes the images of a batch"),
    "images chosen": (
        one("Gather", inputs="x,i", weights={"i": np.array(0, INT)}),
        "takes some of the images",
    ),
    "depends on the batch": (
        model_of(
            [
                node("Shape", "x", "s"),
                node("Gather", "s,i", "n"),
                node("Cast", "n", "f", to=FLOAT),
                node("Mul", "x,f"),
            ],
            {"i": np.array(0, INT)},
        ),
        "depends on the number of images",
    ),
    "softmax over images": (
        model_of(
            [
                node("Transpose", "x", "t", perm=[1, 2, 3, 0]),
                node("Softmax", "t", "p"),
                node("Transpose", "p", perm=[3, 0, 1, 2]),
            ]
        ),
        "mixes the images of a batch",
    ),
    "token for each image": (
        model_of(
            [
                node("Shape", "x", "s"),
                node("Slice", "s,zero,one", "n"),
                node("Concat", "n,rest", "t", axis=0),
                node("Expand", "token,t", "e"),
                node("Concat", "e,x", axis=1),
            ],
            {
                "zero": np.array([0], INT),
                "one": np.array([1], INT),
                "rest": np.array([1, 9, 8], INT),
                "token": numbers(1, 1, 9, 8),
            },
        ),
        "depends on the number of images",
    ),
    "old opset": (one("Relu", 6), "opset 6"),
    "no image": (
        model_of([node("Relu", "x")], shape=(None, 10)),
        '"x" has 2 axes of the type float',
    ),
    "huge constant": (
        model_of(
            [node("ConstantOfShape", "s", "c"), node("Add", "x,c")], {"s": np.array([2**40], INT)}
        ),
        "makes a constant of 1,099,511,627,776 numbers",
    ),
    "constants without end": (growing(), "grow without end"),
    "huge result": (
        one("Resize", 13, "x,,,s", {"s": np.array([1, 4, 60000, 60000], INT)}, mode="nearest"),
        "its result is too large",
    ),
    "mask of a dropout": (model_of([node("Dropout", "x", "y,mask")], opset=13), "mask"),
    "attribute missing": (one("Concat"), "'axis' is missing"),
    "lone erf": (one("Erf"), "outside of a gelu"),
    "cycle": (
        model_of([node("Add", "x,b", "a"), node("Relu", "a", "b"), node("Neg", "b")]),
        "neither a weight nor",
    ),
    "negative stride": (one("MaxPool", kernel_shape=[2, 2], strides=[-1, -1]), "stride"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused(name):
    model, message = BAD[name]
    with pytest.raises(FertoolError, match=message) as caught:
        graph_of_onnx(model)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    if "quantized" in name:
        assert caught.value.hint == "import the float model; fertool quantizes it"


def test_long_files_take_seconds():
    """Nodes without names, sums as positive as what they add:
    no work grows with the square of their number.
    """
    op, count = "Add", 5_000
    nodes = [node(op, f"t{i},t{i}", f"t{i + 1}") for i in range(1, count - 1)]
    model = model_of(
        [
            node("Relu", "x", "t1"),
            *nodes,
            node("MaxPool", f"t{count - 1}", kernel_shape=[2, 2], pads=[0, 0, 1, 1]),
        ]
    )
    started = time.process_time()
    with pytest.raises(FertoolError, match="more than 5,000"):
        graph_of_onnx(model)
    model = model_of(
        [
            *model.graph.node[:4_000],
            node("MaxPool", "t4000", kernel_shape=[2, 2], pads=[0, 0, 1, 1]),
        ]
    )
    assert ops(graph_of_onnx(model))[-2:] == ["pad", "max_pool2d"]
    assert time.process_time() - started < 30
