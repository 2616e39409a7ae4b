"""From a module to the bytes of an ONNX file that takes raw pixels and carries the spec."""

from __future__ import annotations

import contextlib
import copy
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from fertool.artifact.header import ONNX_KEY
from fertool.artifact.onnx_digest import append_digest
from fertool.errors import FertoolError, UsageError
from fertool.export.compact import compacted
from fertool.export.gates import gates_clipped
from fertool.export.layout import arranged
from fertool.export.packing import MIN_OPSET as PACKING_OPSET
from fertool.export.packing import weights_packed
from fertool.export.pooling import pools_read_last
from fertool.export.rounding import relus_left_out
from fertool.export.routing import routed
from fertool.export.scales import scales_packed
from fertool.export.simplify import simplified
from fertool.graph.folding import fold_for_inference
from fertool.models.build import static
from fertool.models.dynamic import DynamicNetwork, ImageGate
from fertool.models.quantized import (
    QuantConv2d,
    QuantizedNet,
    Quantizer,
    QuantLinear,
    dequantize,
    quantize,
)
from fertool.models.sites import exact_pixels
from fertool.spec import InputSpec, Spec

INPUT_NAME, OUTPUT_NAME = "images", "logits"
MIN_OPSET, DEFAULT_OPSET, MAX_OPSET = 13, 18, 20
LEAST_SAVED = 0.3
"""The part of a graph's bytes from which on packing is the default."""


@dataclass(frozen=True)
class ExportOptions:
    """`opset`: version of the operator set; `simplify`: run onnxsim, for at most `simplify_timeout_s` seconds.

    `packed` says how integer weights are stored: in as few bits as they need; or one byte each, in a graph of standard
    operators and nothing else; None for packed where that saves much of the file, else one byte each, but otherwise
    arranged for the speed of ONNX Runtime.
    """

    opset: int = DEFAULT_OPSET
    simplify: bool = True
    simplify_timeout_s: float = 300.0
    packed: bool | None = None

    def __post_init__(self) -> None:
        if not MIN_OPSET <= self.opset <= MAX_OPSET:
            raise UsageError(
                f"--opset {self.opset}: not within {MIN_OPSET} to {MAX_OPSET}",
                f"{DEFAULT_OPSET} suits",
            )
        if self.packed and self.opset < PACKING_OPSET:
            raise UsageError(
                f"--packed with --opset {self.opset}: packed weights need operators of {PACKING_OPSET} or later",
                f"use --opset {DEFAULT_OPSET}, or --plain",
            )


def export_model(
    spec: Spec,
    module: nn.Module,
    options: ExportOptions | None = None,
    on_note: Callable[[str], None] = lambda note: None,
) -> bytes:
    """Return an ONNX file: input "images" uint8 [N, C, S, S] with N free, output "logits" float32 [N, K].

    Preprocessing is inside: the graph begins with a DequantizeLinear, the same map as `fertool.data.pixels.to_input`.
    A quantised module becomes QuantizeLinear / DequantizeLinear pairs around float operators, with weights and biases
    as integers, which runtimes turn into integer operators. A dynamic network has a second output, "profile" int64
    [N]: which of its widths looked at the image, and did the work. The last bytes are a digest of all others.
    `on_note` hears when onnxsim failed and the file is exported without it. The same spec and module give the same
    bytes. Raises FertoolError when the network has an operator that ONNX lacks.
    """
    options = options or ExportOptions()

    def graph_of(network: nn.Module) -> onnx.ModelProto:
        model = _traced(_FromPixels(network, spec.input), spec.input, options.opset)
        if options.simplify:
            model = simplified(model, options.simplify_timeout_s, on_note)
        return _stored(
            relus_left_out(pools_read_last(gates_clipped(model))), options.packed, on_note
        )

    if isinstance(module, DynamicNetwork):
        networks = [graph_of(fold_for_inference(static(network))) for network in module.networks]
        model = routed(
            graph_of(_Choice(module.gate.folded())), networks, module.shares, len(spec.classes)
        )
    else:
        model = graph_of(
            fold_for_inference(static(module)) if spec.quant is None else _integer_network(module)
        )
    model.metadata_props.add(key=ONNX_KEY, value=spec.to_json(deflated=True))
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise FertoolError(
            f"the ONNX graph is not valid: {error}", "try another --opset, or --no-simplify"
        ) from None
    return append_digest(model.SerializeToString(deterministic=True))


