"""Whether a quantized network keeps its accuracy on other processors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fertool.reporter import SILENT, Reporter
from fertool.workflows.comparison import validation_logits

if TYPE_CHECKING:
    from fertool.data.dataset import FaceDataset
    from fertool.models.profile_network import ProfileNetwork
    from fertool.models.quantized import QuantizedNet
    from fertool.spec import InputSpec


def accuracy_without_vnni(
    net: QuantizedNet | ProfileNetwork,
    val: FaceDataset,
    input: InputSpec,
    accuracy: float,
    reporter: Reporter = SILENT,
) -> float:
    """Return and note the accuracy on x86 processors without VNNI, the same or emulated."""
    from fertool.metrics import evaluate_logits
    from fertool.quant.saturation import can_saturate, simulate_saturation

    if not can_saturate(net):
        reporter.note(
            "no pair of products can exceed 16 bits: the same outputs with and without VNNI"
        )
        return accuracy
    logits = validation_logits(simulate_saturation(net, input), val, input, reporter)
    found = evaluate_logits(logits, val.labels, val.classes).accuracy
    lost = 100 * (accuracy - found)
    reporter.note(
        f"{val.split} accuracy on x86 processors without VNNI {found:.3f} (emulated), "
        f"{lost:+.2f} points lost there"
    )
    if lost > 0:
        reporter.note("``weight_range=reduced`` loses none")
    return found
