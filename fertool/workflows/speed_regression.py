"""Whether files have become slower than those of an older benchmark, for CI."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fertool.config.benchmark import BenchConfig, SpeedLimit
from fertool.errors import FertoolError, LimitError, UsageError
from fertool.reporter import Reporter
from fertool.results import BenchResult, Environment, FileResult, SpeedRegression, TimeRatio

if TYPE_CHECKING:
    from fertool.runtime.bench_rows import Row

_KEEP_HINT = "keep the old file beside the new one, and name it by the path that OLD.json has"


@dataclass(frozen=True)
class _Pair:
    """What a new row is compared with; `rerun` is the row of the old file where it is there."""

    row: Row
    old: FileResult
    rerun: Row | None


@dataclass(frozen=True)
class OlderResults:
    """Results of an older benchmark, one for each new row, None where the old file has none."""

    pairs: tuple[_Pair | None, ...]

    @property
    def rows(self) -> list[Row]:
        """The rows of old files to be measured beside the new ones."""
        found = []
        for pair in self.pairs:
            if pair is not None and pair.rerun is not None:
                found.append(pair.rerun)
        return found


def read_older(
    limit: SpeedLimit, rows: Sequence[Row], config: BenchConfig, reporter: Reporter
) -> OlderResults:
    """Read the JSON of an older benchmark, and find what each new row is compared with.

    An old file that is still there, with the same bytes, is to be measured again; then it does not
    matter where the older results come from. Raises FertoolError for a JSON that is none of
    `bench`, that lacks a row's runtime or batch size, or whose times were measured on another
    machine, with other versions or other threads; UsageError for files that cannot be matched.
    """
    from fertool.report.result_files import read_benchmark

    path = limit.against
    assert path is not None
    older = read_benchmark(path)
    _require_interval(config)
    old_files = _match_files(path, rows, older)
    pairs: list[_Pair | None] = []
    missing: dict[str, None] = {}
    for row in rows:
        old = _find(path, older, row, old_files[row.path])
        if old is None:
            pairs.append(None)
            continue
        rerun = _row_of_old_file(path, old, row)
        if rerun is None:
            _require_comparable(path, older, old, row, config)
            missing[old.file] = None
        pairs.append(_Pair(row, old, rerun))
    for file in missing:
        reporter.note(
            f"{file}: not there as it was measured, so that times of two runs are compared, and "
            f"what differs between the runs counts for the file; {_KEEP_HINT}"
        )
    return OlderResults(tuple(pairs))


def _require_interval(config: BenchConfig) -> None:
    """Raise UsageError where so few times are measured that none would be beyond doubt."""
    from fertool.runtime.order_statistics import FEWEST_SAMPLES

    if config.runs < FEWEST_SAMPLES:
        raise UsageError(
            f"``against`` with ``runs={config.runs}``: too few for an interval of 95 %",
            f"leave ``runs`` out, or give at least {FEWEST_SAMPLES}",
        )


def _match_files(path: Path, rows: Sequence[Row], older: BenchResult) -> dict[Path, str]:
    """Return the old file that each new file is compared with.

    That is the only one, or the one of the same name, or else that in the same place.
    """
    # Without repetitions, in the order of the rows.
    new_files = list(dict.fromkeys(row.path for row in rows))
    old_files = list(dict.fromkeys(result.file for result in older.results))
    if len(old_files) == 1:
        return dict.fromkeys(new_files, old_files[0])
    by_name = {Path(file).name: file for file in old_files}
    if all(file.name in by_name for file in new_files):
        return {file: by_name[file.name] for file in new_files}
    if len(new_files) == len(old_files):
        return dict(zip(new_files, old_files, strict=True))
    raise UsageError(
        f"``against={path}``: has {len(old_files)} files ({', '.join(old_files)}), which are not "
        f"those of this benchmark",
        "bench as many files in the same order, or files of the same names",
    )


def _find(path: Path, older: BenchResult, row: Row, file: str) -> FileResult | None:
    """Return the older result for a row, None for a batch size that the old file does not take.

    Raises FertoolError where it was not asked for.
    """
    of_file = [result for result in older.results if result.file == file]
    for result in of_file:
        if (result.runtime, result.batch) == (row.runtime, row.batch_size):
            return result
    for warning in older.warnings:
        about = (warning.kind, warning.file, warning.runtime)
        if about == ("one-batch", file, row.runtime):
            return None
    known = ", ".join(f"{result.runtime} with batch {result.batch}" for result in of_file)
    raise FertoolError(
        f"{path}: {file} was not measured in {row.runtime} with ``batch_size={row.batch_size}``",
        f"it has: {known}",
    )


def _row_of_old_file(path: Path, old: FileResult, row: Row) -> Row | None:
    """Return the row of an old file, if a file with these bytes is where the JSON says.

    A relative path is looked up from here, then from the folder of the JSON.
    """
    from fertool.artifact.store import file_digest
    from fertool.runtime.bench_rows import Row

    # Results of older versions do not say which bytes they are of.
    if not old.sha256:
        return None
    for place in (Path(old.file), path.parent / old.file):
        if place.is_file() and file_digest(place) == old.sha256:
            return Row(place, row.runtime, row.batch_size)
    return None


def _require_comparable(
    path: Path, older: BenchResult, old: FileResult, row: Row, config: BenchConfig
) -> None:
    """Raise FertoolError where stored times would not tell of the files alone."""
    from fertool.runtime.environment import read_environment

    then = old.environment or older.environment
    now = read_environment(row.runtime)
    differences = _differences(then, now)
    if old.threads != config.threads:
        differences.append(f"threads: {old.threads}, now {config.threads}")
    if differences:
        raise FertoolError(
            f"{path}: {old.file} was measured under other conditions ({'; '.join(differences)}), "
            "and is not there to be measured again",
            f"{_KEEP_HINT}; or make {path.name} anew here",
        )


def _differences(then: Environment, now: Environment) -> list[str]:
    """Return what two environments differ in that times depend on."""
    found = []
    for name in ("processor", "system", "cores"):
        before, after = getattr(then, name), getattr(now, name)
        if before != after:
            found.append(f"{name}: {before}, now {after}")
    for package, version in now.versions.items():
        # fertool times what others compute.
        if package != "fertool" and then.versions.get(package) != version:
            found.append(f"{package}: {then.versions.get(package, 'unknown')}, now {version}")
    return found


def compare_with_older(
    older: OlderResults,
    new: Sequence[FileResult | None],
    rerun: Sequence[FileResult | None],
    limit: SpeedLimit,
    config: BenchConfig,
) -> SpeedRegression:
    """Return the ratios of new times to old ones.

    `new` has a result or None for each new row, `rerun` for each of `older.rows`.
    """
    again = iter(rerun)
    ratios = []
    for result, pair in zip(new, older.pairs, strict=True):
        if pair is None:
            continue
        measured_again = None if pair.rerun is None else next(again)
        # A batch size that the new file does not take.
        if result is None:
            continue
        ratios.append(_time_ratio(result, pair.old, measured_again, limit, config))
    return SpeedRegression(str(limit.against), limit.fraction, tuple(ratios))


def _time_ratio(
    new: FileResult,
    old: FileResult,
    rerun: FileResult | None,
    limit: SpeedLimit,
    config: BenchConfig,
) -> TimeRatio:
    from fertool.runtime.benchmark import samples_of
    from fertool.runtime.time_ratios import paired_ratio, ratio_of_means, unpaired_ratio

    # Measured a moment ago and interleaved, what the machine does hits both files.
    baseline = rerun or old
    times = samples_of(new), samples_of(baseline)
    if rerun is None:
        ratio, interval = unpaired_ratio(*times, config.seed)
    elif new.profiles or rerun.profiles:
        ratio, interval = ratio_of_means(*times, config.seed)
    else:
        ratio, interval = paired_ratio(*times, config.seed)
    return TimeRatio(
        baseline=baseline.file,
        candidate=new.file,
        runtime=new.runtime,
        batch=new.batch,
        method="stored" if rerun is None else "rerun",
        baseline_s=baseline.latency_s.median,
        candidate_s=new.latency_s.median,
        ratio=ratio,
        ratio_ci95=interval,
        # The whole interval: a job that fails by chance is soon switched off.
        exceeded=interval[0] > 1 + limit.fraction,
    )


def require_speed(result: BenchResult) -> None:
    """Raise LimitError if a file of a benchmark is slower than the limit allows, for certain."""
    if result.against is None or not result.against.exceeded:
        return
    limit = 100 * result.against.max_regression
    texts = []
    for entry in result.against.exceeded:
        low, high = (100 * (bound - 1) for bound in entry.ratio_ci95)
        texts.append(
            f"{entry.candidate} is {100 * (entry.ratio - 1):.1f} % slower than {entry.baseline} "
            f"in {entry.runtime} (95 % interval {low:.1f} to {high:.1f} %)"
        )
    raise LimitError(
        f"{'; '.join(texts)}; allowed: {limit:g} %",
        "see what became slower: ``profile=True``; or allow more: ``max_regression``",
    )
