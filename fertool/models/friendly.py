"""A network as integers compute it fastest: without activations that are products of their input."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from fertool.graph.ir import make_node
from fertool.graph.network import Network
from fertool.models.build import static
from fertool.spec import Spec

FRIENDLY = "relu"
"""Behind a convolution a ReLU is where the integers begin, and no operator."""


def int8_friendly(spec: Spec, module: nn.Module) -> tuple[Spec, Network] | None:
    """Return a float network with the same weights and ReLU in place of HardSwish, SiLU, GELU and Mish.

    It has to learn them anew. None where there is nothing to replace.
    """
    spec.require_static("made INT8-friendly")
    network = static(module)
    costly = [node for node in network.graph.nodes if node.operator.gated]
    if not costly:
        return None
    graph = network.graph.replace_nodes(
        {node.name: [make_node(node.name, FRIENDLY, node.inputs)] for node in costly}
    )
    friendly = Network(graph, network.image)
    friendly.load_state_dict(
        {name: tensor.clone() for name, tensor in network.state_dict().items()}, assign=True
    )
    return replace(spec, graph=graph, metrics=None), friendly.eval()
