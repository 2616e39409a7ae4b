"""What converters from PyTorch are given: a network in operators of PyTorch, behind raw pixels."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fertool.config.exporting import ExportConfig
from fertool.data.pixels import normalize, per_channel
from fertool.errors import FertoolError, UsageError, first_line
from fertool.graph.folding import fold_for_inference
from fertool.models.build import require_static
from fertool.spec import InputSpec, Spec


class ImageNetwork(nn.Module):
    """A network from raw pixels [N, C, S, S], uint8 or float, to logits float32 [N, K]."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, network: nn.Module, input: InputSpec) -> None:
        super().__init__()
        self.network = network
        # Buffers, since converters follow tensors.
        self.register_buffer("scale", per_channel(input.scale))
        self.register_buffer("zero_point", per_channel(input.zero_point))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, by the same map of pixels as `fertool.data.pixels.to_input`."""
        logits: Tensor = self.network(normalize(images, self.zero_point, self.scale))
        return logits


def make_image_network(spec: Spec, module: nn.Module) -> ImageNetwork:
    """Return a network for inference on the CPU, batch norms folded where it is a float one."""
    network = require_static(module)
    if spec.quant is None:
        network = fold_for_inference(network)
    return ImageNetwork(network, spec.input).cpu().eval()


def example_image(spec: Spec, dtype: torch.dtype = torch.uint8) -> Tensor:
    """Return one black image [1, C, S, S], which converters follow through a network."""
    input = spec.input
    return torch.zeros(1, input.channels, input.size, input.size, dtype=dtype)


def trace_network(network: nn.Module, image: Tensor) -> Any:
    """Return TorchScript of a network, made without the warning that it is deprecated."""
    # Without an annotation in PyTorch.
    trace: Any = torch.jit.trace
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return trace(network, (image,))


@contextmanager
def converting(converter: str) -> Iterator[None]:
    """Convert in the block without warnings; raises FertoolError for whatever a converter raises.

    The libraries that it imports warn of their own future.
    """
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    # Converters have no base class of their errors; some fail by assertions.
    except Exception as error:
        raise FertoolError(
            f"{converter} cannot convert the network ({first_line(error)})",
            "export .onnx or .ort instead",
        ) from error


def require_network_alone(spec: Spec, config: ExportConfig, suffix: str) -> None:
    """Raise an error for what only ONNX graphs hold beside or around a single network."""
    _require_raw_network(config, suffix)
    _require_one_network(spec, suffix)
    require_not_packed(config.packed, suffix)


def _require_one_network(spec: Spec, suffix: str) -> None:
    """Raise FertoolError for a dynamic network, whose branches the format does not have."""
    if spec.gates is not None:
        raise FertoolError(
            f"a dynamic network: an {suffix} file holds no choice between networks",
            "export .onnx, .ort or .xml, or the model that it was made from",
        )


def require_float(spec: Spec, suffix: str, reason: str) -> None:
    """Raise FertoolError with the reason for a quantized network."""
    if spec.quant is not None:
        raise FertoolError(
            f"a quantized network: an {suffix} file holds floats only ({reason})",
            "export .onnx, .ort or .xml, or the float model that it was made from",
        )


def require_not_packed(packed: bool | None, suffix: str) -> None:
    """Raise UsageError for weights in fewer than 8 bits, which only ONNX files hold."""
    if packed:
        raise UsageError(
            f"``packed=True``: an {suffix} file has one byte or more for each weight",
            "export .onnx, which has packed weights",
        )


def _require_raw_network(config: ExportConfig, suffix: str) -> None:
    """Raise UsageError for preprocessing or a softmax in the graph, which ONNX graphs have."""
    for name in ("with_preprocessing", "with_softmax"):
        if getattr(config, name):
            raise UsageError(
                f"``{name}=True``: an {suffix} file holds the network alone",
                "export .onnx, .ort or .xml, or do it before and behind the network: fertool show "
                "prints how",
            )
