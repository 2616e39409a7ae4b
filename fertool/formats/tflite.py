"""LiteRT (TensorFlow Lite) files, for Android and boards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fertool.artifact.contract import Contract
from fertool.artifact.trailer import append_trailer
from fertool.formats.format import Format, Note
from fertool.registry import FORMATS
from fertool.spec import Spec

if TYPE_CHECKING:
    from torch import nn

    from fertool.config.exporting import ExportConfig

_REASON = "its quantizer would choose other integers than fertool's"


@FORMATS.register("tflite")
class TfLite(Format):
    """LiteRT (TensorFlow Lite) for Android and boards; float networks, one image a pass."""

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
        """Write what litert-torch makes of the network, weights in float32."""
        from fertool.formats.image_network import (
            converting,
            example_image,
            make_image_network,
            require_float,
            require_one_network,
            require_raw_network,
        )
        from fertool.runtime.packages import import_extra

        require_raw_network(config, self.suffix)
        require_one_network(spec, self.suffix)
        require_float(spec, self.suffix, _REASON)
        converter = import_extra("litert_torch", "litert")
        network = make_image_network(spec, module)
        with converting("LiteRT"):
            converter.convert(network, (example_image(spec),)).export(str(path))
        append_trailer(path, spec.to_json())

    def contract(self, spec: Spec) -> Contract:
        """Return the contract of a file that takes one image a pass, by litert-torch's names."""
        contract = Contract.of(spec).with_batch(1)
        return replace(contract, input_name="args_0", output_name="output_0")