def _stored(
    model: onnx.ModelProto, packed: bool | None, on_note: Callable[[str], None]
) -> onnx.ModelProto:
    """Return the same graph as `ExportOptions.packed` says."""
    if packed is False:
        return compacted(model)
    unpacked = scales_packed(model)
    fast = compacted(arranged(unpacked))
    small = compacted(arranged(weights_packed(unpacked, on_note)))
    # Packed weights take a runtime several times as long to load.
    worthwhile = small.ByteSize() <= (1 - LEAST_SAVED) * fast.ByteSize()
    return small if packed or worthwhile else fast


class _Dequantize(torch.autograd.Function):
    """DequantizeLinear; `axis` 0 or 1 for one scale per channel, -1 for one scale in all."""

    @staticmethod
    def forward(
        ctx: Any, integers: Tensor, scale: Tensor, zero_point: Tensor | None, axis: int
    ) -> Tensor:
        shape = [1] * integers.dim()
        if axis >= 0:
            shape[axis] = -1
        zero = 0 if zero_point is None else zero_point.reshape(shape).float()
        return dequantize(integers, scale.reshape(shape), zero)

    @staticmethod
    def symbolic(g: Any, integers: Any, scale: Any, zero_point: Any, axis: int) -> Any:
        inputs = [integers, scale] if zero_point is None else [integers, scale, zero_point]
        return g.op("DequantizeLinear", *inputs, **({"axis_i": axis} if axis >= 0 else {}))


class _QuantizeUint8(torch.autograd.Function):
    """QuantizeLinear to uint8 with one scale; of fewer than 8 bits a Clip of the bytes, behind the integer operator."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, scale: Tensor, zero_point: Tensor, high: int) -> Tensor:
        return quantize(values, scale, zero_point, 0, high).to(torch.uint8)

    @staticmethod
    def symbolic(g: Any, values: Any, scale: Any, zero_point: Any, high: int) -> Any:
        integers = g.op("QuantizeLinear", values, scale, zero_point)
        if high == torch.iinfo(torch.uint8).max:
            return integers
        ends = (g.op("Constant", value_t=torch.tensor(end, dtype=torch.uint8)) for end in (0, high))
        return g.op("Clip", integers, *ends)


def _dequantized(
    integers: Tensor, scale: Tensor, zero_point: Tensor | None = None, axis: int = -1
) -> Tensor:
    values: Tensor = _Dequantize.apply(integers, scale, zero_point, axis)  # type: ignore[no-untyped-call]
    return values


class _FromPixels(nn.Module):
    """A network behind the normalisation of raw pixels."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, network: nn.Module, input: InputSpec) -> None:
        super().__init__()
        self.network = network
        self.axis = -1 if exact_pixels(input) else 1
        count = 1 if exact_pixels(input) else input.channels
        shape = () if exact_pixels(input) else (input.channels,)
        kind = torch.uint8 if input.integer_zero_point else torch.float32
        self.register_buffer("scale", torch.tensor(input.scale[:count]).reshape(shape))
        self.register_buffer(
            "zero_point", torch.tensor(input.zero_point[:count], dtype=kind).reshape(shape)
        )

    def forward(self, images: Tensor) -> Tensor:
        if self.zero_point.dtype == torch.uint8:
            pixels = _dequantized(images, self.scale, self.zero_point, self.axis)
        else:
            # No grid of bytes has its zero between two pixel values.
            pixels = (images.float() - self.zero_point.reshape(-1, 1, 1)) * self.scale.reshape(
                -1, 1, 1
            )
        logits: Tensor = self.network(pixels)
        return logits


