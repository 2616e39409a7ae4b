"""One ONNX graph of a gate and several networks, of which a runtime runs the chosen one only."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import GraphProto, ModelProto, TensorProto, helper
from onnx.helper import make_node, make_tensor_value_info

from fertool.artifact.header import PROFILE_OUTPUT
from fertool.exporting.graph_copies import copy_with_prefix
from fertool.exporting.graph_parts import int64_tensor
from fertool.exporting.image_loop import (
    NUMBER,
    copy_for_one_image,
    join_networks,
    make_loop_body,
    shape_constants,
    take_image,
)

# The names of values below are part of the bytes of every exported file.


def route_profiles(
    gate: ModelProto, networks: Sequence[ModelProto], shares: Sequence[float], classes: int
) -> ModelProto:
    """Join a graph of images to profile numbers [N] with graphs of images to logits [N, classes].

    A Loop takes the images one by one, and in it a chain of Ifs leads each to the network of its
    profile. `shares` has the fraction of images of each network. Input and first output are those
    of the networks.
    """
    first = networks[0]
    images, logits = first.graph.input[0], first.graph.output[0]
    profiles = gate.graph.output[0].name
    fixed_names = {images.name: images.name, profiles: PROFILE_OUTPUT}
    gate_graph = copy_with_prefix(gate.graph, "g/", fixed_names)

    # An If that is passed costs as much as three operators, taken or not: the most frequent network
    # comes first. For one image this takes 14 of 164 us less than gathering the images of each
    # profile (MobileNetV3-Large at half width, three profiles).
    order = sorted(range(len(networks)), key=lambda index: -shares[index])
    body = _loop_body(images.name, _branches(networks, order), classes)
    nodes = [
        *gate_graph.node,
        make_node("Size", [PROFILE_OUTPUT], ["count"]),
        make_node("Loop", ["count", ""], [logits.name], body=body),
    ]

    constants = [*gate_graph.initializer, *shape_constants(images, classes)]
    # The last network needs no number: it gets all the images that no other has got.
    for index in order[:-1]:
        constants.append(int64_tensor(f"profile {index}", index))
    return join_networks(first, nodes, "dynamic", constants)


def _loop_body(images: str, branches: GraphProto, classes: int) -> GraphProto:
    """Return the body of the Loop: one image through `branches` to a row of logits [classes]."""
    nodes = [
        make_node("Gather", [PROFILE_OUTPUT, NUMBER], ["mine"], axis=0),
        *take_image(images),
        *branches.node,
        make_node("Reshape", [branches.output[0].name, "classes"], ["row"]),
    ]
    return make_loop_body(nodes, [make_tensor_value_info("row", TensorProto.FLOAT, [classes])])


def _branches(networks: Sequence[ModelProto], order: Sequence[int]) -> GraphProto:
    """Return the graph of "image" [1, C, S, S] to the logits [1, K] of the network that is "mine".

    "mine" is the profile of the image, one of `order`.
    """
    first, *others = order
    if not others:
        return _single_branch(networks[first].graph, first)
    output = make_tensor_value_info(f"answer {first}", TensorProto.FLOAT, [None, None])
    condition = f"is {first}"
    branch = make_node(
        "If",
        [condition],
        [output.name],
        then_branch=_branches(networks, [first]),
        else_branch=_branches(networks, others),
    )
    nodes = [make_node("Equal", ["mine", f"profile {first}"], [condition]), branch]
    return helper.make_graph(nodes, f"{first} or other", [], [output])


def _single_branch(network: GraphProto, index: int) -> GraphProto:
    copied = copy_for_one_image(network, index)
    return helper.make_graph(
        list(copied.node), f"{index}", [], list(copied.output), list(copied.initializer)
    )
