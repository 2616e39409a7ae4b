"""A network whose weights are integers and whose activations are rounded as a runtime rounds them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fertool import cost
from fertool.artifact import bit_packing
from fertool.errors import FertoolError
from fertool.graph.folding import fold_for_inference
from fertool.graph.ir import Graph, Node, make_node
from fertool.graph.network import ImageShape, Network
from fertool.models.sites import GATE_KNEE, Sites, find_sites
from fertool.spec import WEIGHT_BITS, QuantSpec, Spec

PLANES_PREFIX = "planes"
"""Packed weights are tensors of a file under this name, by the bits of their digits."""


def quantize(
    values: Tensor, scale: Tensor, zero_point: Tensor | int, low: int, high: int
) -> Tensor:
    """Return integers, as floats: `clamp(round(values / scale) + zero_point, low, high)`.

    Ties go to the even integer and what lies outside saturates, like ONNX QuantizeLinear. `scale` and `zero_point`
    must broadcast against `values`.
    """
    return (torch.round(values / scale) + zero_point).clamp(low, high)


def dequantize(integers: Tensor, scale: Tensor, zero_point: Tensor | int = 0) -> Tensor:
    """Return the float32 values that integers stand for: `(integers - zero_point) * scale`, as DequantizeLinear."""
    return (integers.float() - zero_point) * scale


def per_channel(values: Tensor, weight: Tensor) -> Tensor:
    """Reshape one value per output channel [out] so that it broadcasts against a weight [out, ...]."""
    return values.reshape(-1, *[1] * (weight.dim() - 1))


class Grids(nn.Module):
    """The grids of all activations, unsigned and affine, one per site: two tensors, since a file pays for each."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, bits: Mapping[str, int], device: torch.device | str | None = None) -> None:
        super().__init__()
        self.bits = dict(bits)
        self.index = {name: index for index, name in enumerate(sorted(bits))}
        self.register_buffer("scale", torch.ones(len(bits), device=device))
        self.register_buffer("zero_point", torch.zeros(len(bits), dtype=torch.uint8, device=device))


class Quantizer(nn.Module):
    """Rounds the activations of one site to its grid of 2 ** bits values."""

    def __init__(self, grids: Grids, site: str) -> None:
        super().__init__()
        # In a tuple, so that the grids of all sites do not become a part of each of them.
        self._grids, self._index, self.site = (grids,), grids.index[site], site
        self.high = 2 ** grids.bits[site] - 1

    @property
    def scale(self) -> Tensor:
        """The step of the grid, float32 []."""
        return self._grids[0].scale[self._index]

    @property
    def zero_point(self) -> Tensor:
        """The integer that stands for 0, uint8 []."""
        return self._grids[0].zero_point[self._index]

    def forward(self, values: Tensor) -> Tensor:
        """Return the nearest grid values, float32, shape unchanged."""
        scale, zero_point = self.scale, self.zero_point
        return dequantize(quantize(values, scale, zero_point, 0, self.high), scale, zero_point)


def reaches_knee(scale: float, zero_point: int) -> bool:
    """Return whether -3 is the first value of a grid: on such a one HardSigmoid and HardSwish need no floats."""
    return zero_point > 0 and abs(scale * zero_point / GATE_KNEE - 1) < 1e-6


class UnitQuantizer(Quantizer):
    """Rounds what lies between 0 and 1 to 255ths."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.high = 255

    @property
    def scale(self) -> Tensor:
        """The step of the grid, float32 []."""
        return torch.tensor(1 / self.high)

    @property
    def zero_point(self) -> Tensor:
        """The integer that stands for 0, uint8 []."""
        return torch.tensor(0, dtype=torch.uint8)


class IntegerLayer(nn.Module):
    """What the two integer layers share: int8 `weight` [out, ...], float16 `weight_scale` [out], int32 `bias` [out].

    The unit of the bias is that of the sums which a runtime adds it to: the step of the input's grid x weight scale.
    """

    weight: Tensor
    bias: Tensor
    weight_scale: Tensor

    def _hold_integers(self, weight: Tensor, source: Quantizer | float) -> None:
        out, device = len(weight), weight.device
        del self.weight, self.bias
        self.register_buffer("weight", torch.zeros(weight.shape, dtype=torch.int8, device=device))
        # A scale is free to be any number close to the best one, so it need not take four bytes.
        self.register_buffer("weight_scale", torch.ones(out, dtype=torch.float16, device=device))
        self.register_buffer("bias", torch.zeros(out, dtype=torch.int32, device=device))
        # In a tuple, so that the quantiser does not become a part of each layer that reads from it.
        self._source = (source,)

    @property
    def source(self) -> Quantizer | float:
        """The quantiser that the input comes from, or the step of the pixels' grid."""
        return self._source[0]

    def input_scale(self) -> Tensor | float:
        """Return the step of the grid that the input lies on."""
        source = self.source
        return source if isinstance(source, float) else source.scale

    def bias_scale(self) -> Tensor:
        """Return the value of one unit of the bias, float32 [out]."""
        return self.input_scale() * self.weight_scale.float()

    def float_weight(self) -> Tensor:
        """Return the weight as float32 [out, ...]."""
        return dequantize(self.weight, per_channel(self.weight_scale.float(), self.weight))

    def float_bias(self) -> Tensor:
        """Return the bias as float32 [out]."""
        return dequantize(self.bias, self.bias_scale())


