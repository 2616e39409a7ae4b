"""A network of integer weights, whose activations are rounded as a runtime rounds them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fertool import cost
from fertool.errors import FertoolError
from fertool.graph.folding import fold_for_inference
from fertool.graph.ir import Graph, Node, make_node
from fertool.graph.network import ImageShape, Network
from fertool.models.quantizer_points import GATE_KNEE, QuantizerPlan, find_quantizer_points
from fertool.spec import QuantSpec, Spec

FLOAT_BIAS_UNIT = 2.0**-8
"""The unit of a bias of a layer that computes with floats, relative to the scales of its weights.

Finer than that of most integer layers, whose inputs have scales of 2 ** -6 or so, and still a
number that the scales can be multiplied by in float16.
"""


def quantize(
    values: Tensor, scale: Tensor, zero_point: Tensor | int, low: int, high: int
) -> Tensor:
    """Return integers, as floats: `clamp(round(values / scale) + zero_point, low, high)`.

    Ties go to the even integer and values outside saturate, like ONNX QuantizeLinear. `scale` and
    `zero_point` must broadcast against `values`.
    """
    return (torch.round(values / scale) + zero_point).clamp(low, high)


def dequantize(integers: Tensor, scale: Tensor, zero_point: Tensor | int = 0) -> Tensor:
    """Return float32 `(integers - zero_point) * scale`, like ONNX DequantizeLinear."""
    return (integers.float() - zero_point) * scale


def per_channel(values: Tensor, weight: Tensor) -> Tensor:
    """Reshape one value per output channel [out] to broadcast against a weight [out, ...]."""
    return values.reshape(-1, *[1] * (weight.dim() - 1))


class ActivationQParams(nn.Module):
    """Scales and zero points of all activations, unsigned and affine, one of each per point.

    They lie in two tensors, `scale` float32 [points] and `zero_point` uint8 [points], in the order
    of the names; `index` has the position of each name.
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(self, bits: Mapping[str, int], device: torch.device | str | None = None) -> None:
        super().__init__()
        self.bits = dict(bits)
        self.index = {name: index for index, name in enumerate(sorted(bits))}
        # Two tensors in all, since a file pays some hundred bytes for each.
        self.register_buffer("scale", torch.ones(len(bits), device=device))
        self.register_buffer("zero_point", torch.zeros(len(bits), dtype=torch.uint8, device=device))


class Quantizer(nn.Module):
    """Rounds the activations of one quantizer point to its 2 ** bits values."""

    def __init__(self, qparams: ActivationQParams, point: str) -> None:
        super().__init__()
        # In a tuple, so that the qparams of all points do not become a submodule of each quantizer.
        self._qparams = (qparams,)
        self._index = qparams.index[point]
        self.point = point
        self.high = 2 ** qparams.bits[point] - 1

    @property
    def scale(self) -> Tensor:
        """The value of one integer step, float32 []."""
        return self._qparams[0].scale[self._index]

    @property
    def zero_point(self) -> Tensor:
        """The integer that stands for 0, uint8 []."""
        return self._qparams[0].zero_point[self._index]

    def forward(self, values: Tensor) -> Tensor:
        """Return the nearest values that integers stand for, float32, shape unchanged."""
        scale, zero_point = self.scale, self.zero_point.float()
        # The steps of `quantize` and `dequantize` in one buffer: maps are larger than the cache,
        # and each new one would be written to memory and read again.
        rounded = torch.div(values, scale).round_()
        rounded.add_(zero_point).clamp_(0, self.high)
        return rounded.sub_(zero_point).mul_(scale)


def starts_at_knee(scale: float, zero_point: int) -> bool:
    """Return whether the integer 0 stands for -3, as integer HardSigmoid and HardSwish need it."""
    return zero_point > 0 and abs(scale * zero_point / GATE_KNEE - 1) < 1e-6


class UnitQuantizer(Quantizer):
    """Rounds values between 0 and 1 to multiples of 1/255."""

    def __init__(self) -> None:
        # Not Quantizer's own: there are no shared qparams to read from.
        nn.Module.__init__(self)
        self.high = 255

    @property
    def scale(self) -> Tensor:
        """The value of one integer step, float32 []."""
        return torch.tensor(1 / self.high)

    @property
    def zero_point(self) -> Tensor:
        """The integer that stands for 0, uint8 []."""
        return torch.tensor(0, dtype=torch.uint8)


