"""The accuracy of a network at any bits, measured again and again."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from fertool.data.dataset import FaceDataset
from fertool.data.pixels import to_input
from fertool.graph.folding import fold_for_inference
from fertool.graph.network import Network
from fertool.models.build import require_static
from fertool.models.quantized import dequantize, per_channel
from fertool.quant.allocation_problem import AllocationProblem
from fertool.quant.observers import integer_weight, weight_scales
from fertool.spec import WEIGHT_BITS, Spec, WeightQuant

# Images in a batch of the measurement.
_BATCH = 256


class RoundedAccuracy:
    """The accuracy on some images of a float network whose weights are rounded to given bits."""

    def __init__(
        self,
        spec: Spec,
        module: nn.Module,
        problem: AllocationProblem,
        images: FaceDataset,
        limit: int,
    ) -> None:
        self._problem = problem
        self._labels = images.labels
        self._batches = torch.split(images.images, _BATCH)
        self._input = spec.input
        self._network = _frozen_copy(fold_for_inference(require_static(module)))
        # All that any bits could need is computed once: [bits, out, ...] and [bits, out] a layer.
        self._integers: dict[str, Tensor] = {}
        self._scales: dict[str, Tensor] = {}
        for name in problem.names:
            weight = self._network.get_parameter(f"{name}.weight").detach()
            integers = []
            scales = []
            for bits in WEIGHT_BITS:
                limits = torch.tensor(WeightQuant((bits,), limit).limits(len(weight)))
                scale = weight_scales(weight, limits, "mse")
                scales.append(scale)
                integers.append(integer_weight(weight, scale, limits).to(torch.int8))
            self._integers[name] = torch.stack(integers)
            self._scales[name] = torch.stack(scales)

    @torch.no_grad()
    def __call__(self, bits: Tensor) -> float:
        """Return the accuracy with these bits [C]."""
        for index, name in enumerate(self._problem.names):
            chosen = bits[self._problem.layers == index] - WEIGHT_BITS[0]
            channels = torch.arange(len(chosen))
            integers = self._integers[name][chosen, channels]
            scale = self._scales[name][chosen, channels]
            rounded = dequantize(integers, per_channel(scale, integers))
            self._network.get_parameter(f"{name}.weight").copy_(rounded)

        predictions = []
        for batch in self._batches:
            predictions.append(self._network(to_input(batch, self._input)).argmax(1))
        return float((torch.cat(predictions) == self._labels).float().mean())


def _frozen_copy(network: Network) -> Network:
    return copy.deepcopy(network).requires_grad_(False).cpu()