class QuantConv2d(IntegerLayer, nn.Conv2d):  # type: ignore[misc]  # a bias there may be None
    """A convolution with an integer weight and bias, of the shape of a given float layer.

    `source` is the quantiser that its input comes from, or the step of the pixels' grid.
    """

    def __init__(self, layer: nn.Conv2d, source: Quantizer | float) -> None:
        shape = (
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,
            layer.stride,
            layer.padding,
            layer.dilation,
        )
        mode = layer.padding_mode
        nn.Conv2d.__init__(self, *shape, layer.groups, device="meta", padding_mode=mode)  # type: ignore[arg-type]
        self._hold_integers(layer.weight, source)

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution of float32 [N, C, H, W] that lie on the input's grid."""
        output: Tensor = self._conv_forward(input, self.float_weight(), self.float_bias())
        return output


class QuantLinear(IntegerLayer, nn.Linear):  # type: ignore[misc]  # a bias there may be None
    """A linear layer with an integer weight and bias, of the shape of a given float layer.

    `source` is the quantiser that its input comes from, or the step of the pixels' grid.
    """

    def __init__(self, layer: nn.Linear, source: Quantizer | float) -> None:
        nn.Linear.__init__(self, layer.in_features, layer.out_features, device="meta")
        self._hold_integers(layer.weight, source)

    def forward(self, input: Tensor) -> Tensor:
        """Return the product with float32 [N, in] that lie on the input's grid: [N, out]."""
        return nn.functional.linear(input, self.float_weight(), self.float_bias())


class QuantizedNet(Network):
    """A network that rounds as its integer form does.

    `quantizers` are those of the activations by the names of their sites, all with their `grids`; `float_params` counts
    the learned values of the float network that it stands for.
    """

    def __init__(self, graph: Graph, image: ImageShape, grids: Grids, float_params: int) -> None:
        super().__init__(graph, image)
        self.grids, self.float_params = grids, float_params
        self.quantizers = {name: Quantizer(grids, name) for name in grids.bits}


def quantized_module(module: Network, spec: Spec) -> QuantizedNet:
    """Return the network of a spec with `quant`, its integers not yet filled in; `module` is its float form.

    On the meta device only the structure is made. Raises FertoolError for a dynamic network, and when layers or sites
    of the spec are not those of the graph.
    """
    if spec.quant is None:
        raise ValueError("the spec is that of a float network")
    spec.require_static("quantised")
    network = fold_for_inference(module)
    sites = find_sites(network.graph, spec.input)
    _check_names(spec.quant, sites, network)
    rounded = {
        name: site.name
        for site in sites.sites
        if site.name in spec.quant.activations
        for name in site.nodes
    }
    graph, gates = _with_rounded_sigmoids(network.graph, rounded)
    grids = Grids(spec.quant.activations, next(module.parameters()).device)
    net = QuantizedNet(graph, network.image, grids, cost.parameters(module))
    net.load_state_dict({**network.state_dict(), **_grids_of(grids)}, assign=True)
    for name in spec.quant.weights:
        layer, site = net.layer(name), sites.layer_inputs[name]
        source = spec.input.scale[0] if site is None else net.quantizers[site]
        if isinstance(layer, nn.Linear):
            net.replace(name, QuantLinear(layer, source))
        elif isinstance(layer, nn.Conv2d):
            net.replace(name, QuantConv2d(layer, source))
    for name, site in rounded.items():
        net.insert_after(name, net.quantizers[site])
    for name in gates:
        net.insert_after(name, UnitQuantizer())
    return net.eval()


