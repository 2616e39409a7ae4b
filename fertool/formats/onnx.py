"""ONNX files, written by `fertool.exporting` and run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fertool.artifact.header import ONNX_KEY
from fertool.artifact.onnx_model import read_onnx_metadata
from fertool.errors import FertoolError
from fertool.formats.format import Format, Note, require_bounded_header
from fertool.registry import FORMATS
from fertool.spec import Spec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fertool.config.exporting import ExportConfig


@FORMATS.register("onnx")
class Onnx(Format):
    """Standard operators for ONNX Runtime, OpenVINO, OpenCV and others."""

    suffix = ".onnx"
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
        """Write the graph with the spec in its metadata."""
        # Imported here, as in `open`: headers are read without torch.
        from fertool.exporting import export_model

        path.write_bytes(export_model(spec, module, config, on_note))

    def open(self, path: Path) -> Callable[[Tensor], Tensor]:
        """Return the logits by ONNX Runtime, on as many threads as torch uses."""
        from fertool.exporting.parity import open_onnx

        return open_onnx(path.read_bytes())

    def read_header(self, path: Path) -> str:
        """Return the entry of the metadata."""
        # Not by a session of ONNX Runtime, which would compile the graph for a look at its header.
        header = read_onnx_metadata(path, ONNX_KEY)
        if header is None:
            raise FertoolError(
                f"{path}: an ONNX file without fertool's header",
                "fertool eval and bench take it, with ``classes=a,b,…`` and ``input_size=N``",
            )
        require_bounded_header(path, header)
        return header
