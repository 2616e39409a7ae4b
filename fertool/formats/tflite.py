"""LiteRT (TensorFlow Lite) files, for Android and boards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fertool.artifact.contract import Contract
from fertool.artifact.trailer import append_trailer
from fertool.errors import FertoolError
from fertool.formats.format import Format, Note
from fertool.registry import FORMATS
from fertool.spec import Spec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fertool.config.exporting import ExportConfig

_BYTE_BITS = 8


@FORMATS.register("tflite")
class TfLite(Format):
    """LiteRT (TensorFlow Lite) for Android and boards; one image a pass."""

    suffix = ".tflite"
    runtime = "tflite"
    example = """
from ai_edge_litert.interpreter import Interpreter
run = Interpreter($file).get_signature_runner()
values = run(**{$input: pixels})[$output][0]
"""

    def write(
        self,
        path: Path,
        spec: Spec,
        module: nn.Module,
        config: ExportConfig,
        on_note: Note = lambda note: None,
    ) -> None:
        """Write what litert-torch makes of the network, with the integers of a quantized one.

        The last layer of a quantized network, which no quantizer follows, has floats.
        """
        from fertool.formats.image_network import (
            converting,
            example_image,
            make_image_network,
            require_network_alone,
        )
        from fertool.runtime.packages import import_extra

        require_network_alone(spec, config, self.suffix)
        _require_full_bytes(spec, self.suffix)
        converter = import_extra("litert_torch", "litert")
        network = make_image_network(spec, module)
        options: dict[str, Any] = {}
        if spec.quant is not None:
            from fertool.formats.decomposed_integers import with_decomposed_integers

            network.network = with_decomposed_integers(network.network, spec.input, _make_weight)
            options["quant_config"] = _given_integers()
        with converting("LiteRT"):
            image = example_image(spec)
            converter.convert(network, (image,), **options).export(str(path))
        append_trailer(path, spec.to_json())

    def contract(self, spec: Spec) -> Contract:
        """Return the contract of a file that takes one image a pass, by litert-torch's names."""
        contract = Contract.of(spec).with_batch(1)
        return replace(contract, input_name="args_0", output_name="output_0")


def _require_full_bytes(spec: Spec, suffix: str) -> None:
    """Raise FertoolError for activations of fewer than 8 bits, whose range LiteRT does not keep."""
    bits = spec.quant.activations.values() if spec.quant is not None else ()
    if any(count < _BYTE_BITS for count in bits):
        raise FertoolError(
            f"activations of {min(bits)} bits: an {suffix} file has whole bytes",
            "export .onnx, .ort or .xml, or quantize with ``activation_bits=8``",
        )


def _given_integers() -> Any:
    """Return the converter's setting for a network that rounds itself.

    It turns the pairs of `quantize` and `dequantize` around an operator into its integer form; the
    quantizer in it is not asked.
    """
    from fertool.runtime.packages import import_extra

    quantizers = import_extra("litert_torch.quantize.pt2e_quantizer", "litert")
    settings = import_extra("litert_torch.quantize.quant_config", "litert")
    static = quantizers.get_symmetric_quantization_config(is_per_channel=True, is_dynamic=False)
    quantizer = quantizers.PT2EQuantizer().set_global(static)
    return settings.QuantConfig(pt2e_quantizer=quantizer)


def _make_weight(layer: Any) -> nn.Module:
    """Return a module that rounds the float weight of a layer to its integers, as a constant.

    The converter takes a weight from its `quantize`; it folds no `dequantize` of int8 constants.
    """
    from fertool.formats.decomposed_integers import OPERATORS, ChannelScales

    class Weight(ChannelScales):
        weight: Tensor

        def __init__(self) -> None:
            super().__init__(layer)
            self.register_buffer("weight", layer.float_weight())

        def forward(self) -> Tensor:
            integers = OPERATORS.quantize_per_channel(self.weight, *self.arguments())
            return self.dequantize(integers)

    return Weight()
