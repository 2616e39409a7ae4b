"""What `train-teacher`, `distill`, `import` and `export` print about the model that they made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import UNSET, UnsetType

from fertool.results.fields import Result, described
from fertool.results.model_summary import ModelSummary
from fertool.results.sweep import SweepSummary
from fertool.results.training import Epoch
from fertool.strict_json import Count, Fraction, Name, NonNegative, Positive, Text


@dataclass(frozen=True, kw_only=True)
class TrainingResult(ModelSummary):
    """The JSON of `train-teacher` and `distill`."""

    history: Annotated[tuple[Epoch, ...], described("one for each epoch, of all trainings")]
    sweep: Annotated[
        SweepSummary | UnsetType, described("with ``seeds`` or ``grid``: all trainings compared")
    ] = UNSET


@dataclass(frozen=True)
class LayerSurvey(Result):
    """What pruning and quantization can do with one layer."""

    name: Annotated[Name, described("path of the layer")]
    operator: Annotated[Name, described("`conv2d` or `linear`")]
    channels: Annotated[Positive, described("output channels")]
    params: Annotated[Count, described("learned values")]
    macs: Annotated[Count, described("multiply-accumulates of one image")]
    prunable: Annotated[bool, described("whether channels can be removed")]
    stays_because: Annotated[Text | None, described("why none can be removed")]
    integer: Annotated[bool, described("whether it can be quantized")]


@dataclass(frozen=True)
class ImportFindings:
    """How an imported network compares with its source."""

    max_abs_diff: Annotated[NonNegative, described("largest difference of a logit")]
    layers: Annotated[tuple[LayerSurvey, ...], described("every convolution and linear layer")]


@dataclass(frozen=True, kw_only=True)
class ImportResult(ModelSummary):
    """The JSON of `import`."""

    import_: Annotated[ImportFindings, described("the comparison with the source")]


@dataclass(frozen=True)
class Parity:
    """An exported file in its runtime against the module in torch."""

    max_abs_diff: Annotated[NonNegative, described("largest difference of a logit")]
    logit_scale: Annotated[NonNegative, described("largest logit")]
    top1_agreement: Annotated[Fraction, described("fraction of the images of the same class")]
    n: Annotated[Positive, described("images")]
    ok: Annotated[bool, described("whether they are close enough")]


@dataclass(frozen=True, kw_only=True)
class ExportResult(ModelSummary):
    """The JSON of `export`."""

    parity: Annotated[Parity, described("the comparison with PyTorch")]