class IntegerTensors(nn.Module):
    """The tensors that integer layers have, and the floats that they stand for.

    int8 `weight` [out, ...], float16 `weight_scale` [out] and int32 `bias` [out], whose unit is
    that of the sums to which a runtime adds it: scale of the input x weight scale.
    """

    weight: Tensor
    bias: Tensor
    weight_scale: Tensor

    def hold_integers(self, weight: Tensor, source: Quantizer | float | None) -> None:
        """Put zeros in place of the parameters, for a weight of this shape and an input.

        `source` is None for an input that is not rounded.
        """
        out = len(weight)
        device = weight.device
        del self.weight, self.bias
        self.register_buffer("weight", torch.zeros(weight.shape, dtype=torch.int8, device=device))
        # A scale is free to be any number close to the best one, so two bytes are enough.
        self.register_buffer("weight_scale", torch.ones(out, dtype=torch.float16, device=device))
        self.register_buffer("bias", torch.zeros(out, dtype=torch.int32, device=device))
        # In a tuple, so that the quantizer does not become a submodule of each layer that reads it.
        self._source = (source,)

    @property
    def source(self) -> Quantizer | float | None:
        """The quantizer that the input comes from, the scale of the pixels, or None for floats."""
        return self._source[0]

    @property
    def computes_float(self) -> bool:
        """Whether the layer computes with floats: its input need not be rounded."""
        return self.source is None

    def input_scale(self) -> Tensor | float:
        """Return the scale of the input's integers, or what stands in for it in biases."""
        source = self.source
        if source is None:
            return FLOAT_BIAS_UNIT
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


