"""One ONNX graph of several networks, of which wider ones run where narrower ones are not sure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper
from onnx.helper import make_node, make_tensor_value_info
from onnx.numpy_helper import from_array

from fertool.artifact.header import PROFILE_OUTPUT
from fertool.exporting.graph_parts import int64_tensor
from fertool.exporting.image_loop import (
    copy_for_one_image,
    join_networks,
    make_loop_body,
    shape_constants,
    take_image,
)

# The names of values below are part of the bytes of every exported file.


def route_cascade(
    networks: Sequence[ModelProto], thresholds: Sequence[float], classes: int
) -> ModelProto:
    """Join graphs of images to logits [N, classes], the widest first.

    A Loop takes the images one by one: the narrowest network sees each, and an If asks the next
    wider one where the difference of the two largest logits is below the threshold. Input and
    first output are those of the networks.
    """
    first = networks[0]
    images, logits = first.graph.input[0], first.graph.output[0]
    nodes = [
        make_node("Shape", [images.name], ["sizes"]),
        make_node("Gather", ["sizes", "zero"], ["count"], axis=0),
        make_node(
            "Loop",
            ["count", ""],
            [logits.name, PROFILE_OUTPUT],
            body=_loop_body(images.name, networks),
        ),
    ]

    constants = [
        int64_tensor("zero", 0),
        int64_tensor("one", 1),
        int64_tensor("two", [2]),
        *shape_constants(images, classes),
    ]
    for index in range(len(networks)):
        constants.append(int64_tensor(f"profile {index}", index))
    for index, threshold in enumerate(thresholds, start=1):
        value = np.asarray(threshold, np.float32)
        constants.append(from_array(value, f"threshold {index}"))
    return join_networks(first, nodes, "cascade", constants)


def _loop_body(images: str, networks: Sequence[ModelProto]) -> GraphProto:
    """Return the body of the Loop: one image to a row of logits [classes] and its profile []."""
    cascade = _network_or_wider(networks, len(networks) - 1)
    logits, profile = cascade.output
    nodes = [
        *take_image(images),
        *cascade.node,
        make_node("Reshape", [logits.name, "classes"], ["row"]),
        make_node("Identity", [profile.name], ["mine"]),
    ]
    outputs = [
        make_tensor_value_info("row", TensorProto.FLOAT, [None]),
        make_tensor_value_info("mine", TensorProto.INT64, []),
    ]
    return make_loop_body(nodes, outputs, cascade.initializer)


def _network_or_wider(networks: Sequence[ModelProto], index: int) -> GraphProto:
    """Return the graph of "image" [1, C, S, S] to logits [1, K] and the profile that they are of.

    The network of this index computes them, or a wider one where its margin is too small.
    """
    copied = copy_for_one_image(networks[index].graph, index)
    own_logits = copied.output[0].name
    nodes = list(copied.node)
    constants = list(copied.initializer)
    keep_own = _keep(own_logits, index)
    if index == 0:
        return helper.make_graph([*nodes, *keep_own], "widest", [], _outputs(index), constants)

    # In a branch of the If a network runs only where it is needed.
    condition = f"unsure {index}"
    nodes += _compare_margin(own_logits, index, condition)
    kept = helper.make_graph(keep_own, f"{index} is sure", [], _outputs(index))
    wider = _network_or_wider(networks, index - 1)
    outputs = _outputs(index, "result")
    results = [output.name for output in outputs]
    nodes.append(make_node("If", [condition], results, then_branch=wider, else_branch=kept))
    return helper.make_graph(nodes, f"{index} or wider", [], outputs, constants)


def _keep(logits: str, index: int) -> list[NodeProto]:
    """Return the nodes that make the logits of a network those of the image."""
    return [
        make_node("Identity", [logits], [f"answer {index}"]),
        make_node("Identity", [f"profile {index}"], [f"answer profile {index}"]),
    ]


def _outputs(index: int, prefix: str = "answer") -> list[ValueInfoProto]:
    return [
        make_tensor_value_info(f"{prefix} {index}", TensorProto.FLOAT, [None, None]),
        make_tensor_value_info(f"{prefix} profile {index}", TensorProto.INT64, []),
    ]


def _compare_margin(logits: str, index: int, condition: str) -> list[NodeProto]:
    """Return the nodes that compare the difference of the two largest logits with a threshold."""
    top, largest, second = f"top {index}", f"largest {index}", f"second {index}"
    margin = f"margin {index}"
    return [
        make_node("TopK", [logits, "two"], [top, f"places {index}"], axis=1),
        make_node("Gather", [top, "zero"], [largest], axis=1),
        make_node("Gather", [top, "one"], [second], axis=1),
        make_node("Sub", [largest, second], [margin]),
        make_node("Less", [margin, f"threshold {index}"], [condition]),
    ]
