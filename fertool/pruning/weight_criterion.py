"""The importance of channels by their weights alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from fertool.graph.channel_graph import ChannelGraph, Layer
from fertool.graph.channels import weight_axes
from fertool.graph.network import Network
from fertool.pruning.criterion import Criterion, Scores
from fertool.pruning.scored_layers import norms_behind
from fertool.spec import InputSpec

if TYPE_CHECKING:
    from fertool.data.dataset import FaceDataset

# Keeps a division by the mean importance of a layer of zeros finite.
_TINY = 1e-300

ScoreFilters = Callable[[Tensor, Tensor | None], Tensor | None]


class WeightCriterion(Criterion):
    """A criterion that scores the filters of each layer.

    `scores_depthwise`: depthwise convolutions count too, beside dense layers.
    """

    needs_images = False
    scores_depthwise: ClassVar[bool] = True

    @abstractmethod
    def score_filters(self, weights: Tensor, scales: Tensor | None) -> Tensor | None:
        """Return the scores [out] of a layer's filters, float64, None where it has none.

        `weights` are [out, fan-in], `scales` [out] those of the BN behind, None without one.
        """

    def score(
        self,
        module: Network,
        graph: ChannelGraph,
        data: FaceDataset | None,
        input: InputSpec,
        *,
        normalization: str = "auto",
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Scores:
        """Return the score of each channel id; without `normalization` they are taken by layer.

        By layer, a channel's score is divided by the mean of its layer, so that layers of any
        fan-in compare; else scores compare as they are, as in Network Slimming. An id computed or
        filtered by several layers scores the mean over them; of the BN scales only those that are
        gates count. Ids that no layer scores take the L2 norm of their filters, relative to their
        layer, in units of the mean of the others.
        """
        # By layer also for "auto": norms of filters grow with the fan-in.
        relative = normalization != "none"
        scores, is_scored = _mean_scores(
            module, graph, self.score_filters, relative=relative, depthwise=self.scores_depthwise
        )
        if not is_scored.all():
            norms, _ = _mean_scores(module, graph, _norm_filters, relative=True, depthwise=True)
            unit = scores[is_scored].mean() if is_scored.any() else 1
            scores[~is_scored] = norms[~is_scored] * unit
        return Scores(scores, additive=not relative)


def filter_norms(weights: Tensor) -> Tensor:
    """Return the L2 norm [out] of filters [out, fan-in]."""
    return weights.square().sum(1).sqrt()


def _norm_filters(weights: Tensor, scales: Tensor | None) -> Tensor:
    return filter_norms(weights)


def _mean_scores(
    module: Network,
    graph: ChannelGraph,
    score_filters: ScoreFilters,
    *,
    relative: bool,
    depthwise: bool,
) -> tuple[Tensor, Tensor]:
    """Return the mean score of each channel id over its layers, and which ids have one."""
    kinds = ("dense", "grouped") if depthwise else ("dense",)
    scales = _norm_scales(module, graph)
    total = torch.zeros(len(graph.fixed), dtype=torch.float64)
    count = torch.zeros_like(total)

    for layer in graph.layers:
        if layer.kind not in kinds:
            continue
        values = score_filters(_filters(module, layer), scales.get(layer.name))
        if values is None:
            continue
        if relative:
            values = values / values.mean().clamp(min=_TINY)
        total.index_add_(0, layer.outputs, values)
        count.index_add_(0, layer.outputs, torch.ones_like(values))
    return total / count.clamp(min=1), count > 0


def _filters(module: Network, layer: Layer) -> Tensor:
    """Return the weights of a layer, float64 [out, fan-in] on the CPU."""
    weight = module.get_parameter(f"{layer.name}.weight").detach().to("cpu", torch.float64)
    # Transposed convolutions have their filters along the second axis.
    out_axis, _ = weight_axes(module.graph.by_name[layer.name].op)
    return weight.movedim(out_axis, 0).flatten(1)


def _norm_scales(module: Network, graph: ChannelGraph) -> dict[str, Tensor]:
    """Return the scales, float64, of the BN directly behind each layer that has one with scales."""
    scales = {}
    for name, norm in norms_behind(graph).items():
        if norm.per_output:
            scale = module.get_parameter(f"{norm.name}.weight")
            scales[name] = scale.detach().to("cpu", torch.float64)
    return scales
