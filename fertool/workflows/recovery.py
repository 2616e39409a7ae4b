"""What a changed network is trained on: labels, and the logits of the network as it was."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from fertool.workflows.model import Model
from fertool.workflows.training_run import TrainingRun

if TYPE_CHECKING:
    from fertool.objective import LogitsObjective


def recovery_objective(before: Model, run: TrainingRun, *, distill: bool) -> LogitsObjective:
    """Return the objective of a training after surgery.

    With `distill` the unchanged model is the teacher, at recipe 1's temperature and alpha; else the
    labels alone count.
    """
    from fertool.device import resolve_device
    from fertool.distillation import KnowledgeDistillation, Teacher
    from fertool.training import Supervised

    if not distill:
        return Supervised(run.loss)
    # A copy, since a module is moved in place.
    unchanged = copy.deepcopy(before.module).to(resolve_device(run.run.device))
    teacher = Teacher(unchanged, before.input, before.classes, run.config.precision)
    return KnowledgeDistillation(
        [teacher], input=before.input, classes=before.classes, loss=run.loss
    )
