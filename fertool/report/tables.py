"""Results on the terminal, for 80 columns: Rich renderables of what the commands give as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import UNSET
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fertool.artifact.contract import Contract
from fertool.report import change_tables, graph_tables, model_tables, sweep_tables
from fertool.report.benchmark_tables import (
    bench_warnings,
    benchmark_caption,
    layout_benchmark,
    layout_operators,
    layout_regression,
    layout_starts,
    operators_caption,
    regression_caption,
)
from fertool.report.board_text import board_lines
from fertool.report.change_tables import Costs
from fertool.report.data_tables import data_facts, layout_class_counts, layout_problems
from fertool.report.evaluation_tables import (
    corruption_caption,
    evaluation_facts,
    layout_classes,
    layout_comparisons,
    layout_confusion,
    layout_corruptions,
)
from fertool.report.sensitivity_tables import layout_sensitivity, sensitivity_caption
from fertool.report.text_table import Fact, TextTable
from fertool.results import (
    AccuracyComparison,
    BenchResult,
    Change,
    DataInfo,
    Evaluation,
    LayerSurvey,
    LogitsSummary,
    ModelSummary,
    NodeSummary,
    PrunePreview,
    QuantizePreview,
    Sensitivity,
    SweepResults,
    UnlabeledChange,
)

__all__ = [
    "Costs",
    "bench_table",
    "bench_warnings",
    "change_table",
    "comparison_table",
    "contract_table",
    "data_table",
    "eval_table",
    "layers_table",
    "nodes_table",
    "plan_table",
    "preview_table",
    "sensitivity_table",
    "show_table",
    "sweep_table",
]

# More columns do not fit into 80 characters.
_MAX_CONFUSION_COLUMNS = 8


def bench_table(report: BenchResult) -> RenderableType:
    """Return the table of a benchmark, and those of operators and of older results, if any."""
    parts: list[RenderableType] = [_draw(layout_benchmark(report))]
    for line in (benchmark_caption(report), *board_lines(report)):
        parts.append(Text(line, "dim"))
    starts = layout_starts(report)
    if starts is not None:
        parts.append(_draw(starts))
    for entry in report.results:
        if entry.operators:
            parts += [_draw(layout_operators(entry)), Text(operators_caption(entry), "dim")]
    if report.against is not None:
        parts.append(_draw(layout_regression(report, report.against)))
        parts.append(Text(regression_caption(report.against), "dim"))
    return Group(*parts)


def eval_table(entry: Evaluation) -> RenderableType:
    """Return one evaluated file's figures: accuracy, those of each class, and confusions."""
    parts: list[RenderableType] = [
        Text(entry.file, "bold"),
        _draw_facts(evaluation_facts(entry)),
        _draw(layout_classes(entry)),
    ]
    if len(entry.per_class) <= _MAX_CONFUSION_COLUMNS:
        parts.append(Text("predictions for each class, in percent of its images"))
        parts.append(_draw(layout_confusion(entry)))
    if entry.corruptions is not UNSET:
        parts.append(Text(corruption_caption(entry)))
        parts.append(_draw(layout_corruptions(entry.corruptions)))
    return Group(*parts)


def comparison_table(comparisons: Sequence[AccuracyComparison]) -> RenderableType:
    """Return the paired comparisons of evaluated files."""
    head = Text(f"accuracy less that of {comparisons[0].baseline}, on the same images")
    return Group(head, _draw(layout_comparisons(comparisons)))


def plan_table(before: Mapping[str, int], *afters: Mapping[str, int]) -> RenderableType:
    """Return the channels of a pruning plan, or those of a dynamic network's profiles."""
    return _draw(change_tables.layout_plan(before, *afters))


def contract_table(contract: Contract) -> RenderableType:
    """Return how a file is fed, and what it gives."""
    facts = model_tables.contract_facts(contract)
    return Group(Text("\nin other programs", "bold"), _draw_facts(facts), Text())


def nodes_table(nodes: Sequence[NodeSummary]) -> RenderableType:
    """Return the operators of a network in running order."""
    return _draw(graph_tables.layout_nodes(nodes))