class _Choice(nn.Module):
    """A gate that answers with the profile itself."""

    def __init__(self, gate: ImageGate) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        choice: Tensor = self.gate(x).argmax(1)
        return choice


class _OnnxQuantizer(nn.Module):
    scale: Tensor
    zero_point: Tensor

    def __init__(self, source: Quantizer) -> None:
        super().__init__()
        self.register_buffer("scale", source.scale)
        self.register_buffer("zero_point", source.zero_point)
        self.high = source.high

    def forward(self, values: Tensor) -> Tensor:
        integers = _QuantizeUint8.apply(values, self.scale, self.zero_point, self.high)  # type: ignore[no-untyped-call]
        return _dequantized(integers, self.scale, self.zero_point)


class _OnnxLayer(nn.Module):
    """An integer layer that computes with float operators on its dequantised integers."""

    weight: Tensor
    weight_scale: Tensor
    zero_point: Tensor | None
    bias: Tensor
    bias_scale: Tensor

    def __init__(self, source: QuantConv2d | QuantLinear) -> None:
        super().__init__()
        self.register_buffer("weight", source.weight)
        self.register_buffer("weight_scale", source.weight_scale.float())
        self.register_buffer("bias", source.bias)
        self.register_buffer("bias_scale", source.bias_scale())
        zeros = torch.zeros(len(source.weight), dtype=torch.int8)
        # ONNX Runtime makes a QGemm only of weights that name their zero points; a QLinearConv does without.
        self.register_buffer("zero_point", zeros if isinstance(source, QuantLinear) else None)
        self.compute = (
            source._conv_forward if isinstance(source, QuantConv2d) else nn.functional.linear
        )

    def forward(self, values: Tensor) -> Tensor:
        weight = _dequantized(self.weight, self.weight_scale, self.zero_point, axis=0)
        return self.compute(values, weight, _dequantized(self.bias, self.bias_scale, axis=0))


def _integer_network(module: nn.Module) -> nn.Module:
    """Return a copy of a quantised network whose integers become constants of the ONNX graph."""
    network = copy.deepcopy(module)
    assert isinstance(network, QuantizedNet)
    exported: dict[int, _OnnxQuantizer] = {}
    for name, quantizer in network.inserted.items():
        assert isinstance(quantizer, Quantizer)
        network.insert_after(name, exported.setdefault(id(quantizer), _OnnxQuantizer(quantizer)))
    for node in network.graph.nodes:
        layer = network.layer(node.name)
        if isinstance(layer, QuantConv2d | QuantLinear):
            network.replace(node.name, _OnnxLayer(layer))
    return network


def _traced(network: nn.Module, input: InputSpec, opset: int) -> onnx.ModelProto:
    images = torch.zeros(2, input.channels, input.size, input.size, dtype=torch.uint8)
    buffer = io.BytesIO()
    try:
        # The exporter warns that it is the older of two; the newer cannot write integer weights.
        with warnings.catch_warnings(), _silent_stdout():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network.cpu().eval(),
                (images,),
                buffer,  # type: ignore[arg-type]  # its annotation forgets the buffers that it takes
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                opset_version=opset,
                dynamic_axes={INPUT_NAME: {0: "batch"}, OUTPUT_NAME: {0: "batch"}},
                dynamo=False,
                autograd_inlining=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise FertoolError(
            f"the network cannot be written as ONNX opset {opset}: {reason}", "try another --opset"
        ) from None
    return onnx.load_from_string(buffer.getvalue())


@contextlib.contextmanager
def _silent_stdout() -> Iterator[None]:
    """When the exporter fails, torch's C++ part prints the whole graph on stdout, where Python cannot catch it."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
