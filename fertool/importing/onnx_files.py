"""Networks in ONNX files. Nothing in them is executed but operators that are known."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from fertool.artifact.input_files import require_file
from fertool.artifact.onnx_model import load_onnx_model
from fertool.errors import naming
from fertool.importing.sources import Preprocessing, SourceNetwork, given_image_shape


def load_onnx_network(path: Path, size: int | None, channels: int | None) -> SourceNetwork:
    """Return the network of an ONNX file; raises FertoolError for operators that are not known."""
    # Here, because the module is imported for every source and onnx for this one only.
    from fertool.graph.from_onnx import graph_of_onnx
    from fertool.onnx_runtime import failed_pass, open_session, session_options

    require_file(path)
    model = load_onnx_model(path)
    with naming(str(path)):
        network = graph_of_onnx(model, given_image_shape(size, channels))
    session = open_session(path, session_options(1), str(path))
    input_name = session.get_inputs()[0].name

    def reference(images: Tensor) -> Tensor:
        # The captured network takes channels first, whatever the file's own layout is.
        if network.channels_last:
            images = images.permute(0, 2, 3, 1)
        if network.raw_pixels:
            images = images.round().to(torch.uint8)
        try:
            results = session.run([network.output], {input_name: images.numpy()})
        # The exceptions of ONNX Runtime have no common base class.
        except Exception as error:
            raise failed_pass(error, str(path)) from None
        return torch.from_numpy(results[0])

    preprocessing = None
    if network.raw_pixels:
        # The graph normalizes raw pixels itself: it takes what is 255 times a pixel from 0 to 1.
        preprocessing = Preprocessing(size=network.image[1], mean=(0.0,), std=(1 / 255,))
    return SourceNetwork(network.captured, network.image, reference, preprocessing, network.notes)
