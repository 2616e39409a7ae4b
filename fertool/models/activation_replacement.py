"""Replacement of activations that are products with their input, which integers compute slowly."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from fertool.graph.ir import make_node
from fertool.graph.network import Network
from fertool.models.build import require_static
from fertool.spec import Spec

# A ReLU behind a convolution costs integers nothing: it is where their range begins.
REPLACEMENT = "relu"


def replace_activations(spec: Spec, module: nn.Module) -> tuple[Spec, Network] | None:
    """Return a float network with the same weights and ReLU for HardSwish, SiLU, GELU and Mish.

    The weights have to be fine-tuned for it. None where there is nothing to replace; raises
    FertoolError for a dynamic network.
    """
    spec.require_static("given other activations")
    network = require_static(module)
    edits = {}
    for node in network.graph.nodes:
        if node.operator.gated:
            edits[node.name] = [make_node(node.name, REPLACEMENT, node.inputs)]
    if not edits:
        return None
    graph = network.graph.replace_nodes(edits)
    replaced = Network(graph, network.image)
    # Clones: training the new network must not change the given one, which may be its teacher.
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    replaced.load_state_dict(weights, assign=True)
    return replace(spec, graph=graph, metrics=None), replaced.eval()
