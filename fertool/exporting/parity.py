"""Comparison of an exported file's logits with those of the module that it was made from."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fertool.data.pixels import to_input
from fertool.errors import FertoolError
from fertool.exporting.onnx_export import INPUT_NAME
from fertool.onnx_runtime import SILENT, failed_pass, import_onnxruntime, open_session
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
    images: Tensor,
    *,
    batch_size: int = 64,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Parity:
    """Compare an exported file with its module on images uint8 [N, C, S, S], logit by logit.

    `run` returns the file's logits [N, K] of such images. A float file passes when no logit differs
    by more than 1e-4, or 1e-4 of the largest logit where that is above 1. An INT8 file passes when
    at least 99 % of the images get the same class: integer and float arithmetic round a few values
    near a tie to either side. `on_progress` counts images.
    """
    expected, actual = [], []
    done = 0
    with torch.inference_mode():
        for batch in torch.split(images, batch_size):
            expected.append(module(to_input(batch, spec.input)))
            actual.append(run(batch))
            done += len(batch)
            on_progress(done, len(images))
    return compare_logits(torch.cat(expected), torch.cat(actual), quantized=spec.quant is not None)


def open_onnx(content: bytes) -> Callable[[Tensor], Tensor]:
    """Return a function from images to the logits of an ONNX file's bytes, by ONNX Runtime."""
    options = import_onnxruntime().SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = SILENT
    session = open_session(content, options, _SOURCE)

    def run(batch: Tensor) -> Tensor:
        try:
            return torch.from_numpy(session.run(None, {INPUT_NAME: batch.numpy()})[0])
        except Exception as error:
            raise failed_pass(error, _SOURCE) from None

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
