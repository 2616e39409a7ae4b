"""Files in ONNX Runtime's own format, which its builds for phones and boards read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fertool.artifact.header import ONNX_KEY
from fertool.artifact.trailer import without_header
from fertool.formats.format import Format, Note, require_bounded_header
from fertool.registry import FORMATS
from fertool.spec import Spec

if TYPE_CHECKING:
    from torch import nn

    from fertool.config.exporting import ExportConfig

_NOT_PORTABLE = ("NchwcTransformer",)
"""Writes a layout that the kernels of x86 alone have, as wide as this processor's registers."""


@FORMATS.register("ort")
class Ort(Format):
    """ONNX Runtime's own format: opens in a few milliseconds, also in its small builds."""

    suffix = ".ort"
    runtime = "onnxruntime"
    example = """
import onnxruntime
session = onnxruntime.InferenceSession($file, providers=["CPUExecutionProvider"])
values = session.run([$output], {$input: pixels})[0][0]
"""

    def write(
        self,
        path: Path,
        spec: Spec,
        module: nn.Module,
        config: ExportConfig,
        on_note: Note = lambda note: None,
    ) -> None:
        """Write the graph that ONNX Runtime makes of the ONNX file, with its metadata."""
        from fertool.artifact.onnx_digest import append_digest
        from fertool.exporting import export_model
        from fertool.formats.image_network import require_not_packed
        from fertool.onnx_runtime import open_session, session_options

        require_not_packed(config.packed, self.suffix)
        whole = replace(config, packed=False)
        content = export_model(spec, module, whole, on_note, arranged=True)
        options = session_options(threads=1)
        options.optimized_model_filepath = str(path)
        options.add_session_config_entry("session.save_model_format", "ORT")
        # Opening a session writes the file.
        open_session(content, options, str(path), _NOT_PORTABLE)
        path.write_bytes(append_digest(path.read_bytes()))

    def read_header(self, path: Path) -> str:
        """Return the entry of the metadata."""
        from fertool.artifact.onnx_digest import verify_digest
        from fertool.onnx_runtime import open_session, read_metadata, session_options

        # Before ONNX Runtime reads it, which has no reader for the header alone.
        if not verify_digest(path):
            raise without_header(path)
        session = open_session(path, session_options(threads=1), str(path))
        header = read_metadata(session, ONNX_KEY, str(path))
        if header is None:
            raise without_header(path)
        require_bounded_header(path, header)
        return header
