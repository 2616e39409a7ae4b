"""Options of quantization: how many bits, and how the integers are found."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fertool.config.option import check, option, require_applicable
from fertool.config.training import FineTuneConfig, LossConfig
from fertool.errors import UsageError
from fertool.registry import ALLOCATIONS

QUANTIZATION = "Quantization"

# Largest integer weights. Those of 7 bits have products with two unsigned bytes that fit 16 bits
# together: 2 x 255 x 63 < 32,768. Processors without VNNI add such pairs in 16 bits and saturate,
# so that weights up to 127 give other outputs there.
WEIGHT_LIMITS = {"reduced": 63, "full": 127}
DEFAULT_ALLOCATION = "optimal"
FEW_BITS = 4
"""Weights of so few bits are worth more images and time; what those of more bits would gain is lost
in the rounding of the activations."""
_BUDGETS = ("bits", "average_bits", "target_size")


def _needs_traces(allocation: str) -> bool:
    needs: bool = ALLOCATIONS.attribute(allocation, "needs_traces")
    return needs


def _without_traces() -> str:
    """Return the allocations that need no Hessian traces, as options."""
    names = [name for name in ALLOCATIONS.names() if not _needs_traces(name)]
    return " or ".join(f"``allocation={name}``" for name in names)


@dataclass(frozen=True)
class QuantizeConfig:
    """How to quantize; raises UsageError for values out of bounds and for options that clash.

    Weights have 8 bits, `bits`, or a budget (`average_bits`, `target_size`) that an `allocation`
    divides among the output channels. Activations have `activation_bits`, or as many as a mean of
    `average_activation_bits` over all values gives their quantizer. `weight_observer` chooses the
    scales of weights as `observer` does those of activations; `percentile` is that of the observer
    of this name. With the method qat the network is trained as `training` and `loss` say.
    """

    # At least 2: of one bit the symmetric range has no value but 0.
    bits: int | None = option(
        None,
        "Bits of all weights; 8 if there is no other budget.",
        panel=QUANTIZATION,
        minimum=2,
        maximum=8,
    )
    average_bits: float | None = option(
        None,
        "Mean bits of a weight, allocated to the channels.",
        panel=QUANTIZATION,
        minimum=2,
        maximum=8,
    )
    target_size: float | str | None = option(
        None,
        "Bytes of the file: a ratio of the input's (0.1) or a number (800k).",
        panel=QUANTIZATION,
        metavar="R",
    )
    sensitivity: Path | None = option(
        None,
        "JSON file that hessian-sensitivity wrote about this very model; most allocations need it.",
        panel=QUANTIZATION,
    )
    allocation: str | None = option(
        None,
        f"How a budget is allocated. Default: {DEFAULT_ALLOCATION}.",
        panel=QUANTIZATION,
        registry=ALLOCATIONS,
    )
    method: Literal["ptq", "qat"] = option(
        "ptq",
        "ptq: after training, with calibration images; qat: then ``epochs`` of training with fake "
        "quantization, scales learned.",
        panel=QUANTIZATION,
    )
    # Behdin et al. 2023, arXiv 2309.01885; Frantar et al. 2023, arXiv 2210.17323.
    rounding: Literal["coordinate-descent", "gptq", "nearest"] = option(
        "coordinate-descent",
        "gptq: the weights rounded later, and the bias, compensate for the error of each; "
        "coordinate-descent: gptq, then the integers and scales of few bits adapt to each other; "
        "nearest: each by itself.",
        panel=QUANTIZATION,
    )
    observer: Literal["min-max", "percentile", "mse"] = option(
        "mse", "How activation ranges are chosen.", panel=QUANTIZATION
    )
    activation_bits: int = option(
        8,
        "Bits of all activations, for processors that gain from fewer; ONNX Runtime does not.",
        panel=QUANTIZATION,
        minimum=4,
        maximum=8,
    )
    average_activation_bits: float | None = option(
        None,
        "Mean bits of an activation, allocated to the layers by what rounding each changes in the "
        "outputs.",
        panel=QUANTIZATION,
        minimum=4,
        maximum=8,
    )
    keep_float: tuple[str, ...] = option(
        (),
        "A layer that stays float, or all within a block; * and ? stand for any characters; "
        "repeatable.",
        panel=QUANTIZATION,
        metavar="LAYER",
    )
    compute: Literal["auto", "int8", "float"] = option(
        "int8",
        "What layers compute with. int8: integers; float: floats, on integer weights that are "
        "unpacked when a runtime loads the file; auto: the faster of both, by kernel times.",
        panel=QUANTIZATION,
    )
    measure: bool = option(
        False,
        "auto: kernel times of this machine in place of those of the table, and whole files timed.",
        panel=QUANTIZATION,
    )
    calibration_images: int | None = option(
        None,
        "Training images that calibrate, balanced over the classes. Default: 512, and 1024 where "
        f"weights have {FEW_BITS} bits or fewer.",
        panel=QUANTIZATION,
        minimum=1,
    )
    weight_range: Literal["reduced", "full"] = option(
        "reduced",
        f"Largest integer weight. reduced: {WEIGHT_LIMITS['reduced']}, the same outputs on "
        f"processors without VNNI; full: {WEIGHT_LIMITS['full']}.",
        panel=QUANTIZATION,
    )
    distill: bool = option(True, "qat: train on the float model's logits too.", panel=QUANTIZATION)
    replace_activations: Literal["none", "relu"] = option(
        "none",
        "qat: the activation that replaces HardSwish, SiLU, GELU and Mish, which cost integers "
        "most; the network is trained for it, first in float.",
        panel=QUANTIZATION,
    )
    float_epochs: int | None = option(
        None,
        "Epochs in float after ``replace_activations``, before those with fake quantization. "
        "Default: as many as ``epochs``.",
        panel=QUANTIZATION,
        minimum=0,
        applies_to="replace_activations",
        defaults={"relu": None},
    )
    training: FineTuneConfig = field(default_factory=FineTuneConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    weight_observer: Literal["min-max", "mse"] = "mse"
    percentile: float = 99.99
    # Few, so that the maps of a batch stay in the cache of a processor.
    calibration_batch_size: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        check(self)
        require_applicable(self)
        self._require_one_budget()
        self._require_matching_training()
        if self.measure and self.compute != "auto":
            raise UsageError(
                f"``measure`` with ``compute={self.compute}``: there is nothing to decide",
                "give ``compute=auto``",
            )
        if self.allocation is not None:
            self._require_budget_for("allocation")
        if self.sensitivity is not None:
            # Traces that nothing reads were probably meant for something.
            self.require_use_of_sensitivity()
        # At the median or below it would leave out one of the two ends that a range has.
        if not 50 < self.percentile <= 100:
            raise UsageError(
                f"``percentile={self.percentile}``: must be above 50 and at most 100",
                "for example 99.99",
            )

    @property
    def is_mixed(self) -> bool:
        """Whether channels get bits of their own, from a budget."""
        return self.average_bits is not None or self.target_size is not None

    @property
    def stage(self) -> str:
        """What the name of a file says of its weights: `int8`, or `mixed` bits."""
        if self.is_mixed:
            return "mixed"
        return f"int{self.bits or 8}"

    @property
    def allocates_by_sensitivity(self) -> bool:
        """Whether the allocation needs Hessian traces."""
        allocation = self.allocation or DEFAULT_ALLOCATION
        return self.is_mixed and _needs_traces(allocation)

    def calibration_count(self, least_bits: int) -> int:
        """Return how many images calibrate a network whose weights have so many bits or more."""
        if self.calibration_images is not None:
            return self.calibration_images
        return 1024 if least_bits <= FEW_BITS else 512

    @property
    def weight_limit(self) -> int:
        """The largest integer of an 8-bit weight."""
        return WEIGHT_LIMITS[self.weight_range]

    def require_sensitivity(self) -> None:
        """Raise UsageError where the allocation needs Hessian traces and no file is given."""
        if self.allocates_by_sensitivity and self.sensitivity is None:
            allocation = self.allocation or DEFAULT_ALLOCATION
            raise UsageError(
                f"``{self._budgets[0]}``: ``allocation={allocation}`` needs ``sensitivity``",
                f"run fertool hessian-sensitivity on this model, or take {_without_traces()}",
            )

    def require_use_of_sensitivity(self) -> None:
        """Raise UsageError where Hessian traces of the given network are of no use."""
        self._require_budget_for("sensitivity")
        if self.replace_activations != "none":
            raise UsageError(
                f"``replace_activations={self.replace_activations}``: ``sensitivity`` is about the "
                "network as it was",
                f"give ``bits``, or {_without_traces()}",
            )

    @property
    def _budgets(self) -> list[str]:
        return [name for name in _BUDGETS if getattr(self, name) is not None]

    def _require_one_budget(self) -> None:
        """Raise UsageError for two budgets of weights or of activations."""
        if len(self._budgets) > 1:
            names = " and ".join(f"``{name}``" for name in self._budgets)
            raise UsageError(f"{names}: more than one budget", "give one of them")
        if self.average_activation_bits is not None and self.activation_bits != 8:
            raise UsageError(
                f"``activation_bits={self.activation_bits}`` and "
                f"``average_activation_bits={self.average_activation_bits:g}``: "
                "more than one budget",
                "give one of them",
            )

    def _require_budget_for(self, name: str) -> None:
        if not self.is_mixed:
            raise UsageError(
                f"``{name}``: no budget to allocate",
                "give ``average_bits``, for example 4, or ``target_size``",
            )

    def _require_matching_training(self) -> None:
        """Raise UsageError where the method and the options of training exclude each other."""
        if self.replace_activations != "none" and self.method == "ptq":
            raise UsageError(
                f"``replace_activations={self.replace_activations}``: a network with other "
                "activations has to be trained",
                "add ``method=qat`` and ``epochs=5``",
            )
        epochs = self.training.epochs
        if self.method == "qat" and not epochs:
            raise UsageError("``method=qat``: no epochs to train", "for example ``epochs=5``")
        if self.method == "ptq" and epochs:
            raise UsageError(
                f"``epochs={epochs}``: ``method=ptq`` does not train", "add ``method=qat``"
            )
