"""LiteRT (TensorFlow Lite) files, for Android and boards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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
        )
        from fertool.runtime.packages import import_extra

        require_one_network(spec, self.suffix)
        require_float(spec, self.suffix, _REASON)
        converter = import_extra("litert_torch", "litert")
        network = make_image_network(spec, module)
        with converting("LiteRT"):
            converter.convert(network, (example_image(spec),)).export(str(path))
        append_trailer(path, spec.to_json())
