"""OUT.seeds.json and OUT.grid.json: a result for each finished training of a sweep."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fertool.artifact.input_files import MAX_JSON_BYTES, read_text
from fertool.config.sweep import Axes, Value
from fertool.errors import FertoolError
from fertool.results import BestTrial, ConfigSummary, Epoch, SweepResults, TrialResult
from fertool.strict_json import WrongContentError, as_type, parse_json
from fertool.workflows.outputs import write_json

if TYPE_CHECKING:
    from fertool.spec import ProvenanceStep, Spec


def fingerprint(step: ProvenanceStep) -> str:
    """Return the digest of all that a model file records of its training: options, inputs, seed."""
    from fertool.header_json import canonical_json, digest_text

    return digest_text(canonical_json(asdict(step)))


def trial_result(
    options: Mapping[str, Value], step: ProvenanceStep, spec: Spec, history: list[Epoch]
) -> TrialResult:
    """Return the result of a training that was written as `spec`, with its epochs."""
    assert spec.metrics is not None
    best = max(history, key=lambda record: record.rank)
    return TrialResult(
        options=dict(options),
        seed=step.seed or 0,
        split=spec.metrics.split,
        n=spec.metrics.n,
        accuracy=spec.metrics.accuracy,
        accuracy_ci95=spec.metrics.accuracy_ci95,
        loss=best.val_loss,
        best_epoch=history.index(best) + 1,
        epochs=len(history),
        seconds=sum(record.seconds for record in history),
        digest=spec.digest,
        fingerprint=fingerprint(step),
        history=tuple(history),
    )


@dataclass
class SweepFile:
    """The results so far of the sweep that makes `output`, rewritten to `path` with each."""

    path: Path
    output: Path
    axes: Axes
    seeds: tuple[int, ...]
    trials: list[TrialResult] = field(default_factory=list)
    finished: bool = False

    def resume(self, wanted: Mapping[str, Mapping[str, Value]]) -> None:
        """Take over the `wanted` results of an earlier run: options by fingerprint.

        Raises FertoolError for a file that is not readable, and for results of another sweep that
        has not ended.
        """
        if not self.path.exists():
            return
        try:
            content = parse_json(read_text(self.path, MAX_JSON_BYTES), file_names=True)
            found = as_type(content, _FoundResults)
            # In full, so that nothing which another version has written is lost.
            for row in content["rows"]:
                as_type(row, TrialResult, known_only=True)
        except (WrongContentError, FertoolError) as error:
            raise self._refused(f"not readable ({error})") from None
        trials = []
        for trial in found.rows:
            if trial.fingerprint in wanted:
                # The same training may have been a part of another grid.
                trials.append(replace(trial, options=wanted[trial.fingerprint]))
            elif not found.finished:
                raise self._refused("of a sweep with other options, data or versions")
        self.trials = trials

    def _refused(self, why: str) -> FertoolError:
        return FertoolError(
            f"{self.path}: the rows of a killed run, but {why}",
            "delete it, or start anew with ``resume=False``",
        )

    def result_of(self, step: ProvenanceStep) -> TrialResult | None:
        """Return the result of one training, if it is finished."""
        own = fingerprint(step)
        for trial in self.trials:
            if trial.fingerprint == own:
                return trial
        return None

    def add(self, result: TrialResult) -> None:
        """Add a finished training, in the place of an earlier one of the same step."""
        others = [trial for trial in self.trials if trial.fingerprint != result.fingerprint]
        self.trials = [*others, result]
        self.write()

    def write(self) -> None:
        """Write all results, atomically."""
        write_json(self.path, self.results.as_dict())

    @property
    def summaries(self) -> list[ConfigSummary]:
        """The mean of each choice of options that all seeds have been trained with, best first."""
        # By their text, since maps are no keys.
        by_options: dict[str, list[TrialResult]] = {}
        for trial in self.trials:
            by_options.setdefault(json.dumps(trial.options), []).append(trial)
        summaries = []
        for trials in by_options.values():
            # A mean of fewer seeds could win by chance.
            if len(trials) == len(self.seeds):
                summaries.append(_summarize(trials))
        return sorted(summaries, key=lambda summary: (-summary.accuracy_mean, summary.loss_mean))

    @property
    def best(self) -> TrialResult:
        """The best seed of the best choice of options; one must be finished."""
        options = self.summaries[0].options
        candidates = [trial for trial in self.trials if trial.options == options]
        return max(candidates, key=lambda trial: (trial.accuracy, -trial.loss))

    @property
    def results(self) -> SweepResults:
        """All results, as the file has them."""
        summaries = tuple(self.summaries)
        best = None
        if summaries:
            best = BestTrial(self.best.options, self.best.seed)
        return SweepResults(
            file=self.output.name,
            axes=self.axes,
            seeds=self.seeds,
            finished=self.finished,
            best=best,
            points=summaries,
            rows=tuple(sorted(self.trials, key=lambda trial: (-trial.accuracy, trial.loss))),
        )


@dataclass(frozen=True)
class _FoundResults:
    """What a resumed run takes from the file, of as many trainings as there are."""

    rows: tuple[TrialResult, ...]
    finished: bool = False


def _summarize(trials: Sequence[TrialResult]) -> ConfigSummary:
    accuracies = [trial.accuracy for trial in trials]
    deviation: float | None = None
    interval: tuple[float, float] | None = trials[0].accuracy_ci95
    # The interval of one seed is of its images alone; several show how much trainings differ.
    if len(trials) > 1:
        deviation, interval = statistics.stdev(accuracies), None
    return ConfigSummary(
        options=trials[0].options,
        seeds=tuple(trial.seed for trial in trials),
        n=trials[0].n,
        accuracy_mean=statistics.fmean(accuracies),
        accuracy_sd=deviation,
        accuracy_ci95=interval,
        loss_mean=statistics.fmean(trial.loss for trial in trials),
    )
