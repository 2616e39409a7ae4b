"""ncnn's files: a .param file with the layers, and a .bin file with the weights beside it."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fertool.artifact.atomic import temporary_folder
from fertool.artifact.contract import NCNN_INPUT, NCNN_OUTPUT, Contract
from fertool.artifact.trailer import append_trailer
from fertool.errors import FertoolError
from fertool.formats.format import Format, Note
from fertool.registry import FORMATS
from fertool.spec import Spec

if TYPE_CHECKING:
    from torch import nn

    from fertool.config.exporting import ExportConfig

_CONVERSION_S = 300.0
"""How long pnnx may take."""
_FILES = ("model.ncnn.param", "model.ncnn.bin")
"""What pnnx makes of `model.pt`."""


@FORMATS.register("ncnn")
class Ncnn(Format):
    """ncnn for phones and boards, float networks only: .param, and the weights beside it, .bin."""

    suffix = ".param"
    runtime = "ncnn"
    companion = ".bin"
    example = """
import ncnn
network = ncnn.Net()
network.load_param($file)
network.load_model($file[:-len(".param")] + ".bin")
extractor = network.create_extractor()
extractor.input($input, ncnn.Mat(pixels))
values = np.array(extractor.extract($output)[1])
"""

    def write(
        self,
        path: Path,
        spec: Spec,
        module: nn.Module,
        config: ExportConfig,
        on_note: Note = lambda note: None,
    ) -> None:
        """Write what pnnx makes of the traced network, weights in float32."""
        import torch

        from fertool.formats.image_network import (
            example_image,
            make_image_network,
            require_float,
            require_network_alone,
            trace_network,
        )
        from fertool.runtime.packages import import_extra

        require_network_alone(spec, config, self.suffix)
        require_float(spec, self.suffix, "pnnx keeps neither integer weights nor rounding")
        program = import_extra("pnnx", "ncnn").EXEC_PATH
        # ncnn has no integer input, so the pixels are floats from 0 to 255.
        image = example_image(spec, torch.float32)
        with temporary_folder() as folder:
            traced = trace_network(make_image_network(spec, module), image)
            traced.save(str(folder / "model.pt"))
            shape = ",".join(map(str, image.shape))
            _run([program, "model.pt", f"inputshape=[{shape}]", "fp16=0"], folder)
            layers_name, weights_name = _FILES
            path.write_bytes((folder / layers_name).read_bytes())
            weights = path.with_suffix(self.companion)
            weights.write_bytes((folder / weights_name).read_bytes())
        append_trailer(path, spec.to_json(), [weights])

    def contract(self, spec: Spec) -> Contract:
        """Return the contract of a file that takes one image of floats, by pnnx's names."""
        contract = Contract.of(spec).with_batch(1)
        return replace(
            contract,
            input_name=NCNN_INPUT,
            input_dtype="float32",
            # An image of ncnn has no axis of the batch.
            input_shape=contract.input_shape[1:],
            layout="CHW",
            output_name=NCNN_OUTPUT,
        )


def _run(command: list[str], folder: Path) -> None:
    """Run pnnx; raises FertoolError where it ends without the two files."""
    try:
        result = subprocess.run(command, cwd=folder, capture_output=True, timeout=_CONVERSION_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FertoolError(f"pnnx does not run ({error})", "reinstall pnnx") from None
    if result.returncode == 0 and all((folder / name).is_file() for name in _FILES):
        return
    lines = result.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
    raise FertoolError(
        f"pnnx cannot convert the network ({lines[-1]})", "export .onnx or .ort instead"
    )
