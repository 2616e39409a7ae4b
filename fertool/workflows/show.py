"""Describe a file by what it says of itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fertool.artifact.header import read_spec
from fertool.artifact.logits_header import is_logits, read_logits_spec
from fertool.errors import UsageError
from fertool.results import LogitsSummary, ShownModel


def describe_file(file: Path, *, layers: bool = False) -> ShownModel | LogitsSummary:
    """Return what the header of a model file or of a recording of logits says.

    With `layers` the operators of the network too, in running order. Raises FertoolError for other
    files, UsageError for the layers of a recording, which has none.
    """
    from fertool.formats.snippets import contract_of, snippet_of

    # First, since a recording has no header of a model.
    if is_logits(file):
        if layers:
            raise UsageError(f"``layers``: {file} holds logits, not a network", "give a model file")
        return LogitsSummary.of(file, read_logits_spec(file))
    spec = read_spec(file)
    contract = contract_of(file, spec)
    snippet = snippet_of(file, contract)
    size_bytes = file.stat().st_size
    summary = ShownModel.of(file, size_bytes, spec, contract=contract, snippet=snippet)
    if not layers:
        return summary
    return replace(summary, layers=tuple(spec.graph.to_builtins()["nodes"]))
