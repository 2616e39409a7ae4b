"""`quantize --int8-friendly`: the network gets activations that integers compute fast, and learns to use them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fertool.cli.recovery import recovery
from fertool.cli.rounds import for_epochs, round_seed
from fertool.cli.training import History, Round, TrainingRun

if TYPE_CHECKING:
    from fertool.cli.change import Model

FLOATS, ROUNDED = "as floats", "with rounding"


def replace_and_train(
    given: Model, run: TrainingRun, epochs: int, *, distill: bool
) -> tuple[Model, TrainingRun, History]:
    """Put ReLU in place of HardSwish and SiLU, and train as floats for some epochs, taught by the given network.

    Returns the network, the run of the training with rounding that follows, and the history. Where there is nothing to
    replace that is the given network, with a note.
    """
    from fertool import models
    from fertool.report.console import note

    changed = models.replace_activations(*given)
    if changed is None:
        note(
            f"--int8-friendly: {given[0].arch} has no HardSwish and no SiLU; there is nothing to replace"
        )
        return given, run, []
    if not epochs:
        return changed, run, []
    spec, module = changed
    first = replace(run, options=for_epochs(run.options, epochs), round=Round(1, FLOATS, []))
    spec, history = first.fit(spec, module, recovery(given, run, distill=distill))
    second = replace(run, seed=round_seed(run.seed, 2), round=Round(2, ROUNDED, history))
    return (spec, module.cpu().eval()), second, history
