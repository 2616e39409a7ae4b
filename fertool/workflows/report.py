"""The page about models: results of commands, histories beside the models, and mistakes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fertool.config.option import configured
from fertool.config.reporting import ReportConfig
from fertool.errors import FertoolError, UsageError
from fertool.report.result_files import ReportData, read_history, read_result_files
from fertool.reporter import SILENT, Reporter
from fertool.results import ModelSummary
from fertool.workflows.data import Data
from fertool.workflows.outputs import HISTORY_SUFFIX, history_path

_MOST_NEIGHBORS = 1000
"""Files beside a model that are looked at."""


def make_report(
    files: Sequence[Path],
    data: Data | None = None,
    config: ReportConfig = ReportConfig(),
    *,
    as_markdown: bool = False,
    reporter: Reporter = SILENT,
    **options: Any,
) -> str:
    """Return one document, HTML or Markdown, about model files and the JSON of commands.

    The histories of the models, and of those in the same folders that they were made from, are
    found by themselves. With `data` the first and the last model are compared on its images, and
    HTML shows the surest mistakes of both: the page then holds these images. `options` are those of
    `ReportConfig`, by name. The same files give the same text.

    Raises FertoolError for files of other kinds, UsageError for `data` without a model.
    """
    from fertool.report.page import render_page

    (config,) = configured(config, options)
    found = read_result_files(files)
    _add_histories(found, reporter)
    if data is not None:
        _add_mistakes(found, data, config, as_markdown, reporter)
    elif config.grad_cam:
        raise UsageError("``grad_cam=True`` without ``data``", "give the images to look at")
    return render_page(found, as_markdown=as_markdown)


def _add_histories(found: ReportData, reporter: Reporter) -> None:
    """Add the training of each model and of its ancestors, the oldest first."""
    known = set(found.histories)
    for model in _lineage(found.models):
        path = history_path(model)
        if model.stem in known or not path.is_file():
            continue
        try:
            found.histories[model.stem] = read_history(path)
        # Nobody asked for this file: the page is as good without it.
        except FertoolError as error:
            reporter.warn(f"training curves left out: {error.message}")


def _lineage(models: Iterable[ModelSummary]) -> list[Path]:
    """Return the files of the models, after those in their folders that they were made from."""
    named = [Path(str(model.file)) for model in models]
    digests: dict[str, None] = {}
    for model in models:
        for step in model.provenance:
            digests.update(dict.fromkeys(step.inputs.values()))
    by_digest: dict[str, Path] = {}
    for folder in sorted({path.parent for path in named}):
        by_digest.update(_trained_models(folder))
    # The steps are in order, so that a teacher comes before its student.
    ancestors = [by_digest[digest] for digest in digests if digest in by_digest]
    return list(dict.fromkeys([*ancestors, *named]))


def _trained_models(folder: Path) -> dict[str, Path]:
    """Return the models of a folder that have a history, by digest."""
    from fertool.artifact.header import read_spec

    models = {}
    for path in sorted(folder.glob(f"*{HISTORY_SUFFIX}"))[:_MOST_NEIGHBORS]:
        model = path.with_name(path.name.removesuffix(HISTORY_SUFFIX))
        try:
            models[read_spec(model).digest] = model
        # A folder may have histories of models that are gone, or that are no longer files of ours.
        except FertoolError:
            continue
    return models


def _add_mistakes(
    found: ReportData, data: Data, config: ReportConfig, as_markdown: bool, reporter: Reporter
) -> None:
    from fertool.workflows.report_mistakes import find_mistakes

    if not found.models:
        raise UsageError("``data`` without a model", "give model files, .pt or .onnx, as well")
    # A document without pictures needs the comparison only.
    mistakes, comparison = find_mistakes(
        found.models, data, config, with_images=not as_markdown, reporter=reporter
    )
    found.mistakes = mistakes
    if comparison is None:
        return
    compared: set[tuple[str, str]] = set()
    for comparisons in found.comparisons:
        compared.update((entry.baseline, entry.candidate) for entry in comparisons)
    if (comparison.baseline, comparison.candidate) not in compared:
        found.comparisons.append((comparison,))
