"""The files that `report` reads: models by their headers, and the JSON of other commands, told apart by their keys."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fertool.artifact.header import read_spec, require_file
from fertool.errors import FertoolError

Data = Mapping[str, Any]

_BENCH = {"file", "runtime", "threads", "batch", "latency_s", "throughput_per_s", "peak_rss_bytes", "size_bytes"}
_BENCH |= {"params", "macs", "accuracy", "samples_s"}
_EVAL = {"split", "n", "accuracy", "accuracy_ci95", "macro_f1", "balanced_accuracy", "ece", "per_class", "confusion"}
_SENSITIVITY = {"samples", "probes", "layers", "model_digest"}
_LAYER = {"name", "weight_trace", "weight_params"}
_EPOCH = {"epoch", "train_loss", "val_loss", "val_accuracy"}
_ROW = {
    "options",
    "seed",
    "split",
    "n",
    "accuracy",
    "accuracy_ci95",
    "loss",
    "best_epoch",
    "epochs",
    "seconds",
    "history",
}
_POINT = {"options", "seeds", "accuracy_mean", "accuracy_sd", "accuracy_ci95", "loss_mean"}


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
    """Read model headers and JSON files; raises FertoolError for a file that is neither or that lacks keys."""
    models: list[Data] = []
    benchmarks: list[Data] = []
    evaluations: list[Data] = []
    comparisons: list[Sequence[Data]] = []
    sensitivities: dict[str, Data] = {}
    histories: dict[str, Sequence[Data]] = {}
    sweeps: list[Data] = []
    for path in files:
        if path.suffix != ".json":
            models.append({"file": str(path), "size_bytes": _size(path), **asdict(read_spec(path))})
            continue
        data = _read_json(path)
        entries = data.get("results") or [data]
        if "latency_s" in entries[0]:
            _require(path, _BENCH, entries)
            _require(path, {"comparisons", "warnings", "runs", "environment"}, [data])
            benchmarks.append(data)
        elif "confusion" in entries[0]:
            _require(path, _EVAL, entries)
            evaluations += ({"file": path.name, **entry} for entry in entries)
            comparisons += [data["comparisons"]] if data.get("comparisons") else []
        elif "layers" in data:
            _require(path, _SENSITIVITY, [data])
            _require(path, _LAYER, data["layers"])
            sensitivities[path.name] = data
        elif "points" in data:
            _require(path, {"file", "axes", "seeds", "best", "rows"}, [data])
            _require(path, _ROW, data["rows"])
            _require(path, _POINT, data["points"])
            # A sweep that has only begun has nothing to compare yet.
            sweeps += [data] if data["points"] else []
        elif "history" in data:
            _require(path, _EPOCH, data["history"])
            histories[Path(data.get("file", path)).stem] = data["history"]
        else:
            raise _unknown(path)
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
    require_file(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FertoolError(f"{path}: not JSON ({error})", "make the file again") from None
    entries = data.get("results", [data]) if isinstance(data, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _unknown(path)
    return dict(data)


def _unknown(path: Path) -> FertoolError:
    return FertoolError(
        f"{path}: not a result of a fertool command",
        "give models and JSON of bench, eval, training, grids or sensitivity",
    )


def _require(path: Path, keys: Iterable[str], entries: Sequence[Any]) -> None:
    missing = sorted({key for entry in entries for key in keys if not isinstance(entry, dict) or key not in entry})
    if missing:
        raise FertoolError(f"{path}: keys are missing: {', '.join(missing)}", "make the file again with this version")
