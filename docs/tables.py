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


def mean_of(rows: list[dict[str, Any]], key: str) -> float:
    """Return the mean of one figure."""
    return statistics.mean(row[key] for row in rows)


def arguments(model: dict[str, Any]) -> str:
    """Return an architecture with its arguments."""
    return f"{model['arch']}, {', '.join(f'{key}={value}' for key, value in model['arch_args'].items())}"


def wilson_interval(accuracy: float, n: int) -> list[float]:
    """Return the 95 % interval of an accuracy on n images."""
    return list(wilson_ci95(round(accuracy * n), n))


def load(name: str) -> dict[str, Any]:
    """Return one file of docs/results/."""
    content: dict[str, Any] = json.loads((FOLDER / name).read_text())
    return content


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    heads = list(heads)
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def percent(share: float) -> str:
    """Return a share in percent."""
    return f"{100 * share:.2f} %"


def interval(bounds: list[float], factor: float = 100, decimals: int = 1) -> str:
    """Return an interval in brackets."""
    return f"[{factor * bounds[0]:.{decimals}f}, {factor * bounds[1]:.{decimals}f}]"


def pairs(comparisons: list[dict[str, Any]]) -> str:
    """Paired differences of accuracy on the same images."""
    rows = [
        (
            f"{Path(c['candidate']).stem} less {Path(c['baseline']).stem}",
            f"{100 * c['difference']:+.2f}",
            interval(c["difference_ci95"], 100, 2),
            p_value_text(c["mcnemar_p"]),
        )
        for c in comparisons
    ]
    return table(("pair", "points", "interval", "McNemar p"), rows)
