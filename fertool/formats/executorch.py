"""ExecuTorch programs, which run on phones and boards with the kernels of XNNPACK."""

from __future__ import annotations

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
            require_network_alone,
        )
        from fertool.runtime.packages import import_extra

        require_network_alone(spec, config, self.suffix)
        lowering = import_extra("executorch.exir", "executorch")
        partition = import_extra(
            "executorch.backends.xnnpack.partition.xnnpack_partitioner", "executorch"
        )
        # Registers the operators of quantized programs.
        import_extra("executorch.kernels.quantized", "executorch")
        network = make_image_network(spec, module)
        if spec.quant is not None:
            from fertool.formats.decomposed_integers import with_decomposed_integers

            network.network = with_decomposed_integers(network.network, spec.input, _make_weight)
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


def _make_weight(layer: Any) -> nn.Module:
    """Return a module that computes the weight of an integer layer from its int8 values."""
    from fertool.formats.decomposed_integers import ChannelScales

    class Weight(ChannelScales):
        weight: Tensor

        def __init__(self) -> None:
            super().__init__(layer)
            self.register_buffer("weight", layer.weight)

        def forward(self) -> Tensor:
            return self.dequantize(self.weight)

    return Weight()