def layers_table(layers: Sequence[LayerSurvey]) -> RenderableType:
    """Return what can be pruned and what can be integer, by layer."""
    return _draw(graph_tables.layout_layers(layers))


def change_table(
    before: Costs, after: Costs, change: Change, unlabeled: UnlabeledChange | None = None
) -> RenderableType:
    """Return what a step does to a model."""
    return _draw(change_tables.layout_change(before, after, change, unlabeled))


def preview_table(preview: PrunePreview | QuantizePreview) -> RenderableType:
    """Return what pruning or quantization would make of a model."""
    if isinstance(preview, PrunePreview):
        return _pruning_preview(preview)
    return _quantization_preview(preview)


def _pruning_preview(preview: PrunePreview) -> RenderableType:
    """Return the channels of a pruning plan, or of each profile, and what the network costs."""
    plans = preview.profiles
    parts = [plan_table(plans[0].widths_before, *(plan.widths for plan in plans))]
    for plan in plans:
        before = Costs(params=plan.params_before, macs=plan.macs_before)
        after = Costs(params=plan.params, macs=plan.macs)
        parts.append(change_table(before, after, Change()))
    return Group(*parts)


def _quantization_preview(preview: QuantizePreview) -> RenderableType:
    """Return how many channels of each layer would have how many bits, and the change."""
    before = Costs(size_bytes=preview.size_bytes_before)
    after = Costs(size_bytes=preview.size_bytes)
    change = change_table(before, after, preview.change)
    return Group(_draw(change_tables.layout_bits(preview.quant)), change)


def sensitivity_table(sensitivity: Sensitivity) -> RenderableType:
    """Return for each layer its channels, and the mean, smallest and largest trace."""
    table = _draw(layout_sensitivity(sensitivity))
    return Group(table, Text(sensitivity_caption(sensitivity), "dim"))


def data_table(found: DataInfo) -> RenderableType:
    """Return the images of each class in each split of a data set, its figures and problems."""
    problems: RenderableType = Text("no problems found")
    if found.problems:
        problems = _draw(layout_problems(found))
    return Group(
        _draw(layout_class_counts(found)), _draw_facts(data_facts(found)), Text(), problems
    )


def sweep_table(sweep: SweepResults) -> RenderableType:
    """Return a sweep's trainings and, over several seeds, the mean of each combination."""
    parts: list[RenderableType] = [_draw(sweep_tables.layout_trials(sweep))]
    if len(sweep.seeds) > 1:
        parts.append(_draw(sweep_tables.layout_means(sweep)))
    parts.append(Text(sweep_tables.sweep_caption(sweep), "dim"))
    return Group(*parts)


def show_table(summary: ModelSummary | LogitsSummary) -> RenderableType:
    """Return the header of a file of a model or of logits, and the steps that made it."""
    if isinstance(summary, LogitsSummary):
        header = model_tables.logits_facts(summary)
    else:
        header = model_tables.model_facts(summary)
    facts = _draw_facts([("file", str(summary.file)), *header])
    if not summary.provenance:
        return facts
    return Group(facts, _draw(model_tables.layout_history(summary.provenance)))


def _draw(content: TextTable) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for title, is_numeric in zip(content.titles, content.numeric, strict=True):
        # Half a number would mislead; half a name goes on in the next line.
        if is_numeric:
            table.add_column(Text(title), justify="right", no_wrap=True, overflow="ellipsis")
        else:
            table.add_column(Text(title), justify="left", overflow="fold")
    for row in content.rows:
        cells = [_cell(text) for text in row]
        table.add_row(*cells)
    return table


def _cell(text: str) -> Text:
    """Return a cell whose lines after the first are dim."""
    # Text and not str: Rich would take brackets in a path for markup.
    first, line_break, rest = text.partition("\n")
    return Text(first).append(line_break + rest, "dim")


def _draw_facts(pairs: Iterable[Fact]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(Text(name, "dim"), Text(value))
    return table
