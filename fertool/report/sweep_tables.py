"""What a sweep over options and seeds found (OUT.grid.json, OUT.seeds.json), as rows of text."""

from __future__ import annotations

from fertool.report.text_table import TextTable, numeric_headers
from fertool.report.units import interval_text, percent_text, time_text, value_text
from fertool.results import ConfigSummary, SweepResults, TrialResult


def layout_trials(sweep: SweepResults) -> TextTable:
    """Lay out every training of a sweep."""
    has_seeds = len(sweep.seeds) > 1
    headers = numeric_headers(sweep.axes)
    if has_seeds:
        headers.append(">seed")
    headers += [">accuracy", ">95 % interval", ">loss", ">best epoch", ">time"]

    rows = []
    for trial in sweep.rows:
        cells = _option_cells(sweep, trial)
        if has_seeds:
            cells.append(str(trial.seed))
        cells.append(percent_text(trial.accuracy))
        cells.append(interval_text(trial.accuracy_ci95))
        cells.append(f"{trial.loss:.3f}")
        cells.append(f"{trial.best_epoch} of {trial.epochs}")
        cells.append(time_text(trial.seconds))
        rows.append(tuple(cells))
    return TextTable(tuple(headers), tuple(rows))


def layout_means(sweep: SweepResults) -> TextTable:
    """Lay out the mean over the seeds of each combination of a sweep's options."""
    rows = []
    for point in sweep.points:
        seeds, loss = str(len(point.seeds)), f"{point.loss_mean:.3f}"
        rows.append((*_option_cells(sweep, point), mean_text(point), seeds, loss))
    options = numeric_headers(sweep.axes)
    return TextTable((*options, ">mean ± sd", ">seeds", ">mean loss"), tuple(rows))


def _option_cells(sweep: SweepResults, entry: TrialResult | ConfigSummary) -> list[str]:
    """Return the values of the varied options, in the order of the columns."""
    return [value_text(entry.options[name]) for name in sweep.axes]


def sweep_caption(sweep: SweepResults) -> str:
    """Return what the figures of a sweep are, and which training the model file is of."""
    best, first = sweep.best, sweep.rows[0]
    assert best is not None
    chosen = []
    for name, value in best.options.items():
        chosen.append(f"{name} {value_text(value)}")
    chosen.append(f"seed {best.seed}")
    measured = f"{first.split}, n = {first.n:,}"
    # The best of several figures is above the true one by chance.
    return (
        f"{measured}; chosen there: {', '.join(chosen)}, whose own figure is therefore optimistic"
    )


def mean_text(point: ConfigSummary) -> str:
    """Return a mean over seeds with the standard deviation of one: "64.20 ± 0.35 %"."""
    mean, deviation = 100 * point.accuracy_mean, point.accuracy_sd
    # One seed has no deviation.
    if deviation is None:
        return f"{mean:.2f} %"
    return f"{mean:.2f} ± {100 * deviation:.2f} %"