def _grids_of(grids: Grids) -> dict[str, Tensor]:
    return {f"grids.{name}": tensor for name, tensor in grids.state_dict().items()}


def _with_rounded_sigmoids(graph: Graph, rounded: Mapping[str, str]) -> tuple[Graph, list[str]]:
    """Return the graph with the SiLUs that are rounded as x sigmoid(x), and the names of these sigmoids.

    A rounded sigmoid is a table look-up in ONNX Runtime, and the product one of integers.
    """
    changed: dict[str, list[Node]] = {}
    for node in graph.nodes:
        if node.op == "silu" and node.name in rounded:
            gate = make_node(f"{node.name}.sigmoid", "sigmoid", node.inputs)
            changed[node.name] = [gate, make_node(node.name, "mul", [*node.inputs, gate.name])]
    return graph.replace_nodes(changed), [nodes[0].name for nodes in changed.values()]


def stored_form(quant: QuantSpec, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a quantised network as a file holds them: weights below 8 bits packed into planes."""
    bits = _packed_bits(quant, tensors)
    packed = bit_packing.pack({name: tensors[name] for name in bits}, bits) if bits else {}
    kept = {name: tensor for name, tensor in tensors.items() if name not in bits}
    return kept | {f"{PLANES_PREFIX}.{digit}": plane for digit, plane in packed.items()}


def loaded_form(
    quant: QuantSpec, stored: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the tensors of a quantised network from those of a file; `wanted` has their shapes."""
    bits = _packed_bits(quant, wanted)
    packed = {
        name: tensor for name, tensor in stored.items() if name.startswith(f"{PLANES_PREFIX}.")
    }
    by_digit = {
        int(name.removeprefix(f"{PLANES_PREFIX}.")): plane for name, plane in packed.items()
    }
    weights = bit_packing.unpack(by_digit, bits, {name: wanted[name].shape for name in bits})
    return {name: tensor for name, tensor in stored.items() if name not in packed} | weights


def average_bits(quant: QuantSpec, net: nn.Module) -> float:
    """Return the mean bits of a weight of a quantised network, as a file stores it."""
    weights = {name: net.get_buffer(f"{name}.weight") for name in quant.weights}
    stored = {
        name: sum(rule.stored_bits(len(weights[name]))) for name, rule in quant.weights.items()
    }
    return sum(bits * weights[name][0].numel() for name, bits in stored.items()) / sum(
        w.numel() for w in weights.values()
    )


def _packed_bits(quant: QuantSpec, tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the bits of the channels of each weight that has some below 8."""
    rules = {f"{layer}.weight": rule for layer, rule in sorted(quant.weights.items())}
    bits = {name: rule.stored_bits(len(tensors[name])) for name, rule in rules.items()}
    return {name: widths for name, widths in bits.items() if min(widths) < WEIGHT_BITS[-1]}


def tapped_at_sites(network: Network, sites: Sites, modules: Mapping[str, nn.Module]) -> Network:
    """Return a copy of a folded network in which the results at each named site pass through its module.

    A site with several nodes uses its one module for all of them.
    """
    named = [site for site in sites.sites if site.name in modules]
    return network.with_inserted(
        {node: modules[site.name] for site in named for node in site.nodes}
    )


def _check_names(quant: QuantSpec, sites: Sites, network: Network) -> None:
    unknown = [f"layer {name}" for name in quant.weights if name not in sites.layer_inputs]
    channels = {name: len(network.get_parameter(f"{name}.weight")) for name in sites.layer_inputs}
    unknown += [
        f"layer {name} of {len(rule.bits)} channels"
        for name, rule in quant.weights.items()
        if len(rule.bits) not in (1, channels.get(name, 1))
    ]
    known = {site.name for site in sites.sites}
    unknown += [f"activation {name}" for name in quant.activations if name not in known]
    sources = {sites.layer_inputs[name] for name in quant.weights if name in sites.layer_inputs}
    unknown += [
        f"grid for {name}"
        for name in sorted(filter(None, sources))
        if name not in quant.activations
    ]
    if unknown:
        raise FertoolError(
            f"the header does not fit the graph: no {', no '.join(unknown)}",
            "quantise again with this version",
        )