class QuantConv2d(IntegerTensors, nn.Conv2d):  # type: ignore[misc]  # a bias there may be None
    """A convolution with an integer weight and bias, of the shape of a given float layer.

    `source` is the quantizer that its input comes from, the scale of the pixels, or None for an
    input of floats.
    """

    def __init__(self, layer: nn.Conv2d, source: Quantizer | float | None) -> None:
        # On the meta device: integer buffers replace weight and bias at once.
        nn.Conv2d.__init__(
            self,
            layer.in_channels,
            layer.out_channels,
            kernel_size=layer.kernel_size,  # type: ignore[arg-type]
            stride=layer.stride,  # type: ignore[arg-type]
            padding=layer.padding,  # type: ignore[arg-type]
            dilation=layer.dilation,  # type: ignore[arg-type]
            groups=layer.groups,
            padding_mode=layer.padding_mode,
            device="meta",
        )
        self.hold_integers(layer.weight, source)

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution of float32 inputs [N, C, H, W]."""
        output: Tensor = self._conv_forward(input, self.float_weight(), self.float_bias())
        return output


class QuantLinear(IntegerTensors, nn.Linear):  # type: ignore[misc]  # a bias there may be None
    """A linear layer with an integer weight and bias, of the shape of a given float layer.

    `source` is the quantizer that its input comes from, the scale of the pixels, or None for an
    input of floats.
    """

    def __init__(self, layer: nn.Linear, source: Quantizer | float | None) -> None:
        nn.Linear.__init__(self, layer.in_features, layer.out_features, device="meta")
        self.hold_integers(layer.weight, source)

    def forward(self, input: Tensor) -> Tensor:
        """Return the product with float32 inputs [N, in]: [N, out]."""
        return nn.functional.linear(input, self.float_weight(), self.float_bias())


IntegerLayer = QuantConv2d | QuantLinear


class QuantizedNet(Network):
    """A network that rounds as its integer form does.

    `quantizers` are those of the activations by the names of their points, all with scales and zero
    points out of `grids`; `float_params` counts the learned values of the float network it stands
    for.
    """

    def __init__(
        self, graph: Graph, image: ImageShape, qparams: ActivationQParams, float_params: int
    ) -> None:
        super().__init__(graph, image)
        # The attribute names the tensors in model files, `grids.scale` and `grids.zero_point`.
        self.grids = qparams
        self.float_params = float_params
        self.quantizers = {name: Quantizer(qparams, name) for name in qparams.bits}


def build_quantized(module: Network, spec: Spec) -> QuantizedNet:
    """Return the network of a spec with `quant`, its integers not yet filled in.

    `module` is its float form; on the meta device only the structure is made. Raises FertoolError
    for a dynamic network, and when layers or quantizer points of the spec are not those of the
    graph.
    """
    if spec.quant is None:
        raise ValueError("the spec is that of a float network")
    spec.require_static("quantized")
    network = fold_for_inference(module)
    plan = find_quantizer_points(network.graph, spec.input)
    _require_known_names(spec.quant, plan, network)

    point_of_node: dict[str, str] = {}
    for point in plan.points:
        if point.name in spec.quant.activations:
            point_of_node.update(dict.fromkeys(point.nodes, point.name))
    graph, sigmoids = _split_silu(network.graph, point_of_node)
    qparams = ActivationQParams(spec.quant.activations, next(module.parameters()).device)
    net = QuantizedNet(graph, network.image, qparams, cost.count_parameters(module))
    values = network.state_dict()
    for name, tensor in qparams.state_dict().items():
        values[f"grids.{name}"] = tensor
    net.load_state_dict(values, assign=True)

    for name in spec.quant.weights:
        source = None
        if name not in spec.quant.float_layers:
            point_name = plan.layer_inputs[name]
            # The pixels themselves have no quantizer.
            source = net.quantizers[point_name] if point_name else spec.input.scale[0]
        _replace_layer(net, name, source)
    for name, point_name in point_of_node.items():
        net.insert_after(name, net.quantizers[point_name])
    for name in sigmoids:
        net.insert_after(name, UnitQuantizer())
    return net.eval()


def _replace_layer(net: QuantizedNet, name: str, source: Quantizer | float | None) -> None:
    """Put a layer of integers in place of a float one, whose input comes from `source`."""
    layer = net.layer(name)
    if isinstance(layer, nn.Linear):
        net.replace(name, QuantLinear(layer, source))
    elif isinstance(layer, nn.Conv2d):
        net.replace(name, QuantConv2d(layer, source))


def _split_silu(graph: Graph, quantized: Mapping[str, str]) -> tuple[Graph, list[str]]:
    """Return the graph with quantized SiLUs as x * sigmoid(x), and the names of these sigmoids."""
    # A quantized sigmoid is a table look-up in ONNX Runtime, and the product one of integers.
    edits: dict[str, list[Node]] = {}
    sigmoids = []
    for node in graph.nodes:
        if node.op == "silu" and node.name in quantized:
            sigmoid = make_node(f"{node.name}.sigmoid", "sigmoid", node.inputs)
            product = make_node(node.name, "mul", [*node.inputs, sigmoid.name])
            edits[node.name] = [sigmoid, product]
            sigmoids.append(sigmoid.name)
    return graph.replace_nodes(edits), sigmoids


def insert_at_quantizer_points(
    network: Network, plan: QuantizerPlan, modules: Mapping[str, nn.Module]
) -> Network:
    """Return a copy of a folded network whose results at each named point pass through its module.

    A point with several nodes uses its one module for all of them.
    """
    inserted: dict[str, nn.Module] = {}
    for point in plan.points:
        if point.name in modules:
            inserted.update(dict.fromkeys(point.nodes, modules[point.name]))
    return network.with_inserted(inserted)


def _require_known_names(quant: QuantSpec, plan: QuantizerPlan, network: Network) -> None:
    """Raise FertoolError listing all layers and points of a header that the graph does not have."""
    unknown = []
    for name, rule in quant.weights.items():
        if name not in plan.layer_inputs:
            unknown.append(f"layer {name}")
            continue
        channels = len(network.get_parameter(f"{name}.weight"))
        if len(rule.bits) not in (1, channels):
            unknown.append(f"layer {name} of {len(rule.bits)} channels")

    points = {point.name for point in plan.points}
    for name in quant.activations:
        if name not in points:
            unknown.append(f"activation {name}")
    for name in _unquantized_sources(quant, plan):
        unknown.append(f"scale for {name}")
    if unknown:
        raise FertoolError(
            f"the header does not fit the graph: no {', no '.join(unknown)}",
            "quantize again with this version",
        )


def _unquantized_sources(quant: QuantSpec, plan: QuantizerPlan) -> list[str]:
    """Return the points that integer layers read but that have no bits."""
    sources: set[str] = set()
    for name in quant.weights.keys() - quant.float_layers:
        source = plan.layer_inputs.get(name)
        if source is not None and source not in quant.activations:
            sources.add(source)
    # Sorted, so that a set's order does not end up in a message.
    return sorted(sources)
