"""What is said of the results of boards: agreement, machine, temperature."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fertool.report.units import counted, percent_text, short_file_names
from fertool.results import BenchResult, FileResult, ImportedRun

AGREEMENT_NOTE = (
    "Same class: the test images of the bundle that get the same class as on the machine that "
    "exported, with the largest difference of a probability."
)
_DOT_PRODUCTS = ("asimddp", "avx512_vnni", "avx_vnni")
"""Instructions that sum products of four pairs of 8-bit integers at once."""


def agreement_cell(entry: FileResult) -> str:
    """Return how a file agrees with the machine that exported it; nothing for one measured here."""
    agreement = entry.agreement
    if agreement is None:
        return ""
    return f"{percent_text(agreement.top1_agreement)}\n{agreement.max_probability_diff:.2g}"


def result_names(results: Iterable[FileResult]) -> dict[str, str]:
    """Return a short name for each file; those of boards begin with the name of their JSON."""
    results = list(results)
    names = short_file_names(results)
    for entry in results:
        if entry.source:
            names[entry.file] = "/".join(Path(entry.file).parts[-2:])
    return names


def board_lines(report: BenchResult) -> list[str]:
    """Return a sentence for each run on a board, and what the column of agreement says."""
    lines = []
    for run in report.imports:
        count = 0
        for entry in report.results:
            if entry.source == run.source and entry.agreement is not None:
                count = max(count, entry.agreement.n)
        lines.append(f"{_run_line(run)}; {count} test images")
    if lines:
        lines.append(AGREEMENT_NOTE)
    return lines


def _run_line(run: ImportedRun) -> str:
    environment = run.environment
    has_dot_product = any(name in environment.instruction_sets for name in _DOT_PRODUCTS)
    parts = [
        f"{run.source}: {environment.processor}, {environment.system}",
        f"{'with' if has_dot_product else 'without'} dot product",
        f"ONNX Runtime {environment.versions.get('onnxruntime', '?')}",
        f"{counted(run.threads, 'thread')}, batch 1, {run.runs:,} passes",
    ]
    if run.celsius_before is not None and run.celsius_after is not None:
        parts.append(f"{run.celsius_before:.0f} to {run.celsius_after:.0f} °C")
    return "; ".join(parts)
