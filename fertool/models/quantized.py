"""A network whose weights are integers and whose activations are rounded as a runtime rounds them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from fertool import cost
from fertool.errors import FertoolError
from fertool.models.folding import folded, replace_layer
from fertool.models.sites import Sites, find_sites
from fertool.spec import QuantSpec, Spec

SITE_PREFIX = "activations"
"""Quantisers are submodules under this name, by the names of their sites."""


def quantize(values: Tensor, scale: Tensor, zero_point: Tensor | int, low: int, high: int) -> Tensor:
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


class Quantizer(nn.Module):
    """Rounds activations to an unsigned grid: 2 ** bits values, affine, one scale for the whole tensor."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, bits: int = 8, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.high = 2**bits - 1
        self.register_buffer("scale", torch.ones((), device=device))
        self.register_buffer("zero_point", torch.zeros((), dtype=torch.uint8, device=device))

    def forward(self, values: Tensor) -> Tensor:
        """Return the nearest grid values, float32, shape unchanged."""
        integers = quantize(values, self.scale, self.zero_point, 0, self.high)
        return dequantize(integers, self.scale, self.zero_point)


class IntegerLayer(nn.Module):
    """What the two integer layers share: int8 `weight` [out, ...] with `weight_scale` [out], int32 `bias` [out].

    The unit of the bias is `input_scale * weight_scale`, that of the sums which a runtime adds it to.
    """

    weight: Tensor
    bias: Tensor
    weight_scale: Tensor
    input_scale: Tensor

    def _hold_integers(self, weight: Tensor) -> None:
        out, device = len(weight), weight.device
        del self.weight, self.bias
        self.register_buffer("weight", torch.zeros(weight.shape, dtype=torch.int8, device=device))
        self.register_buffer("weight_scale", torch.ones(out, device=device))
        self.register_buffer("bias", torch.zeros(out, dtype=torch.int32, device=device))
        self.register_buffer("input_scale", torch.ones((), device=device))

    def bias_scale(self) -> Tensor:
        """Return the value of one unit of the bias, float32 [out]."""
        return self.input_scale * self.weight_scale

    def float_weight(self) -> Tensor:
        """Return the weight as float32 [out, ...]."""
        return dequantize(self.weight, per_channel(self.weight_scale, self.weight))

    def float_bias(self) -> Tensor:
        """Return the bias as float32 [out]."""
        return dequantize(self.bias, self.bias_scale())


class QuantConv2d(IntegerLayer, nn.Conv2d):  # type: ignore[misc]  # a bias there may be None
    """A convolution with an integer weight and bias, of the shape of a given float layer."""

    def __init__(self, layer: nn.Conv2d) -> None:
        shape = (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation)
        nn.Conv2d.__init__(self, *shape, layer.groups, device="meta", padding_mode=layer.padding_mode)  # type: ignore[arg-type]
        self._hold_integers(layer.weight)

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution of float32 [N, C, H, W] that lie on the input's grid."""
        output: Tensor = self._conv_forward(input, self.float_weight(), self.float_bias())
        return output


class QuantLinear(IntegerLayer, nn.Linear):  # type: ignore[misc]  # a bias there may be None
    """A linear layer with an integer weight and bias, of the shape of a given float layer."""

    def __init__(self, layer: nn.Linear) -> None:
        nn.Linear.__init__(self, layer.in_features, layer.out_features, device="meta")
        self._hold_integers(layer.weight)

    def forward(self, input: Tensor) -> Tensor:
        """Return the product with float32 [N, in] that lie on the input's grid: [N, out]."""
        return nn.functional.linear(input, self.float_weight(), self.float_bias())


class QuantizedNet(fx.GraphModule):
    """The graph of a quantised network; `float_params` counts the learned values of the float network it stands for."""

    float_params = 0

    def __deepcopy__(self, memo: Any) -> QuantizedNet:
        copied = super().__deepcopy__(memo)
        assert isinstance(copied, QuantizedNet)
        copied.float_params = self.float_params
        return copied


def quantized_module(module: nn.Module, spec: Spec) -> QuantizedNet:
    """Return the network of a spec with `quant`, its integers not yet filled in; `module` is its float form.

    On the meta device only the structure is made. Raises FertoolError when layers or sites of the spec are not those
    of the architecture.
    """
    if spec.quant is None:
        raise ValueError("the spec is that of a float network")
    graph_module = folded(module)
    sites = find_sites(graph_module, spec.input)
    _check_names(spec.quant, sites)
    for name in spec.quant.weights:
        layer = graph_module.get_submodule(name)
        replace_layer(graph_module, name, QuantLinear(layer) if isinstance(layer, nn.Linear) else QuantConv2d(layer))  # type: ignore[arg-type]
    bits, device = spec.quant.activations, next(module.parameters()).device
    with_sites = insert_at_sites(graph_module, sites, {name: Quantizer(bits[name], device) for name in bits})
    net = QuantizedNet(with_sites, with_sites.graph)
    net.float_params = cost.parameters(module)
    return net.eval()


def insert_at_sites(graph_module: fx.GraphModule, sites: Sites, modules: Mapping[str, nn.Module]) -> fx.GraphModule:
    """Return a copy of a folded network in which the results at each named site pass through its module.

    A site with several nodes uses its one module for all of them.
    """
    result = copy.deepcopy(graph_module)
    nodes = {node.name: node for node in result.graph.nodes}
    for site in sites.sites:
        if site.name not in modules:
            continue
        target = f"{SITE_PREFIX}.{site.name}"
        result.add_submodule(target, modules[site.name])
        for name in site.nodes:
            node, users = nodes[name], list(nodes[name].users)
            with result.graph.inserting_after(node):
                rounded = result.graph.call_module(target, (node,))
            for user in users:
                user.replace_input_with(node, rounded)
    result.recompile()
    return result


def _check_names(quant: QuantSpec, sites: Sites) -> None:
    unknown = [f"layer {name}" for name in quant.weights if name not in sites.layer_inputs]
    known = {site.name for site in sites.sites}
    unknown += [f"activation {name}" for name in quant.activations if name not in known]
    if unknown:
        raise FertoolError(
            f"the header does not fit the architecture: no {', no '.join(unknown)}", "quantise again with this version"
        )
