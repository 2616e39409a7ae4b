"""Results on the terminal: plain data in (the keys of each command's --json), Rich renderables out, for 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fertool.report import changes, grids
from fertool.report.grids import Data, Fact, Grid, bench_warnings

if TYPE_CHECKING:
    from fertool.hessian import Sensitivity

__all__ = [
    "bench_table",
    "bench_warnings",
    "bits_table",
    "change_table",
    "comparison_table",
    "data_table",
    "eval_table",
    "layers_table",
    "nodes_table",
    "plan_table",
    "sensitivity_table",
    "show_table",
    "sweep_table",
]

_MOST_CONFUSION_COLUMNS = 8


def bench_table(report: Data) -> RenderableType:
    """Return the table of `bench --json`."""
    return Group(_draw(grids.bench_grid(report)), Text(grids.bench_caption(report), "dim"))


def eval_table(entry: Data) -> RenderableType:
    """Return one file's figures of `eval --json`: accuracy with its interval, each class, and who is taken for whom."""
    head = Text(str(entry.get("file", "")), "bold")
    parts: list[RenderableType] = [
        head,
        _facts(grids.eval_facts(entry)),
        _draw(grids.class_grid(entry)),
    ]
    if len(entry["per_class"]) <= _MOST_CONFUSION_COLUMNS:
        parts += [
            Text("answers to each class, in percent of its images"),
            _draw(grids.confusion_grid(entry)),
        ]
    return Group(*parts)


def comparison_table(comparisons: Sequence[Data]) -> RenderableType:
    """Return the paired comparisons of `eval --json`."""
    head = Text(f"accuracy less that of {comparisons[0]['baseline']}, on the same images")
    return Group(head, _draw(grids.comparison_grid(comparisons)))


def plan_table(before: Mapping[str, int], *afters: Mapping[str, int]) -> RenderableType:
    """Return the widths of a pruning plan, or of the several widths of a dynamic network."""
    return _draw(changes.plan_grid(before, *afters))


def nodes_table(nodes: Sequence[Data]) -> RenderableType:
    """Return the operators of a network in running order."""
    return _draw(changes.nodes_grid(nodes))


def layers_table(layers: Sequence[Data]) -> RenderableType:
    """Return what can be pruned and what can be integer, by layer."""
    return _draw(changes.layers_grid(layers))


def change_table(before: Data, after: Data) -> RenderableType:
    """Return what a step does to a model: any of `size_bytes`, `params`, `macs` and `accuracy` in both maps."""
    return _draw(changes.change_grid(before, after))


def bits_table(quant: Data) -> RenderableType:
    """Return how many channels of each layer have how many bits, from `quant` of `show --json`."""
    return _draw(changes.bits_grid(quant))


def sensitivity_table(sensitivity: Sensitivity) -> RenderableType:
    """Return for each layer its channels, and the mean, smallest and largest trace."""
    data = asdict(sensitivity)
    return Group(
        _draw(changes.sensitivity_grid(data)), Text(changes.sensitivity_caption(data), "dim")
    )


def data_table(found: Data) -> RenderableType:
    """Return what `data info --json` gives: images of each class in each split, then what can mislead."""
    return Group(_draw(grids.data_grid(found)), _facts(grids.data_facts(found)))


def sweep_table(sweep: Data) -> RenderableType:
    """Return a sweep's trainings and, over several seeds, the mean of each combination; the best first."""
    parts: list[RenderableType] = [_draw(grids.sweep_grid(sweep))]
    if len(sweep["seeds"]) > 1:
        parts.append(_draw(grids.points_grid(sweep)))
    return Group(*parts, Text(grids.sweep_caption(sweep), "dim"))


def show_table(summary: Data) -> RenderableType:
    """Return what `show --json` gives: the header of a file of a model or of logits, and the steps that made it."""
    own = (
        grids.logits_facts(summary)
        if summary.get("kind") == "logits"
        else grids.model_facts(summary)
    )
    facts = _facts([("file", summary["file"]), *own])
    return (
        Group(facts, _draw(grids.history_grid(summary["provenance"])))
        if summary["provenance"]
        else facts
    )


def _draw(grid: Grid) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for header in grid.headers:
        number = header.startswith(">")
        table.add_column(
            Text(header.removeprefix(">")),
            justify="right" if number else "left",
            no_wrap=number,
            overflow="ellipsis" if number else "fold",
        )
    for row in grid.rows:
        table.add_row(*map(_cell, row))
    return table


def _cell(text: str) -> Text:
    """Text as it is: a path with brackets is no markup."""
    first, line_break, rest = text.partition("\n")
    return Text(first).append(line_break + rest, "dim")


def _facts(pairs: Iterable[Fact]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(Text(name, "dim"), Text(value))
    return table
