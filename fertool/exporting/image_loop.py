"""One ONNX graph of several networks: a Loop over the images of a batch, with Ifs in its body.

An If has one condition, and the images of a batch differ in theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper
from onnx.helper import make_node, make_tensor_value_info

from fertool.artifact.header import PROFILE_OUTPUT
from fertool.exporting.graph_copies import copy_with_prefix
from fertool.exporting.graph_parts import int64_tensor, shape_of

# The names of values below are part of the bytes of every exported file.
NUMBER = "number"
"""The value [] in the body that says which image of the batch it is for."""
_IMAGE = "image"
"""The value [1, C, S, S] in the body that holds this image."""


def take_image(images: str) -> list[NodeProto]:
    """Return the nodes that take one image out of a batch."""
    return [
        make_node("Gather", [images, NUMBER], ["pixels"], axis=0),
        make_node("Reshape", ["pixels", "one image"], [_IMAGE]),
    ]


def copy_for_one_image(network: GraphProto, index: int) -> GraphProto:
    """Return a copy of a network that reads the one image; its values get `index` as prefix."""
    return copy_with_prefix(network, f"{index}/", {network.input[0].name: _IMAGE})


def make_loop_body(
    nodes: Iterable[NodeProto],
    outputs: Iterable[ValueInfoProto],
    initializers: Sequence[TensorProto] = (),
) -> GraphProto:
    """Return the body of a Loop over all images, in which `nodes` compute `outputs` of one image.

    ONNX stacks what each pass adds behind the condition.
    """
    inputs = [
        make_tensor_value_info(NUMBER, TensorProto.INT64, []),
        make_tensor_value_info("going on", TensorProto.BOOL, []),
    ]
    go_on = make_tensor_value_info("go on", TensorProto.BOOL, [])
    return helper.make_graph(
        [*nodes, make_node("Identity", ["going on"], ["go on"])],
        "image",
        inputs,
        [go_on, *outputs],
        initializer=initializers,
    )


def shape_constants(images: ValueInfoProto, classes: int) -> list[TensorProto]:
    """Return the shapes of one image and of its row of logits, which the body reads."""
    _, *image_shape = shape_of(images)
    return [
        int64_tensor("one image", [1, *image_shape]),
        int64_tensor("classes", [classes]),
    ]


def join_networks(
    first: ModelProto,
    nodes: Sequence[NodeProto],
    name: str,
    constants: Sequence[TensorProto],
) -> ModelProto:
    """Return the model of `nodes`, with the input and the first output of its first network.

    Its second output is the profile of each image, int64 [N].
    """
    images, logits = first.graph.input[0], first.graph.output[0]
    profiles = make_tensor_value_info(PROFILE_OUTPUT, TensorProto.INT64, ["batch"])
    graph = helper.make_graph(nodes, name, [images], [logits, profiles], initializer=constants)
    model = helper.make_model(graph, opset_imports=first.opset_import, ir_version=first.ir_version)
    model.producer_name = first.producer_name
    return model
