"""What of an INT8 network stays float: an entrance of few channels and large maps, where floats are faster.

Integer kernels gain by the channels of a pixel, which they take 16 or 64 at a time; of the first layers of MobileNetV3
a map has 16 in all. A HardSwish there, or a product with a gate, is a pass over bytes of its own, where a float
convolution has its HardSwish built in. In ONNX Runtime 1.31 stem and first block of MobileNetV3-Small at 48 pixels take
about 12 of 205 microseconds less as floats. Layers of few channels without such products gain nothing and stay integer.
"""

from __future__ import annotations

from torch import fx, nn
from torch.nn import functional as F

from fertool.models.folding import called_module
from fertool.models.sites import HARD_SWISHES, PRODUCTS, Sites, find_sites
from fertool.spec import InputSpec

CHANNELS = 16
"""Up to so many, a layer of the entrance has."""
_SHARE = 1 / 200
"""Of the network's weights, no more than this are floats: a file hardly grows."""
_PRODUCTS = (*HARD_SWISHES, nn.SiLU, F.silu, *PRODUCTS)


def rounded_sites(graph_module: fx.GraphModule, input: InputSpec) -> Sites:
    """Return the quantisers and integer layers of a folded network, without those of its float entrance."""
    sites = find_sites(graph_module, input)
    nodes = list(graph_module.graph.nodes)
    entrance = nodes[: _length_of_entrance(graph_module, nodes, {name for s in sites.sites for name in s.nodes})]
    before, layers = {node.name for node in entrance[:-1]}, {str(node.target) for node in entrance}
    return Sites(
        tuple(site for site in sites.sites if not before.issuperset(site.nodes)),
        {name: site for name, site in sites.layer_inputs.items() if name not in layers},
    )


def _length_of_entrance(graph_module: fx.GraphModule, nodes: list[fx.Node], rounded: set[str]) -> int:
    """Return how many nodes the entrance has; the result of the last one, rounded, is all that leaves it."""
    order = {node: index for index, node in enumerate(nodes)}
    most = _SHARE * sum(parameter.numel() for parameter in graph_module.parameters())
    length, last_reader, weights, has_product = 0, 0, 0, False
    for index, node in enumerate(nodes):
        layer = called_module(node, graph_module)
        if layer is not None:
            weights += sum(parameter.numel() for parameter in layer.parameters())
        if isinstance(layer, nn.Linear) or getattr(layer, "out_channels", 0) > CHANNELS or weights > most:
            break
        has_product |= (node.target if layer is None else type(layer)) in _PRODUCTS
        if has_product and last_reader <= index and node.name in rounded:
            length = index + 1
        last_reader = max([last_reader, *(order[user] for user in node.users)])
    return length
