"""How many bits `fertool quantize` gives to each channel: the options, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fertool.cli.targets import parse_target
from fertool.errors import FertoolError, UsageError
from fertool.spec import WEIGHT_BITS, Metrics

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fertool.data.dataset import FaceDataset
    from fertool.quant import AllocationProblem, QuantizeConfig
    from fertool.spec import ProvenanceStep, Spec

QUANTISATION = "Quantisation"
DEFAULT = "optimal"
SEARCH_IMAGES = 512
"""Validation images that the actor-critic tries bits on."""
_ANY_METRICS = Metrics("val", 3589, 1 / 3, (1 / 3, 2 / 3), 1 / 3)
"""Of the length that metrics have, for files that have none yet."""


@dataclass(frozen=True)
class BitsOptions:
    """Bits alike for all, or a budget and who shares it out."""

    bits: Annotated[
        int | None,
        typer.Option(
            help="Bits of all weights; 8 if there is no other budget.",
            min=2,
            max=8,
            rich_help_panel=QUANTISATION,
        ),
    ] = None
    average_bits: Annotated[
        float | None,
        typer.Option(
            help="Mean bits of a weight, shared out over the channels.",
            min=2,
            max=8,
            rich_help_panel=QUANTISATION,
        ),
    ] = None
    target_size: Annotated[
        str | None,
        typer.Option(
            help="Bytes of the file: a ratio of the input's (0.1) or a number (800k).",
            metavar="R",
            rich_help_panel=QUANTISATION,
        ),
    ] = None
    sensitivity: Annotated[
        Path | None,
        typer.Option(
            help="What hessian-sensitivity wrote about this very model; decides who gets the bits.",
            rich_help_panel=QUANTISATION,
        ),
    ] = None
    allocation: Annotated[
        Literal["optimal", "hawq", "actor-critic", "uniform"] | None,
        typer.Option(
            help="optimal: least trace x rounding error, channel by channel; hawq: the same by whole layers; "
            "actor-critic: learned shares of the channels sorted by trace, tried out on validation images; uniform: "
            "alike, needs no --sensitivity. Left out: optimal.",
            rich_help_panel=QUANTISATION,
        ),
    ] = None

    def __post_init__(self) -> None:
        given = [
            flag
            for flag, value in (
                ("--bits", self.bits),
                ("--average-bits", self.average_bits),
                ("--target-size", self.target_size),
            )
            if value is not None
        ]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)}: more than one budget", "give one of them")
        if not self.mixed:
            for flag in ("sensitivity", "allocation"):
                if getattr(self, flag):
                    hint = "give --average-bits, for example 4, or --target-size"
                    raise UsageError(f"--{flag}: no budget to share out", hint)
        elif self.sensitivity is None and self.allocation != "uniform":
            raise UsageError(
                f"{given[0]}: --allocation {self.allocation or DEFAULT} needs --sensitivity",
                "run fertool hessian-sensitivity on this model, or take --allocation uniform",
            )

    @property
    def mixed(self) -> bool:
        """Whether channels get bits of their own."""
        return self.average_bits is not None or self.target_size is not None

    def chosen(
        self,
        model: Path,
        spec: Spec,
        step: ProvenanceStep,
        module: nn.Module,
        config: QuantizeConfig,
        val: FaceDataset,
    ) -> dict[str, tuple[int, ...]] | None:
        """Return the bits of each channel of each layer, or None where all have 8.

        `spec` is that of the float model in the file `model`; `step` is what quantises it. Raises FertoolError for
        traces that are not this model's, and for budgets that cannot be met.
        """
        from fertool.quant import plan_quantization

        planned = spec.with_step(step, quant=plan_quantization(spec, module, config))
        if not self.mixed:
            return (
                dict.fromkeys(planned.quant.weights, (self.bits,))
                if planned.quant and self.bits
                else None
            )
        problem = self._problem(spec, module, config)
        allocate = self._allocator(problem, spec, module, config, val)
        if self.average_bits is not None:
            _tell_of_more_than_needed("--average-bits", self.average_bits, problem)
            return problem.by_layer(allocate(self.average_bits))
        size = model.stat().st_size
        budget = parse_target("--target-size", self.target_size or "", size) * size
        mean = _affordable_bits(problem, planned, budget)
        if mean < WEIGHT_BITS[0]:
            missing = (WEIGHT_BITS[0] - mean) * int(problem.weight_counts.sum()) / 8
            raise FertoolError(
                f"--target-size {self.target_size}: at {WEIGHT_BITS[0]} bits a weight the file has about "
                f"{budget + missing:,.0f} bytes, not {budget:,.0f}",
                "ask for more, or prune the model first",
            )
        _tell_of_more_than_needed("--target-size", mean, problem)
        return problem.by_layer(allocate(min(mean, WEIGHT_BITS[-1])))

    def _problem(self, spec: Spec, module: nn.Module, config: QuantizeConfig) -> AllocationProblem:
        """Return what is to be shared out."""
        from fertool.artifact.input_files import MAX_JSON_BYTES, read_text
        from fertool.hessian import Sensitivity
        from fertool.hessian.layer_runs import weighted_layers
        from fertool.quant import make_problem

        if self.sensitivity is None:
            return make_problem(spec, module, None, config.limit, config.keep_float)
        text = read_text(self.sensitivity, MAX_JSON_BYTES)
        read = Sensitivity.from_json(text, str(self.sensitivity))
        channels = {name: len(layer.weight) for name, layer in weighted_layers(module).items()}
        read.require_fit(
            spec.digest, channels, str(self.sensitivity), accept=("kl", "cross-entropy")
        )
        traces = {layer.name: layer.weight_trace for layer in read.layers}
        return make_problem(spec, module, traces, config.limit, config.keep_float)

    def _allocator(
        self,
        problem: AllocationProblem,
        spec: Spec,
        module: nn.Module,
        config: QuantizeConfig,
        val: FaceDataset,
    ) -> Callable[[float], Tensor]:
        """Return what gives every channel its width, for a mean of bits."""
        from fertool.quant import DDPGConfig, RoundedAccuracy, allocate, search_bits_ddpg
        from fertool.report.console import progress

        if self.allocation != "actor-critic":
            return partial(allocate, self.allocation or DEFAULT, problem)
        accuracy = RoundedAccuracy(
            spec, module, problem, val.balanced_subset(SEARCH_IMAGES, config.seed), config.limit
        )

        def searched(average_bits: float) -> Tensor:
            with progress("episodes") as on_progress:
                return search_bits_ddpg(
                    problem, average_bits, accuracy, DDPGConfig(seed=config.seed), on_progress
                )

        return searched


def _tell_of_more_than_needed(flag: str, mean: float, problem: AllocationProblem) -> None:
    from fertool.report.console import note

    if mean > problem.max_bits:
        note(
            f"{flag}: {problem.max_bits} bits hold every weight; --full-range has {WEIGHT_BITS[-1]}"
        )


def _affordable_bits(problem: AllocationProblem, planned: Spec, budget: float) -> float:
    """Return the mean bits of a weight at which the file has so many bytes: all else in it has the same size always."""
    import torch

    from fertool.models import stored_size_bytes

    assert planned.quant is not None
    # Some channels of every width, so that nothing is missing that any mixture could have.
    every = torch.tensor(WEIGHT_BITS).repeat(len(problem.weight_counts) // len(WEIGHT_BITS) + 1)[
        : len(problem.weight_counts)
    ]
    bits = problem.by_layer(every)
    rules = {name: replace(rule, bits=bits[name]) for name, rule in planned.quant.weights.items()}
    metrics = planned.metrics or _ANY_METRICS
    size = stored_size_bytes(
        replace(planned, quant=replace(planned.quant, weights=rules), metrics=metrics)
    )
    stored = torch.tensor([width for name in problem.names for width in rules[name].stored_bits(1)])
    return (8 * (budget - size) + int((stored * problem.weight_counts).sum())) / int(
        problem.weight_counts.sum()
    )
