"""OUT.seeds.json and OUT.grid.json: the finished trainings of a sweep, a row for each, and what they come to."""

from __future__ import annotations

import json
import statistics
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fertool.artifact.input_files import MAX_JSON_BYTES, read_text
from fertool.cli.training import History
from fertool.errors import FertoolError
from fertool.results import Trial
from fertool.strict_json import WrongContentError, as_type, listed, parse_json

if TYPE_CHECKING:
    from fertool.spec import ProvenanceStep, Spec

Value = bool | int | float | str
Axes = Mapping[str, tuple[Value, ...]]


@dataclass(frozen=True)
class Row:
    """One finished training: its options by flag name, how its best epoch does on `n` images, and its model's digest.

    `loss` is that epoch's validation loss in nats; `best_epoch` counts from 1, through all rounds if there are any;
    `fingerprint` is the digest of the step that the model file records.
    """

    options: Mapping[str, Value]
    seed: int
    split: str
    n: int
    accuracy: float
    accuracy_ci95: tuple[float, float]
    loss: float
    best_epoch: int
    epochs: int
    seconds: float
    digest: str
    fingerprint: str
    history: History

    @classmethod
    def of(
        cls, options: Mapping[str, Value], step: ProvenanceStep, spec: Spec, history: History
    ) -> Row:
        """Describe a model as it was written, and the epochs that led to it."""
        assert spec.metrics is not None
        best = max(history, key=lambda record: (record["val_accuracy"], -record["val_loss"]))
        return cls(
            options=dict(options),
            seed=step.seed or 0,
            split=spec.metrics.split,
            n=spec.metrics.n,
            accuracy=spec.metrics.accuracy,
            accuracy_ci95=spec.metrics.accuracy_ci95,
            loss=best["val_loss"],
            best_epoch=history.index(best) + 1,
            epochs=len(history),
            seconds=sum(record["seconds"] for record in history),
            digest=spec.digest,
            fingerprint=fingerprint(step),
            history=history,
        )


@dataclass(frozen=True)
class Point:
    """The mean over the seeds of one choice of options.

    The accuracy has the standard deviation of the seeds or, when there is one only, its interval on the `n` images.
    """

    options: Mapping[str, Value]
    seeds: tuple[int, ...]
    n: int
    accuracy_mean: float
    accuracy_sd: float | None
    accuracy_ci95: tuple[float, float] | None
    loss_mean: float


@dataclass
class Ledger:
    """The rows so far of the sweep that makes `output`, kept in `path` and written anew with each."""

    path: Path
    output: Path
    axes: Axes
    seeds: tuple[int, ...]
    rows: list[Row] = field(default_factory=list)
    finished: bool = False

    def resume(self, wanted: Collection[str]) -> None:
        """Take over the rows with the `wanted` fingerprints that an earlier run has written.

        Raises FertoolError for a file that is not readable, and for the rows of another sweep that has not ended.
        """
        if not self.path.exists():
            return
        try:
            content = parse_json(read_text(self.path, MAX_JSON_BYTES), file_names=True)
            finished = as_type(content, _Trials).finished
            rows = [_row(entry) for entry in content["rows"]]
        except (WrongContentError, FertoolError) as error:
            raise self._refused(f"not readable ({error})") from None
        if not finished and any(row.fingerprint not in wanted for row in rows):
            raise self._refused("of a sweep with other options, data or versions")
        self.rows = [row for row in rows if row.fingerprint in wanted]

    def _refused(self, why: str) -> FertoolError:
        return FertoolError(
            f"{self.path}: the rows of a killed run, but {why}",
            "delete it, or start anew with --no-resume",
        )

    def row(self, step: ProvenanceStep) -> Row | None:
        """Return the row of one training, if it is finished."""
        own = fingerprint(step)
        return next((row for row in self.rows if row.fingerprint == own), None)

    def add(self, row: Row) -> None:
        """Take in a finished training, in the place of an earlier one of the same step."""
        self.rows = [*(other for other in self.rows if other.fingerprint != row.fingerprint), row]
        self.write()

    def write(self) -> None:
        """Write all of it, atomically."""
        from fertool.cli.output import write_json

        write_json(self.path, self.as_json(histories=True))

    @property
    def points(self) -> list[Point]:
        """Each choice of options that all seeds have been trained with, the best first."""
        groups: dict[str, list[Row]] = {}
        for row in self.rows:
            groups.setdefault(json.dumps(row.options), []).append(row)
        points = [_point(rows) for rows in groups.values() if len(rows) == len(self.seeds)]
        return sorted(points, key=lambda point: (-point.accuracy_mean, point.loss_mean))

    @property
    def best(self) -> Row:
        """The best seed of the best choice of options; there must be one."""
        options = self.points[0].options
        return max(
            (row for row in self.rows if row.options == options),
            key=lambda row: (row.accuracy, -row.loss),
        )

    def as_json(self, *, histories: bool) -> dict[str, Any]:
        """Return what the file holds: rows and points, each best first."""
        rows = sorted(self.rows, key=lambda row: (-row.accuracy, row.loss))
        shown = [
            {key: value for key, value in asdict(row).items() if histories or key != "history"}
            for row in rows
        ]
        points = self.points
        return {
            "file": self.output.name,
            "axes": {name: list(values) for name, values in self.axes.items()},
            "seeds": list(self.seeds),
            "finished": self.finished,
            "best": {"options": self.best.options, "seed": self.best.seed} if points else None,
            "points": [asdict(point) for point in points],
            "rows": shown,
        }


@dataclass(frozen=True)
class _Trials:
    """What a run that goes on takes from the file."""

    rows: tuple[Trial, ...]
    finished: bool


def _row(entry: Mapping[str, Any]) -> Row:
    """Return a checked row of the file; raises WrongContentError where it is of another version."""
    wrong = sorted({known.name for known in fields(Row)} ^ entry.keys())
    if wrong:
        raise WrongContentError(f"keys of a row missing or unknown: {listed(wrong)}")
    return Row(**{**entry, "accuracy_ci95": tuple(entry["accuracy_ci95"])})


def fingerprint(step: ProvenanceStep) -> str:
    """Digest everything that a model file says of how it was trained: options, inputs, versions and seed."""
    from fertool.header_json import canonical_json, digest_text

    return digest_text(canonical_json(asdict(step)))


def _point(rows: list[Row]) -> Point:
    accuracies = [row.accuracy for row in rows]
    return Point(
        options=rows[0].options,
        seeds=tuple(row.seed for row in rows),
        n=rows[0].n,
        accuracy_mean=statistics.fmean(accuracies),
        accuracy_sd=statistics.stdev(accuracies) if len(rows) > 1 else None,
        accuracy_ci95=rows[0].accuracy_ci95 if len(rows) == 1 else None,
        loss_mean=statistics.fmean(row.loss for row in rows),
    )
