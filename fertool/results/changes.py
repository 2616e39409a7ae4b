"""What pruning and quantization change in a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import UNSET, UnsetType

from fertool.results.fields import (
    DifferenceInterval,
    FileSize,
    Nats,
    Ratio,
    RatioInterval,
    Result,
    Seconds,
    described,
)
from fertool.results.model_summary import ModelSummary
from fertool.results.training import Epoch
from fertool.spec import QuantSpec
from fertool.strict_json import Count, Difference, Finite, Fraction, Name, Positive, Text


@dataclass(frozen=True, kw_only=True)
class Change(Result):
    """Both networks compared on the same validation images and on the clock.

    What was not measured is `UNSET`.
    """

    accuracy_before: Annotated[Fraction | UnsetType, described("accuracy of the given network")] = (
        UNSET
    )
    accuracy: Annotated[Fraction | UnsetType, described("accuracy of the new network")] = UNSET
    n: Annotated[Positive | UnsetType, described("validation images")] = UNSET
    difference: Annotated[
        Difference | UnsetType, described("accuracy of the new network less the given one's")
    ] = UNSET
    difference_ci95: Annotated[DifferenceInterval | UnsetType, described("its 95 % interval")] = (
        UNSET
    )
    mcnemar_p: Annotated[Fraction | UnsetType, described("p-value of McNemar's test")] = UNSET
    top1_agreement: Annotated[
        Fraction | UnsetType, described("fraction of the images with the same predicted class")
    ] = UNSET
    latency_s_before: Annotated[
        Seconds | UnsetType, described("of one image, of the given network; unless ``bench=False``")
    ] = UNSET
    latency_s: Annotated[Seconds | UnsetType, described("of one image, of the new network")] = UNSET
    speedup: Annotated[Ratio | UnsetType, described("how many times as fast it is")] = UNSET
    speedup_ci95: Annotated[RatioInterval | UnsetType, described("its 95 % bootstrap interval")] = (
        UNSET
    )
    average_bits: Annotated[
        Finite | UnsetType, described("mean bits of a weight, of a quantized network")
    ] = UNSET
    accuracy_without_vnni: Annotated[
        Fraction | UnsetType, described("of a quantized network, on x86 processors without VNNI")
    ] = UNSET


@dataclass(frozen=True, kw_only=True)
class UnlabeledChange(Result):
    """What can be compared without a data set: the predictions of both networks."""

    images: Annotated[Text, described("what the images are")]
    n: Annotated[Positive, described("how many they are")]
    accuracy: Annotated[None, described("not measured")] = None
    top1_agreement: Annotated[
        Fraction, described("fraction of the images with the same predicted class")
    ]
    kl: Annotated[Nats, described("mean KL divergence of the new softmax from the old one")]
    commonest_class_before: Annotated[Name, described("most frequent prediction before")]
    commonest_share_before: Annotated[Fraction, described("fraction of the images that got it")]
    commonest_class: Annotated[Name, described("most frequent prediction after")]
    commonest_share: Annotated[Fraction, described("fraction of the images that get it")]


@dataclass(frozen=True, kw_only=True)
class PlanSummary(Result):
    """A plan of pruning: how many channels each group keeps, and what the networks cost."""

    widths_before: Annotated[Mapping[Name, Count], described("channels by group, before")]
    widths: Annotated[Mapping[Name, Count], described("channels by group, after")]
    macs_before: Annotated[Count, described("multiply-accumulates of one image, before")]
    macs: Annotated[Count, described("multiply-accumulates of one image, after")]
    macs_ratio: Annotated[Finite, described("fraction of the multiply-accumulates left")]
    params_before: Annotated[Count, described("learned values, before")]
    params: Annotated[Count, described("learned values, after")]
    params_ratio: Annotated[Finite, described("fraction of the learned values left")]
    latency_ratio: Annotated[
        Finite | None, described("with ``target_latency``: fraction of the latency, estimated")
    ]
    round_to: Annotated[Positive, described("channel counts are multiples of it")]


@dataclass(frozen=True, kw_only=True)
class PruneResult(ModelSummary):
    """The JSON of `prune`."""

    history: Annotated[
        tuple[Epoch, ...] | UnsetType,
        described("with ``data``: one for each epoch"),
    ] = UNSET
    plan: Annotated[PlanSummary, described("what was removed")]
    change: Annotated[Change, described("both networks compared")]
    unlabeled: Annotated[UnlabeledChange | None, described("without ``data``, on drawn faces")]


@dataclass(frozen=True, kw_only=True)
class PrunePreview(Result):
    """The JSON of a preview of `prune`."""

    profiles: Annotated[
        tuple[PlanSummary, ...],
        described("a plan for each width of a dynamic network, else the one plan"),
    ]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; the keys of a single plan stand beside `profiles` too."""
        preview = super().as_dict()
        # A static network has one plan, whose figures scripts want to read without a list around
        # them.
        alone = preview["profiles"][0] if len(self.profiles) == 1 else {}
        return {**alone, **preview}


@dataclass(frozen=True, kw_only=True)
class QuantizeResult(ModelSummary):
    """The JSON of `quantize`."""

    history: Annotated[tuple[Epoch, ...], described("one for each epoch, of all trainings")]
    change: Annotated[Change, described("both networks compared")]


@dataclass(frozen=True, kw_only=True)
class QuantizePreview(Result):
    """The JSON of a preview of `quantize`."""

    quant: Annotated[QuantSpec, described("bits by layer and channel, as in `show`")]
    size_bytes_before: Annotated[FileSize, described("size of the given file")]
    size_bytes: Annotated[FileSize, described("size that the new file would have")]
    change: Annotated[Change, described("both networks compared")]
