"""What every command does at its end: name its output, print JSON, and describe a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import UNSET

from fertool.artifact.atomic import require_writable, write_atomic
from fertool.artifact.input_files import require_file
from fertool.errors import UsageError

if TYPE_CHECKING:
    from fertool.report.tables import Costs
    from fertool.results import Epoch, LogitsSummary, ModelSummary
    from fertool.results.fields import Result
    from fertool.workflows.data import Data
    from fertool.workflows.model import Model
    from fertool.workflows.prune import PrunedModel
    from fertool.workflows.quantize import QuantizedModel


def default_output(model: Path, stage: str, suffix: str = ".pt") -> Path:
    """Return the output's name when there is no -o: `model.pt` pruned is `model.pruned.pt`, beside it.

    Raises FertoolError for `.` and `/`, which are no files and have no name to follow.
    """
    if not model.name:
        require_file(model)
    return model.with_name(f"{model.stem}.{stage}{suffix}" if stage else f"{model.stem}{suffix}")


def require_picture(flag: str, path: Path | None, output: Path, *inputs: Path) -> None:
    """Fail before any work when the picture of an option cannot be drawn or written, or would replace a file."""
    from fertool.report.plots.drawing import require_matplotlib

    if path is None:
        return
    require_writable(path, *inputs)
    if path.resolve() == output.resolve():
        raise UsageError(
            f"{flag} {path}: the result goes there", "name another file, for example picture.png"
        )
    require_matplotlib()


def require_files(files: Sequence[Path], output: Path | None, data: Data | None) -> None:
    """Raise FertoolError, before any work, for a missing file or an output that replaces an input."""
    if output:
        require_writable(output, *files, *(data.files if data else []))
    for file in files:
        require_file(file)


def print_json(result: Result) -> None:
    """Print a result as one JSON object on stdout."""
    from fertool.report.console import json_result

    json_result(result.as_dict())


def announce(summary: ModelSummary | LogitsSummary, as_json: bool) -> None:
    """Print the path of the file that a command wrote, or as JSON all that is known of it."""
    from fertool.report.console import path_result

    if as_json:
        print_json(summary)
    else:
        path_result(Path(str(summary.file)))


def write_curves(path: Path | None, name: str, history: Sequence[Epoch]) -> None:
    """Write the curves of a model's trainings as a PNG, if a path is given."""
    from fertool.report.plots.training_curves import plot_training_curves, split_rounds

    if path is not None:
        write_atomic(path, plot_training_curves(split_rounds(name, history)))


def print_change(changed: PrunedModel | QuantizedModel, warning: str) -> None:
    """Print the table of two models, and a warning where the new one is not measurably faster."""
    from fertool.report.console import note, story
    from fertool.report.tables import change_table
    from fertool.workflows.prune import PrunedModel

    unlabeled = changed.unlabeled if isinstance(changed, PrunedModel) else None
    before, after = _costs(changed.before), _costs(changed)
    story(change_table(before, after, changed.change, unlabeled))
    interval = changed.change.speedup_ci95
    if interval is not UNSET and interval[0] <= 1:
        note(warning)


def _costs(model: Model) -> Costs:
    from fertool.report.tables import Costs

    return Costs(model.size_bytes, model.spec.params, model.spec.macs)
