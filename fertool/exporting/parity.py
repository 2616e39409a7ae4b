"""Comparison of an exported file's logits with those of the module that it was made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from fertool.artifact.contract import PROBABILITIES, Contract
from fertool.artifact.header import ONNX_KEY
from fertool.data.image_batches import fit_pictures
from fertool.data.pixels import to_input
from fertool.errors import FertoolError
from fertool.onnx_runtime import failed_pass, open_session, read_metadata, session_options
from fertool.results import Parity
from fertool.spec import Spec

FLOAT_TOLERANCE = 1e-4
"""Difference of a logit, relative to the largest logit where that is above 1."""
INT8_AGREEMENT = 0.99
"""Fraction of the images that get the same class."""
_SOURCE = "the exported graph"


def check_parity(
    run: Callable[[Tensor], Tensor],
    module: nn.Module,
    spec: Spec,
    images: Tensor | Sequence[Tensor],
    *,
    batch_size: int = 64,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Parity:
    """Compare an exported file with its module on images uint8 [N, C, S, S], logit by logit.

    `run` returns the file's logits [N, K] of such images. A float file passes when no logit differs
    by more than 1e-4, or 1e-4 of the largest logit where that is above 1. An INT8 file passes when
    at least 99 % of the images get the same class: integer and float arithmetic round a few values
    near a tie to either side. `on_progress` counts images.

    Crops of several sizes, which a file with preprocessing takes, are resized by Pillow for the
    module. Of a file that ends in a softmax probabilities are compared, with the same tolerance.
    """
    groups = [images] if isinstance(images, Tensor) else images
    total = sum(len(group) for group in groups)
    expected, actual = [], []
    with torch.inference_mode():
        for group in groups:
            for batch in torch.split(group, batch_size):
                fitted = fit_pictures(batch, spec.input.size, spec.input.channels)
                expected.append(module(to_input(fitted, spec.input)))
                actual.append(run(batch))
                on_progress(sum(map(len, actual)), total)
    quantized = spec.quant is not None
    if spec.output == PROBABILITIES:
        expected = [_probabilities(logits, spec) for logits in expected]
        actual = [_probabilities(logits, spec) for logits in actual]
    return compare_logits(torch.cat(expected), torch.cat(actual), quantized=quantized)


def _probabilities(logits: Tensor, spec: Spec) -> Tensor:
    return (logits / (spec.temperature or 1.0)).softmax(1)


def make_crops(faces: Tensor, size: int, channels: int) -> list[Tensor]:
    """Return crops uint8 [n, channels, H, W] of several sizes, of faces [N, C, S, S].

    One after the other they keep their size, get that of the network, and sizes above and below it
    that are no multiples of it; gray faces are tinted, so that the channels differ.
    """
    sizes = (
        tuple(faces.shape[2:]),
        (size, size),
        (3 * size // 2 + 1, 2 * size + 5),
        # Hardly taller than wide, where all versions of Pillow filter the rows first.
        (3 * size + 1, 3 * size - 5),
        (size // 2 + 1, size // 2 + 3),
    )
    crops = []
    for start, shape in enumerate(sizes):
        group = faces[start :: len(sizes)]
        if channels == 3 and group.shape[1] == 1:
            group = torch.cat([group, group // 8 * 7, group // 4 * 3], dim=1)
        enlarged = functional.interpolate(group.float(), shape, mode="bilinear", antialias=True)
        if len(group):
            crops.append(enlarged.round().to(torch.uint8))
    return crops


def open_onnx(content: bytes) -> Callable[[Tensor], Tensor]:
    """Return a function from images to the logits of an ONNX file's bytes, by ONNX Runtime.

    Images are uint8 [N, C, H, W], of any size where the file has preprocessing.
    """
    session = open_session(content, session_options(torch.get_num_threads()), _SOURCE)
    spec = Spec.from_json(read_metadata(session, ONNX_KEY, _SOURCE) or "", _SOURCE)
    contract = Contract.of(spec)

    def run(batch: Tensor) -> Tensor:
        feed = {contract.input_name: contract.arrange(batch.numpy())}
        try:
            outputs = session.run(None, feed)[0]
        # The exceptions of ONNX Runtime have no common base class.
        except Exception as error:
            raise failed_pass(error, _SOURCE) from None
        return torch.from_numpy(contract.to_logits(outputs, spec.temperature))

    return run


def compare_logits(expected: Tensor, actual: Tensor, *, quantized: bool) -> Parity:
    """Return the parity of two tables of logits [N, K]."""
    difference = (expected - actual).abs().max().item()
    scale = expected.abs().max().item()
    agreement = (expected.argmax(1) == actual.argmax(1)).float().mean().item()
    tolerance = FLOAT_TOLERANCE * max(1.0, scale)
    # A NaN fails both comparisons.
    ok = agreement >= INT8_AGREEMENT if quantized else difference <= tolerance
    is_finite = bool(expected.isfinite().all() and actual.isfinite().all())
    return Parity(difference, scale, agreement, n=len(expected), ok=ok and is_finite)


def require_parity(parity: Parity) -> None:
    """Raise FertoolError with the figures when the comparison failed."""
    if parity.ok:
        return
    raise FertoolError(
        "the exported file does not give the module's logits: largest difference "
        f"{parity.max_abs_diff:.2g} on logits up to {parity.logit_scale:.2g}, same class on "
        f"{parity.top1_agreement:.1%} of {parity.n} images",
        "nothing was written; compare on images that the model knows, with ``data``; a model "
        "quantized with ``weight_range=full`` needs a processor with VNNI (or quantize it with "
        "``weight_range=reduced``); else try another ``opset``, or ``simplify=False``",
    )
