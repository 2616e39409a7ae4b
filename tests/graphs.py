"""Graphs and networks for the tests."""

from fertool.graph.capture import capture
from fertool.graph.channels import trace_channels
from fertool.graph.groups import find_groups
from fertool.graph.ir import Graph, make_node
from fertool.graph.surgery import resize


def network_of(module, image):
    """Return a module as a network of its own for images of one shape (C, H, W), in eval mode."""
    return capture(module.eval(), image).network(image)


def narrowed(network, group, size):
    """Return a network without values in which one group of channels has another size."""
    traced = trace_channels(network)
    groups = find_groups(traced)
    return resize(network, traced, groups, {**groups.as_map(), group: size})


def toy_graph(channels=3, classes=2):
    """A convolution, a ReLU, the mean over the image and a linear layer."""
    return Graph(
        "x",
        (
            make_node(
                "conv", "conv2d", ["x"], out_channels=channels, kernel_size=(3, 3), padding=(1, 1)
            ),
            make_node("relu", "relu", ["conv"]),
            make_node("mean", "mean", ["relu"], dim=(2, 3)),
            make_node("fc", "linear", ["mean"], out_features=classes),
        ),
        "fc",
    )
