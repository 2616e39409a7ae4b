"""ExecuTorch programs, which run on phones and boards with the kernels of XNNPACK."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fertool.artifact.contract import Contract
from fertool.artifact.trailer import append_trailer
from fertool.formats.format import Format, Note
from fertool.registry import FORMATS
from fertool.spec import Spec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fertool.config.exporting import ExportConfig

_OFFSET = 128
"""XNNPACK computes with int8: fertool's uint8 integers, and their zero points, less this."""
_MAX_WEIGHT = 127


@FORMATS.register("executorch")
class ExecuTorch(Format):
    """ExecuTorch with XNNPACK for Android, iOS and boards; one image a pass."""

    suffix = ".pte"
    runtime = "executorch"
    example = """
import executorch.kernels.quantized
import torch
from executorch.runtime import Runtime
method = Runtime.get().load_program($file).load_method("forward")
values = method.execute((torch.from_numpy(pixels),))[0][0].numpy()
"""

    def write(
        self,
        path: Path,
        spec: Spec,
        module: nn.Module,
        config: ExportConfig,
        on_note: Note = lambda note: None,
    ) -> None:
        """Write the exported program, lowered to XNNPACK where that has the operators.

        The integers of a quantized network are those of the program; its last layer, which no
        quantizer follows, has floats, since XNNPACK does not compute it on integers.
        """
        import torch

        from fertool.formats.image_network import (
            converting,
            example_image,
            make_image_network,
            require_not_packed,
            require_one_network,
            require_raw_network,
        )
        from fertool.runtime.packages import import_extra

        require_not_packed(config.packed, self.suffix)
        require_raw_network(config, self.suffix)
        require_one_network(spec, self.suffix)
        lowering = import_extra("executorch.exir", "executorch")
        partition = import_extra(
            "executorch.backends.xnnpack.partition.xnnpack_partitioner", "executorch"
        )
        # Registers the operators of quantized programs.
        import_extra("executorch.kernels.quantized", "executorch")
        network = make_image_network(spec, module)
        if spec.quant is not None:
            network.network = _with_decomposed_integers(network.network, spec)
        with converting("ExecuTorch"):
            program = torch.export.export(network, (example_image(spec),))
            edge = lowering.to_edge_transform_and_lower(
                program, partitioner=[partition.XnnpackPartitioner()]
            )
            path.write_bytes(edge.to_executorch().buffer)
        append_trailer(path, spec.to_json())

    def contract(self, spec: Spec) -> Contract:
        """Return the contract of a file that takes one image a pass."""
        return Contract.of(spec).with_batch(1)


def _with_decomposed_integers(network: Any, spec: Spec) -> Any:
    """Return a copy of a quantized network in the operators that XNNPACK's partitioner knows."""
    from fertool.models.quantized import QuantConv2d, QuantLinear
    from fertool.models.quantizer_points import exact_pixels

    network = copy.deepcopy(network)
    # Before the layers that they are the sources of are replaced.
    rounded: dict[int, nn.Module] = {}
    for name, quantizer in network.inserted.items():
        if id(quantizer) not in rounded:
            scale, zero_point = float(quantizer.scale), int(quantizer.zero_point)
            rounded[id(quantizer)] = _make_rounding(scale, zero_point, quantizer.high)
        network.insert_after(name, rounded[id(quantizer)])

    for node in network.graph.nodes:
        layer = network.layer(node.name)
        if isinstance(layer, QuantConv2d | QuantLinear):
            is_output = node.name == network.graph.output
            network.replace(node.name, _make_layer(layer, as_float=is_output))
    if exact_pixels(spec.input):
        # Normalized pixels are integers times a scale already; this tells XNNPACK so.
        pixels = _make_rounding(spec.input.scale[0], int(spec.input.zero_point[0]), high=255)
        network.insert_after(network.graph.input, pixels)
    return network


def _make_rounding(scale: float, zero_point: int, high: int) -> nn.Module:
    """Return a module that rounds to the integers 0 to `high`, as int8."""
    import torch

    # Registers the operators.
    import torch.ao.quantization.fx._decomposed

    integers = (scale, zero_point - _OFFSET, -_OFFSET, high - _OFFSET, torch.int8)
    operators = torch.ops.quantized_decomposed

    class Rounding(torch.nn.Module):
        def forward(self, values: Tensor) -> Tensor:
            quantized = operators.quantize_per_tensor(values, *integers)
            result: Tensor = operators.dequantize_per_tensor(quantized, *integers)
            return result

    return Rounding()


def _make_layer(layer: Any, as_float: bool) -> nn.Module:
    """Return an integer layer on its int8 weight, or on the float32 weight that stands for it."""
    import torch

    compute = layer._conv_forward if hasattr(layer, "_conv_forward") else torch.nn.functional.linear
    operators = torch.ops.quantized_decomposed

    class Layer(torch.nn.Module):
        weight: Tensor
        bias: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", layer.float_weight() if as_float else layer.weight)
            self.register_buffer("scale", layer.weight_scale.float())
            self.register_buffer("zero_point", torch.zeros(len(layer.weight), dtype=torch.int64))
            self.register_buffer("bias", layer.float_bias())

        def forward(self, values: Tensor) -> Tensor:
            weight = self.weight
            if not as_float:
                weight = operators.dequantize_per_channel(
                    weight, self.scale, self.zero_point, 0, -_MAX_WEIGHT, _MAX_WEIGHT, torch.int8
                )
            result: Tensor = compute(values, weight, self.bias)
            return result

    return Layer()
