"""Import any network as a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fertool.artifact.atomic import require_writable
from fertool.config.importing import ImportConfig
from fertool.config.option import configured
from fertool.reporter import SILENT, Reporter
from fertool.results import ImportFindings, ImportResult, LayerSurvey
from fertool.workflows.model import Model
from fertool.workflows.outputs import as_path
from fertool.workflows.provenance import make_step

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, eq=False)
class ImportedModel(Model):
    """A model that was compared with its source.

    `max_abs_diff` is the largest difference of a logit; `layers` has, for each layer with weights,
    whether it can be pruned and quantized.
    """

    max_abs_diff: float = 0.0
    layers: tuple[LayerSurvey, ...] = ()

    @property
    def summary(self) -> ImportResult:
        """What the command prints: the header of the file, and the comparison with the source."""
        findings = ImportFindings(self.max_abs_diff, self.layers)
        return ImportResult.of(self.path, self.size_bytes, self.spec, import_=findings)


def import_model(
    source: str | Path | nn.Module,
    config: ImportConfig = ImportConfig(),
    *,
    output: str | Path | None = None,
    reporter: Reporter = SILENT,
    **options: Any,
) -> ImportedModel:
    """Return the network of a source as a model, written to `output` if that is given.

    `source` is a name of the zoo, `torchvision:NAME`, `timm:NAME`, `file.py:factory`, a .pt2 or
    .onnx file, or a module. Python is run only where the source names it. `options` are those of
    `ImportConfig`, by name.

    Raises UsageError for other sources, FertoolError for unknown operators, for weights that do not
    fit, and for logits that are not those of the source.
    """
    (config,) = configured(config, options)
    if isinstance(source, Path):
        source = str(source)
    # A module in memory has no file.
    file = None
    if isinstance(source, str):
        file = _file_of(source)
    output = as_path(output)
    # Before the network is captured, which takes seconds.
    if output is not None:
        require_writable(output, *(path for path in (config.weights, file) if path))

    from fertool.importing import import_network
    from fertool.importing.survey import survey

    found = import_network(source, config)
    for line in found.notes:
        reporter.note(line)
    recorded = {"source": found.spec.arch, "input_size": found.spec.input.size}
    step = make_step("import", recorded, None, weights=config.weights, source=file)
    model = Model(found.spec.with_step(step), found.network)
    model = model.finished(output)
    reporter.note(f"logits within {found.difference:.1e} of the source's")
    surveyed = survey(found.network, found.spec.input)
    reporter.note(surveyed.summary)
    return ImportedModel(model.spec, model.module, model.path, found.difference, surveyed.layers)


def name_of(source: str) -> str:
    """Return the name for a model of a source: "torchvision.resnet18"."""
    name = source.replace("\\", "/").rpartition("/")[2]
    name = name.removesuffix(".onnx").removesuffix(".pt2")
    return name.replace(".py:", ".").replace(":", ".")


def _file_of(source: str) -> Path | None:
    # The whole first: on Windows a path has a colon of its own.
    for place in (Path(source), Path(source.rpartition(":")[0])):
        if place.is_file():
            return place
    return None
