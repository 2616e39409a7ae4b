"""Budgets, and what a network of given widths costs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fertool.errors import FertoolError, UsageError
from fertool.graph.channel_graph import ChannelGraph
from fertool.graph.groups import Groups
from fertool.pruning.latency_model import LatencyModel

# The order of costs: the fields of Targets and the rows of CostModel.costs.
COST_NAMES = ("MACs", "parameters", "stored numbers", "latency", "channels")
MACS_ROW = COST_NAMES.index("MACs")
LATENCY_ROW = COST_NAMES.index("latency")
# No option asks for a fraction of the channels.
_OPTIONS = ("target_flops", "target_params", "target_size", "target_latency", None)


class UnreachableError(FertoolError):
    """A budget below what the least channel counts allow."""


@dataclass(frozen=True)
class Targets:
    """What may remain, as fractions of the given network's cost; at least one.

    `macs`; `params`; `size`: the numbers that a file stores, which are the parameters and the
    statistics of BN; `latency`, which needs a LatencyModel; and `channels` in groups, by which
    schedules step and for which there is no option.
    """

    macs: float | None = None
    params: float | None = None
    size: float | None = None
    latency: float | None = None
    channels: float | None = None

    def __post_init__(self) -> None:
        if self.ratios == (None,) * len(self.ratios):
            raise UsageError(
                "no target for pruning",
                "give ``target_flops``, ``target_params`` or ``target_size``",
            )
        for option, ratio in zip(_OPTIONS, self.ratios, strict=True):
            if option is None or ratio is None or 0 < ratio < 1:
                continue
            raise UsageError(
                f"``{option}={ratio:g}``: not between 0 and 1", f"for example ``{option}=0.5``"
            )

    @property
    def ratios(self) -> tuple[float | None, ...]:
        """All of them, in the order of COST_NAMES."""
        return self.macs, self.params, self.size, self.latency, self.channels


@dataclass(frozen=True, eq=False)
class CostModel:
    """MACs, parameters, stored numbers, seconds and channels as functions of the widths [groups].

    Channel counts of layers are linear in the widths: `inputs` and `outputs` [layers, groups + 1]
    hold the factors, the last column the constants. `shared` marks layers whose channels share one
    block of weights; `terms` [4, layers, 1] are those of the layers in the `latency` model.
    """

    inputs: Tensor
    outputs: Tensor
    dense: Tensor
    shared: Tensor
    kernel_elements: Tensor
    per_output: Tensor
    statistics: Tensor
    positions: Tensor
    latency: LatencyModel
    terms: Tensor

    @classmethod
    def from_graph(cls, graph: ChannelGraph, groups: Groups, latency: LatencyModel) -> CostModel:
        """Return the model of a network."""
        inputs = []
        outputs = []
        kinds = []
        counts = []
        for layer in graph.layers:
            inputs.append(_width_factors(layer.inputs, groups))
            outputs.append(_width_factors(layer.outputs, groups))
            kinds.append([layer.kind == "dense", layer.kind == "channel_conv"])
            # Mean and variance of BN are stored, though no parameters.
            statistics = 2 if layer.kind == "norm" else 0
            counts.append([layer.kernel_elements, layer.per_output, statistics, layer.positions])
        # [layers, columns] to one [layers, 1] for each column, which widths broadcast over.
        by_kind = torch.tensor(kinds).T.contiguous()[:, :, None]
        by_count = torch.tensor(counts, dtype=torch.float64).T.contiguous()[:, :, None]
        return cls(
            inputs=torch.stack(inputs),
            outputs=torch.stack(outputs),
            dense=by_kind[0],
            shared=by_kind[1],
            kernel_elements=by_count[0],
            per_output=by_count[1],
            statistics=by_count[2],
            positions=by_count[3],
            latency=latency,
            terms=latency.terms_of(graph.layers),
        )

    def costs(self, widths: Tensor, changes: Tensor) -> Tensor:
        """Return [5, groups]: the costs if only the k-th width changes, by `changes[k]`.

        Their order is that of COST_NAMES; latency is in seconds.
        """
        inputs = _channel_counts(self.inputs, widths, changes)
        outputs = _channel_counts(self.outputs, widths, changes)
        weights = self.kernel_elements * outputs * torch.where(self.dense, inputs, 1.0)
        params = torch.where(
            self.shared,
            self.kernel_elements + self.per_output,
            weights + self.per_output * outputs,
        )
        stored = params + self.statistics * outputs
        macs = (weights * self.positions).sum(0)
        seconds = self.latency.total(self.terms, inputs, outputs)
        channels = widths.sum() + changes
        return torch.stack([macs, params.sum(0), stored.sum(0), seconds, channels])


def _width_factors(ids: Tensor, groups: Groups) -> Tensor:
    """Return how many of a layer's channels one unit of each group stands for, and the constant."""
    units = torch.tensor([*groups.sizes, 1], dtype=torch.float64)
    # Channels that stay have group -1, which the modulo makes the last column.
    columns = groups.group_of_id[ids] % len(units)
    return torch.bincount(columns, minlength=len(units)) / units


def _channel_counts(factors: Tensor, widths: Tensor, changes: Tensor) -> Tensor:
    """Return [layers, groups]: channels of each layer if only the k-th width changes."""
    linear, constant = factors[:, :-1], factors[:, -1]
    present = linear @ widths + constant
    return present[:, None] + linear * changes
