"""Model files of any kind, ready to run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fertool.config.foreign_files import ForeignModel
from fertool.reporter import Reporter
from fertool.workflows.model import Model

if TYPE_CHECKING:
    from fertool.runtime import Predictor


def open_any(
    model: Model | str | Path,
    foreign: ForeignModel,
    reporter: Reporter,
    runtime: str | None = None,
) -> Predictor:
    """Return a predictor for a model, or for a model file of any kind.

    A file runs in its format's own runtime unless another one is named. What is assumed of a file
    of another program is noted. Raises FertoolError for a file that cannot be read, UsageError
    where its classes or its size are missing.
    """
    from fertool.runtime.opening import open_predictor
    from fertool.runtime.runtimes.torch import torch_predictor

    # A model in memory needs no file, and has the name of its file in messages all the same.
    if isinstance(model, Model):
        return torch_predictor(Path(model.name), model.spec, model.module)
    predictor = open_predictor(Path(model), foreign=foreign, runtime=runtime)
    note_assumptions(predictor, foreign, reporter)
    return predictor


def note_assumptions(predictor: Predictor, foreign: ForeignModel, reporter: Reporter) -> None:
    """Note what is assumed of a file of another program, or that the options do not apply."""
    if predictor.assumptions:
        reporter.note(f"{predictor.path}: {predictor.assumptions.description}")
    elif foreign.is_given:
        reporter.note(
            f"{predictor.path}: has a header; options that describe files of other programs are "
            "ignored"
        )
