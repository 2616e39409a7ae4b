"""What a trained network says of the validation images, and how another's answers differ."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fertool.data import DataOptions, open_data
from fertool.data.dataset import FaceDataset
from fertool.metrics import compare_paired
from fertool.models import load_model
from fertool.spec import Spec
from fertool.training import predict_logits


@dataclass(frozen=True, eq=False)
class Answers:
    """A float network, its data, and its logits [N, K] on the validation images."""

    spec: Spec
    module: nn.Module
    train: FaceDataset
    val: FaceDataset
    logits: Tensor

    @classmethod
    def of(cls, model: Path, data: str) -> Answers:
        """Load a model file and ask it."""
        spec, module = load_model(model)
        source = open_data(
            data, DataOptions(size=spec.input.size, channels=1, classes=spec.classes)
        )
        val = source.split("val")
        return cls(
            spec, module, source.split("train"), val, predict_logits(module, val, spec.input)
        )

    def report(self, data: str, output: Path, **head: Any) -> dict[str, Any]:
        """Return the report to go on with, or a new one that begins with what the network is and
        does.
        """
        if output.exists():
            found: dict[str, Any] = json.loads(output.read_text())
            return found
        spec = self.spec
        return {
            "model": {"arch": spec.arch, "arch_args": dict(spec.arch_args), "digest": spec.digest},
            "data": Path(data).name,
            "n": len(self.val),
            "accuracy": float((self.logits.argmax(1) == self.val.labels).float().mean()),
            **head,
            "rows": [],
        }

    def compared(self, other: nn.Module) -> dict[str, Any]:
        """Return another network's accuracy, its divergence from this one in nats,
        and how often both say the same.
        """
        logits = predict_logits(other, self.val, self.spec.input)
        divergence = (
            (self.logits.softmax(1) * (self.logits.log_softmax(1) - logits.log_softmax(1)))
            .sum(1)
            .mean()
        )
        right = [(said.argmax(1) == self.val.labels).numpy() for said in (self.logits, logits)]
        return {
            "accuracy": float(right[1].mean()),
            "kl": float(divergence),
            "top1_agreement": float((logits.argmax(1) == self.logits.argmax(1)).float().mean()),
            "change": asdict(compare_paired(*right)),
        }
