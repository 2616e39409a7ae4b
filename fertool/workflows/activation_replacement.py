"""Activations that integers compute fast in place of slow ones, and the training for it."""

from __future__ import annotations

from dataclasses import replace

from fertool.results import Epoch
from fertool.workflows.model import Model
from fertool.workflows.recovery import recovery_objective
from fertool.workflows.rounds import for_epochs, for_round
from fertool.workflows.training_run import Round, TrainingRun

FLOAT, ROUNDED = "as floats", "with rounding"
"""The phases of the history."""


def replace_and_train(
    given: Model, training: TrainingRun, epochs: int, *, distill: bool
) -> tuple[Model, TrainingRun, list[Epoch]]:
    """Replace HardSwish and SiLU by ReLU, and train in float for some epochs.

    With `distill` the given network is the teacher. Returns the new network, the run of the
    training with fake quantization that follows, and the history. A network with nothing to replace
    is returned as it is, with a note.
    """
    from fertool import models

    changed = models.replace_activations(given.spec, given.module)
    if changed is None:
        training.reporter.note(
            f"``replace_activations``: {given.spec.arch} has no HardSwish and no SiLU; "
            "there is nothing to replace"
        )
        return given, training, []
    spec, module = changed
    # The training with fake quantization then recovers from the replacement, too.
    if not epochs:
        return Model(spec, module), training, []

    config = for_epochs(training.config, epochs)
    first = replace(training, config=config, round=Round(1, FLOAT, []))
    spec, history = first.fit(spec, module, recovery_objective(given, training, distill=distill))
    run = for_round(training.run, 2)
    second = replace(training, run=run, round=Round(2, ROUNDED, history))
    return Model(spec, module.cpu().eval()), second, history
