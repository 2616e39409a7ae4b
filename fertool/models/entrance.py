"""What of an INT8 network stays float: an entrance of few channels and large maps, where floats are faster.

Integer kernels gain by the channels of a pixel, which they take 16 or 64 at a time; of the first layers of MobileNetV3
a map has 16 in all. A HardSwish there, or a product with a gate, is a pass over bytes of its own, where a float
convolution has its HardSwish built in. In ONNX Runtime 1.31 stem and first block of MobileNetV3-Small at 48 pixels take
about 12 of 205 microseconds less as floats. Layers of few channels without such products gain nothing and stay integer.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from fertool.errors import UsageError
from fertool.graph.network import Network
from fertool.models.sites import Sites, can_be_integer, find_sites
from fertool.spec import InputSpec

CHANNELS = 16
"""Up to so many, a layer of the entrance has."""
_SHARE = 1 / 200
"""Of the network's weights, no more than this are floats: a file hardly grows."""


def rounded_sites(network: Network, input: InputSpec, keep_float: Sequence[str] = ()) -> Sites:
    """Return the quantisers and integer layers of a folded network, without those of its float entrance.

    Layers whose names match one of `keep_float`, which may have the wildcards * and ? or be the path of a block, stay
    float too. Raises UsageError for a pattern that no layer has.
    """
    kept = _matching(
        [node.name for node in network.graph.nodes if can_be_integer(node)], keep_float
    )
    sites = find_sites(network.graph, input, kept)
    length = _length_of_entrance(network, {name for site in sites.sites for name in site.nodes})
    names = [network.graph.input, *(node.name for node in network.graph.nodes)]
    before, entrance = set(names[: max(0, length - 1)]), set(names[:length])
    return Sites(
        tuple(site for site in sites.sites if not before.issuperset(site.nodes)),
        {name: site for name, site in sites.layer_inputs.items() if name not in entrance},
    )


def _matching(names: Sequence[str], patterns: Sequence[str]) -> frozenset[str]:
    found: set[str] = set()
    for pattern in patterns:
        matching = [
            name
            for name in names
            if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")
        ]
        if not matching:
            raise UsageError(
                f"--keep-float {pattern}: no layer is called so",
                f"for example --keep-float {names[0]}",
            )
        found.update(matching)
    return frozenset(found)


def _length_of_entrance(network: Network, rounded: set[str]) -> int:
    """Return how many nodes the entrance has, the images counted; the result of its last one is all that leaves it."""
    graph = network.graph
    order = {node.name: index for index, node in enumerate(graph.nodes, start=1)}
    most = _SHARE * sum(parameter.numel() for parameter in network.parameters())
    last_reader = max(order[node.name] for node in graph.readers[graph.input])
    length, weights, has_product = 0, 0, False
    for index, node in enumerate(graph.nodes, start=1):
        layer = network.layer(node.name)
        if layer is not None:
            weights += sum(parameter.numel() for parameter in layer.parameters())
        if node.op == "linear" or node.args.get("out_channels", 0) > CHANNELS or weights > most:
            break
        has_product |= node.operator.gated or (node.op == "mul" and len(node.inputs) == 2)
        if has_product and last_reader <= index and node.name in rounded:
            length = index + 1
        last_reader = max(
            [last_reader, *(order[reader.name] for reader in graph.readers[node.name])]
        )
    return length
