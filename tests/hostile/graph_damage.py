"""Damaged ONNX graphs."""

from random import Random

from onnx import ModelProto, TensorProto


def damage_graph(model: ModelProto, draw: Random) -> str:
    """Damage one place of a graph; returns what was done."""
    return draw.choice(_DAMAGES)(model, draw)


def _remove_node(model: ModelProto, draw: Random) -> str:
    node = draw.choice(model.graph.node)
    model.graph.node.remove(node)
    return f"without {node.op_type}"


def _remove_constant(model: ModelProto, draw: Random) -> str:
    model.graph.initializer.remove(draw.choice(model.graph.initializer))
    return "without a constant"


def _another_operator(model: ModelProto, draw: Random) -> str:
    node = draw.choice(model.graph.node)
    node.op_type = draw.choice(["Relu", "Sin", "ArgMax", "NoSuchThing", "Loop", ""])
    return f"another operator, {node.op_type}"


def _another_shape(model: ModelProto, draw: Random) -> str:
    tensor = draw.choice(model.graph.initializer)
    size = draw.choice([0, -1, 2**40, 10**6])
    tensor.dims[:] = [size] * max(1, len(tensor.dims))
    return f"a constant of {list(tensor.dims)}"


def _another_type(model: ModelProto, draw: Random) -> str:
    tensor = draw.choice(model.graph.initializer)
    tensor.data_type = draw.choice([1, 2, 3, 6, 7, 8, 9, 10, 11, 99])
    return f"a constant of type {tensor.data_type}"


def _constant_elsewhere(model: ModelProto, draw: Random) -> str:
    tensor = draw.choice(model.graph.initializer)
    place = draw.choice(
        ["/etc/passwd", "../../../etc/passwd", "nowhere.bin", "/dev/zero", "m.onnx"]
    )
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value=place)
    return f"a constant in {place}"


def _cycle(model: ModelProto, draw: Random) -> str:
    node = draw.choice(model.graph.node)
    node.input[:] = [node.output[0]] * len(node.input)
    return f"{node.op_type} that reads itself"


def _dangling(model: ModelProto, draw: Random) -> str:
    node = draw.choice(model.graph.node)
    node.input[:] = ["nowhere"] * len(node.input)
    return f"{node.op_type} that reads nothing"


def _another_image_shape(model: ModelProto, draw: Random) -> str:
    shape = model.graph.input[0].type.tensor_type.shape
    axis = draw.randrange(len(shape.dim))
    shape.dim[axis].dim_value = draw.choice([0, 1, 3, 7, 10**6, 10**9, 2**40])
    return f"images of {shape.dim[axis].dim_value} on axis {axis}"


def _another_image_type(model: ModelProto, draw: Random) -> str:
    kind = model.graph.input[0].type.tensor_type
    kind.elem_type = draw.choice([1, 2, 7, 8, 10, 11])
    return f"images of type {kind.elem_type}"


def _another_version(model: ModelProto, draw: Random) -> str:
    if draw.random() < 0.5:
        model.opset_import[0].version = draw.choice([0, 1, 7, 99, 10**9])
        return f"opset {model.opset_import[0].version}"
    model.ir_version = draw.choice([0, 1, 99, 10**9])
    return f"IR version {model.ir_version}"


def _no_output(model: ModelProto, draw: Random) -> str:
    del model.graph.output[:]
    return "no output"


def _another_output(model: ModelProto, draw: Random) -> str:
    inner = draw.choice(model.graph.node).output[0]
    model.graph.output[0].name = draw.choice([inner, "nowhere", "\x1b[31m"])
    return "another output"


def _two_inputs(model: ModelProto, draw: Random) -> str:
    more = model.graph.input.add()
    more.CopyFrom(model.graph.input[0])
    more.name = "more"
    return "two inputs"


def _reversed(model: ModelProto, draw: Random) -> str:
    model.graph.node.reverse()
    return "nodes in reverse order"


def _attribute(model: ModelProto, draw: Random) -> str:
    node = draw.choice([node for node in model.graph.node if node.attribute])
    attribute = draw.choice(node.attribute)
    if attribute.ints:
        attribute.ints[:] = [draw.choice([-1, 0, 10**6, 2**40])] * len(attribute.ints)
    else:
        attribute.i = draw.choice([-1, 0, 10**9])
    return f"{attribute.name} of {node.op_type} changed"


_DAMAGES = (
    _remove_node,
    _remove_constant,
    _another_operator,
    _another_shape,
    _another_type,
    _constant_elsewhere,
    _cycle,
    _dangling,
    _another_image_shape,
    _another_image_type,
    _another_version,
    _no_output,
    _another_output,
    _two_inputs,
    _reversed,
    _attribute,
)
