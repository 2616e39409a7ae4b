"""Figures and tables of docs/results.md as text."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fertool.metrics import wilson_ci95
from fertool.report.units import p_value_text

FOLDER = Path(__file__).parent / "results"


def load(name: str) -> dict[str, Any]:
    """Return one file of docs/results/."""
    content: dict[str, Any] = json.loads((FOLDER / name).read_text())
    return content


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    heads = list(heads)
    lines = [_row(heads), "|" + " --- |" * len(heads)]
    lines += [_row(row) for row in rows]
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def mean_of(rows: Iterable[dict[str, Any]], key: str) -> float:
    """Return the mean of one figure."""
    return float(statistics.mean(row[key] for row in rows))


def count_of(rows: Iterable[dict[str, Any]], key: str) -> int:
    """Return how many different values a key has."""
    return len({row[key] for row in rows})


def arguments(model: dict[str, Any]) -> str:
    """Return an architecture with its arguments."""
    pairs = [f"{key}={value}" for key, value in model["arch_args"].items()]
    return ", ".join([model["arch"], *pairs])


def wilson_interval(accuracy: float, n: int) -> list[float]:
    """Return the 95 % interval of an accuracy on n images."""
    return list(wilson_ci95(round(accuracy * n), n))


def percent(fraction: float) -> str:
    """Return a fraction in percent."""
    return f"{100 * fraction:.2f} %"


def interval(bounds: list[float], factor: float = 100, decimals: int = 1) -> str:
    """Return an interval in brackets."""
    low, high = (f"{factor * bound:.{decimals}f}" for bound in bounds)
    return f"[{low}, {high}]"


def ratio(value: float, bounds: list[float], decimals: int = 2) -> str:
    """Return a ratio, for example of speeds, with its interval."""
    return f"{value:.{decimals}f} {interval(bounds, 1, decimals)}"


def points(difference: float, bounds: list[float]) -> str:
    """Return a difference of accuracies in points, with its interval."""
    low, high = (f"{100 * bound:+.2f}" for bound in bounds)
    return f"{100 * difference:+.2f} [{low}, {high}]"


def millions(count: float, decimals: int) -> str:
    """Return a count in millions, without the unit."""
    return f"{count / 1e6:.{decimals}f}"


def thousands(count: int) -> str:
    """Return a count with separators."""
    return f"{count:,}"


def spread(accuracies: list[float]) -> str:
    """Return mean and, of several trainings, standard deviation in percent."""
    mean = f"{100 * statistics.mean(accuracies):.2f}"
    if len(accuracies) == 1:
        return f"{mean} %"
    return f"{mean} ± {100 * statistics.stdev(accuracies):.2f} %"


def milliseconds(seconds: float, decimals: int = 2) -> str:
    """Return a time in milliseconds."""
    return f"{1e3 * seconds:.{decimals}f} ms"


def accuracy_with_interval(entry: dict[str, Any]) -> str:
    """Return the accuracy of one file and its interval."""
    return f"{percent(entry['accuracy'])} {interval(entry['accuracy_ci95'])}"


def without_duplicates(entry: dict[str, Any]) -> str:
    """Return the accuracy on images that are no copies of training images."""
    alone = entry["deduplicated"]
    return f"{percent(alone['accuracy'])} (n = {alone['n']:,})"


def pairs(comparisons: list[dict[str, Any]]) -> str:
    """Return a table of the paired differences of accuracy on the same images."""
    rows = []
    for comparison in comparisons:
        candidate, baseline = Path(comparison["candidate"]), Path(comparison["baseline"])
        rows.append(
            (
                f"{candidate.stem} less {baseline.stem}",
                f"{100 * comparison['difference']:+.2f}",
                interval(comparison["difference_ci95"], 100, 2),
                p_value_text(comparison["mcnemar_p"]),
            )
        )
    return table(("pair", "points", "interval", "McNemar p"), rows)


def change(comparison: dict[str, Any]) -> str:
    """Return the difference of a paired comparison, its interval and McNemar's p."""
    difference = points(comparison["difference"], comparison["difference_ci95"])
    return f"{difference}, p {p_value_text(comparison['mcnemar_p'])}"


FILTERS = {
    "percent": percent,
    "interval": interval,
    "ratio": ratio,
    "points": points,
    "millions": millions,
    "thousands": thousands,
    "mean": mean_of,
    "count_of": count_of,
}
