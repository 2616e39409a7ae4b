"""The files that `report` reads: models by their headers, and the JSON of other commands, told apart by their keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fertool.artifact.header import read_spec
from fertool.artifact.input_files import MAX_JSON_BYTES, read_text, require_file
from fertool.errors import FertoolError
from fertool.results import (
    Benchmark,
    Evaluation,
    EvaluationReport,
    FileFigures,
    History,
    Sweep,
    Traces,
)
from fertool.strict_json import as_type, missing_keys, parse_json, wrapping_content_errors

Data = Mapping[str, Any]
_AGAIN = "make the file again with this version"


@dataclass(frozen=True)
class Sources:
    """Everything that a page shows: by kind, in the order given; keys as in each command's --json."""

    models: tuple[Data, ...]
    benchmarks: tuple[Data, ...]
    evaluations: tuple[Data, ...]
    comparisons: tuple[Sequence[Data], ...]
    sensitivities: Mapping[str, Data]
    histories: Mapping[str, Sequence[Data]]
    sweeps: tuple[Data, ...]


def read_sources(files: Sequence[Path]) -> Sources:
    """Read model headers and JSON files; raises FertoolError for a file that is neither or that was changed."""
    models: list[Data] = []
    benchmarks: list[Data] = []
    evaluations: list[Data] = []
    comparisons: list[Sequence[Data]] = []
    sensitivities: dict[str, Data] = {}
    histories: dict[str, Sequence[Data]] = {}
    sweeps: list[Data] = []
    for path in files:
        if path.suffix != ".json":
            models.append({"file": str(path), "size_bytes": _size(path), **read_spec(path).shown()})
            continue
        data = _read_json(path)
        kind = _kind_of(path, data)
        _require_keys(path, kind, data)
        with wrapping_content_errors(str(path), "not as the command wrote it", _AGAIN):
            checked = as_type(data, kind)
        if isinstance(checked, Benchmark):
            benchmarks.append(data)
        elif isinstance(checked, EvaluationReport):
            evaluations += ({"file": path.name, **entry} for entry in data["results"])
            comparisons += [data["comparisons"]] if data.get("comparisons") else []
        elif isinstance(checked, Evaluation):
            evaluations.append({"file": path.name, **data})
        elif isinstance(checked, Traces):
            sensitivities[path.name] = data
        elif isinstance(checked, Sweep):
            # A sweep that has only begun has nothing to compare yet.
            sweeps += [data] if checked.points else []
        elif isinstance(checked, History):
            histories[Path(checked.file or path).stem] = data["history"]
    return Sources(
        tuple(models),
        tuple(benchmarks),
        tuple(evaluations),
        tuple(comparisons),
        sensitivities,
        histories,
        tuple(sweeps),
    )


def _size(path: Path) -> int:
    require_file(path)
    return path.stat().st_size


def _read_json(path: Path) -> dict[str, Any]:
    text = read_text(path, MAX_JSON_BYTES)
    with wrapping_content_errors(str(path), "", _AGAIN):
        data = parse_json(text, file_names=True)
    if not isinstance(data, dict):
        raise _unknown(path)
    return data


def _kind_of(path: Path, data: Data) -> type[Any]:
    """Return what a file is by the keys that only this kind has."""
    entries = data.get("results", [data])
    if not isinstance(entries, list) or not entries or not isinstance(entries[0], dict):
        raise _unknown(path)
    if "latency_s" in entries[0] and "results" in data:
        return Benchmark
    if "confusion" in entries[0]:
        return EvaluationReport if "results" in data else Evaluation
    for key, kind in {"layers": Traces, "points": Sweep, "history": History}.items():
        if key in data:
            return kind
    raise _unknown(path)


def _require_keys(path: Path, kind: type[Any], data: Data) -> None:
    """Raise FertoolError that lists what the first entry lacks, or else the whole."""
    entries = {Benchmark: FileFigures, EvaluationReport: Evaluation}
    missing = missing_keys(data["results"][0], entries[kind]) if kind in entries else []
    missing = missing or missing_keys(data, kind)
    if missing:
        raise FertoolError(f"{path}: keys are missing: {', '.join(missing)}", _AGAIN)


def _unknown(path: Path) -> FertoolError:
    return FertoolError(
        f"{path}: not a result of a fertool command",
        "give models and JSON of bench, eval, training, grids or sensitivity",
    )
