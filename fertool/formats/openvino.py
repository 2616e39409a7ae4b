"""OpenVINO's intermediate representation: an .xml file with the graph, a .bin with the weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fertool.artifact.trailer import append_trailer
from fertool.formats.format import Format, Note
from fertool.registry import FORMATS
from fertool.spec import Spec

if TYPE_CHECKING:
    from torch import nn

    from fertool.config.exporting import ExportConfig


@FORMATS.register("openvino")
class OpenVino(Format):
    """OpenVINO IR for processors of Intel and ARM: .xml, and the weights beside it in .bin."""

    suffix = ".xml"
    runtime = "openvino"
    companion = ".bin"
    example = """
import openvino
network = openvino.Core().compile_model($file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
values = network({$input: pixels})[$output][0]
"""

    def write(
        self,
        path: Path,
        spec: Spec,
        module: nn.Module,
        config: ExportConfig,
        on_note: Note = lambda note: None,
    ) -> None:
        """Write what OpenVINO reads from the plain ONNX file, weights in float32 or int8."""
        from fertool.exporting import export_model, exported_spec
        from fertool.formats.image_network import require_not_packed
        from fertool.formats.openvino_sums import keep_quantizers_of_sums
        from fertool.runtime.packages import import_extra

        require_not_packed(config.packed, self.suffix)
        openvino = import_extra("openvino", "openvino")
        content = export_model(spec, module, replace(config, packed=False), on_note)
        graph = path.with_suffix(".onnx")
        graph.write_bytes(content)
        # Not convert_model, which sends telemetry; FP16 weights would not give the same logits.
        model = openvino.Core().read_model(str(graph))
        if spec.quant is not None:
            keep_quantizers_of_sums(model)
        openvino.save_model(model, str(path), compress_to_fp16=False)
        graph.unlink()
        header = exported_spec(spec, config).to_json(deflated=True)
        append_trailer(path, header, [path.with_suffix(self.companion)])
