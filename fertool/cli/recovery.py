"""What a changed network is trained on: what the network that it was made from says, and the labels."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fertool.cli.change import Model
    from fertool.cli.training import TrainingRun
    from fertool.train.objective import LogitsObjective


def recovery(before: Model, run: TrainingRun, *, distill: bool) -> LogitsObjective:
    """Return what is minimised: the unchanged model teaches, at recipe 1's temperature and alpha, or labels alone."""
    from fertool.device import resolve_device
    from fertool.distill import KnowledgeDistillation, Teacher
    from fertool.train import Supervised

    if not distill:
        return Supervised(run.loss)
    spec, module = before
    unchanged = copy.deepcopy(module).to(resolve_device(run.device))
    teacher = Teacher(unchanged, spec.input, spec.classes, run.options.config.precision)
    return KnowledgeDistillation([teacher], input=spec.input, classes=spec.classes, loss=run.loss)
