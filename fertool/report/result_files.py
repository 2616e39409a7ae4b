"""The files that `report` reads: headers of models, and the JSON of other commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fertool.artifact.header import read_spec
from fertool.artifact.input_files import MAX_JSON_BYTES, read_text, require_file
from fertool.errors import FertoolError
from fertool.report.mistakes import Mistakes
from fertool.results import (
    AccuracyComparison,
    BenchResult,
    Epoch,
    Evaluation,
    EvaluationReport,
    FileResult,
    History,
    ModelSummary,
    Sensitivity,
    SweepResults,
)
from fertool.strict_json import (
    WrongContentError,
    as_type,
    missing_keys,
    parse_json,
    wrapping_content_errors,
)

_REMAKE_HINT = "make the file again with this version"
_MOST_ROUNDS = 100
"""Trainings of one model, each of which is a curve."""
_ENTRY_TYPES: Mapping[type[Any], type[Any]] = {
    BenchResult: FileResult,
    EvaluationReport: Evaluation,
}
"""Of results that are lists, the type of an entry."""
_TYPES_BY_KEY: Mapping[str, type[Any]] = {
    "layers": Sensitivity,
    "points": SweepResults,
    "history": History,
}


@dataclass
class ReportData:
    """Everything that a page shows, by kind and in the order of the files."""

    models: list[ModelSummary] = field(default_factory=list)
    benchmarks: list[BenchResult] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    comparisons: list[Sequence[AccuracyComparison]] = field(default_factory=list)
    sensitivities: dict[str, Sensitivity] = field(default_factory=dict)
    histories: dict[str, Sequence[Epoch]] = field(default_factory=dict)
    sweeps: list[SweepResults] = field(default_factory=list)
    mistakes: Mistakes | None = None


def read_result_files(files: Sequence[Path]) -> ReportData:
    """Read model headers and JSON files.

    Raises FertoolError for a file that is neither, or that was changed.
    """
    found = ReportData()
    # JSON by its suffix: of other files the content tells what they are. A file that is named twice
    # is shown once.
    for path in dict.fromkeys(files):
        if path.suffix == ".json":
            _add_json(found, path)
        else:
            require_file(path)
            found.models.append(ModelSummary.of(path, path.stat().st_size, read_spec(path)))
    return found


def read_history(path: Path) -> Sequence[Epoch]:
    """Return the epochs of OUT.history.json; raises FertoolError for any other file."""
    result = _read_result(path)
    if not isinstance(result, History):
        raise FertoolError(f"{path}: no history of a training", _REMAKE_HINT)
    return result.history


def read_benchmark(path: Path) -> BenchResult:
    """Return what `bench` wrote; raises FertoolError for any other file."""
    require_file(path)
    result = _read_result(path)
    if not isinstance(result, BenchResult):
        raise FertoolError(
            f"{path}: not what bench wrote", "make it: fertool bench FILE -o OLD.json"
        )
    return result


def _read_result(path: Path) -> Any:
    data = _read_json(path)
    result_type = _find_type(path, data)
    _require_keys(path, result_type, data)
    with wrapping_content_errors(str(path), "not as the command wrote it", _REMAKE_HINT):
        result = as_type(data, result_type)
        _require_few_rounds(result)
    return result


def _add_json(found: ReportData, path: Path) -> None:
    result = _read_result(path)
    if isinstance(result, BenchResult):
        found.benchmarks.append(result)
    elif isinstance(result, EvaluationReport):
        for evaluation in result.results:
            found.evaluations.append(_named(evaluation, path))
        if result.comparisons:
            found.comparisons.append(result.comparisons)
    elif isinstance(result, Evaluation):
        found.evaluations.append(_named(result, path))
    elif isinstance(result, Sensitivity):
        found.sensitivities[path.name] = result
    elif isinstance(result, History):
        found.histories[Path(result.file or path).stem] = result.history
    # A sweep that has only begun has nothing to compare yet.
    elif isinstance(result, SweepResults) and result.points:
        found.sweeps.append(result)


def _named(evaluation: Evaluation, path: Path) -> Evaluation:
    """Return an evaluation that has a file: files of older versions do not name it."""
    if evaluation.file:
        return evaluation
    return replace(evaluation, file=path.name)


def _require_few_rounds(result: Any) -> None:
    """Raise WrongContentError for more trainings of one model than a figure can show."""
    trials: Sequence[Any] = ()
    if isinstance(result, History):
        trials = [result]
    elif isinstance(result, SweepResults):
        trials = result.rows
    for trial in trials:
        rounds = {record.round for record in trial.history}
        if len(rounds) > _MOST_ROUNDS:
            raise WrongContentError(
                f"`history` has {len(rounds):,} rounds, more than {_MOST_ROUNDS}"
            )


def _read_json(path: Path) -> dict[str, Any]:
    text = read_text(path, MAX_JSON_BYTES)
    with wrapping_content_errors(str(path), "", _REMAKE_HINT):
        data = parse_json(text, file_names=True)
    if not isinstance(data, dict):
        raise _unknown_file(path)
    return data


def _find_type(path: Path, data: Mapping[str, Any]) -> type[Any]:
    """Return the type of a result, found by the keys that only this type has."""
    if "results" in data:
        first = _first_entry(path, data)
        if "latency_s" in first:
            return BenchResult
        if "confusion" in first:
            return EvaluationReport
    elif "confusion" in data:
        return Evaluation
    for key, result_type in _TYPES_BY_KEY.items():
        if key in data:
            return result_type
    raise _unknown_file(path)


def _first_entry(path: Path, data: Mapping[str, Any]) -> Mapping[str, Any]:
    entries = data["results"]
    if not isinstance(entries, list) or not entries:
        raise _unknown_file(path)
    if not isinstance(entries[0], dict):
        raise _unknown_file(path)
    return entries[0]


def _require_keys(path: Path, result_type: type[Any], data: Mapping[str, Any]) -> None:
    """Raise FertoolError that lists the keys that the first entry lacks, or else the whole."""
    missing: Sequence[str] = []
    # msgspec stops at the first one; a user of another version wants to see all of them.
    if result_type in _ENTRY_TYPES:
        missing = missing_keys(data["results"][0], _ENTRY_TYPES[result_type])
    if not missing:
        missing = missing_keys(data, result_type)
    if missing:
        raise FertoolError(f"{path}: keys are missing: {', '.join(missing)}", _REMAKE_HINT)


def _unknown_file(path: Path) -> FertoolError:
    return FertoolError(
        f"{path}: not a result of a fertool command",
        "give models and JSON of bench, eval, training, grids or sensitivity",
    )
