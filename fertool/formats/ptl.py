"""TorchScript for PyTorch's lite interpreter, which PyTorch has deprecated."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from fertool.artifact.archive import read_member
from fertool.artifact.trailer import without_header
from fertool.errors import FertoolError
from fertool.formats.format import Format, Note
from fertool.registry import FORMATS
from fertool.spec import Spec
from fertool.strict_json import WrongContentError

if TYPE_CHECKING:
    from torch import nn

    from fertool.config.exporting import ExportConfig

_HEADER = "fertool.json"
# PyTorch names the archive's folder after the file that it is asked to write.
_WRITTEN_AS = "fertool.ptl"
_MEMBER = f"fertool/extra/{_HEADER}"


@FORMATS.register("ptl")
class LiteInterpreter(Format):
    """PyTorch Mobile's lite interpreter, deprecated for ExecuTorch; computes in float."""

    suffix = ".ptl"
    runtime = "torchlite"
    example = """
import torch
from torch.jit.mobile import _load_for_lite_interpreter
network = _load_for_lite_interpreter($file)
values = network(torch.from_numpy(pixels))[0].numpy(force=True)
"""

    def write(
        self,
        path: Path,
        spec: Spec,
        module: nn.Module,
        config: ExportConfig,
        on_note: Note = lambda note: None,
    ) -> None:
        """Write the traced network; integer weights are stored as such and used as floats."""
        from fertool.formats.image_network import (
            example_image,
            make_image_network,
            require_network_alone,
            trace_network,
        )

        require_network_alone(spec, config, self.suffix)
        network = make_image_network(spec, module)
        written = path.with_name(_WRITTEN_AS)
        # It warns that the interpreter is deprecated, which the note says.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = trace_network(network, example_image(spec))
            traced._save_for_lite_interpreter(
                str(written), _extra_files={_HEADER: spec.to_json(deflated=True)}
            )
        written.replace(path)
        on_note("PyTorch has deprecated this format; its successor is ExecuTorch's (.pte)")

    def read_header(self, path: Path) -> str:
        """Return the member of the archive."""
        try:
            return read_member(path, _MEMBER).decode()
        except WrongContentError as error:
            raise FertoolError(f"{path}: damaged, {error}", "export it again") from None
        # zipfile has no base class of its errors.
        except (zipfile.BadZipFile, KeyError, ValueError, EOFError, OSError, RuntimeError):
            raise without_header(path) from None
