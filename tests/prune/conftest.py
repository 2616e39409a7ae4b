import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from fertool.models.layers import EfficientChannelAttention
from fertool.prune import PrunePlan
from fertool.prune.graph import trace_channels
from fertool.spec import InputSpec


@pytest.fixture
def randomise_norms() -> Callable[[nn.Module], nn.Module]:
    def randomise(module: nn.Module) -> nn.Module:
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.normal_(layer.bias, 0, 0.3)
                nn.init.normal_(layer.running_mean, 0, 0.3)
                nn.init.uniform_(layer.running_var, 0.5, 1.5)
        return module

    return randomise


@pytest.fixture
def zero_removed() -> Callable[[nn.Module, InputSpec, PrunePlan], nn.Module]:
    """Set the weights, biases, scales and shifts of every channel that a plan removes to 0, in a copy.

    Local attention does not see them.
    """

    def zero(module: nn.Module, input: InputSpec, plan: PrunePlan) -> nn.Module:
        zeroed = copy.deepcopy(module)
        graph = trace_channels(module, input)
        dense = [layer for layer in graph.layers if layer.kind == "dense"]
        stays = [layer.outputs[list(plan.kept[layer.name])].tolist() for layer in dense]
        alive = set(graph.inputs.tolist()).union(*stays)
        with torch.no_grad():
            for layer in graph.layers:
                if layer.kind == "across":
                    continue
                gone = torch.tensor([c not in alive for c in layer.outputs.tolist()])
                owner = zeroed.get_submodule(layer.name)
                owner.weight[gone] = 0
                if owner.bias is not None:
                    owner.bias[gone] = 0
        return _close_ranks(zeroed, plan)

    return zero


class Among(nn.Module):
    """A convolution along the channels that sees none but the `kept` ones."""

    def __init__(self, layer, kept):
        super().__init__()
        self.layer, self.kept = layer, list(kept)

    def forward(self, row):
        result = torch.zeros_like(row)
        result[..., self.kept] = self.layer(row[..., self.kept])
        return result


def _close_ranks(module, plan):
    """Local attention mixes neighbours in their order, so that there a channel that is gone differs from a zero."""
    for name, layer in list(module.named_modules()):
        if isinstance(layer, EfficientChannelAttention):
            layer.conv = Among(layer.conv, plan.kept[name.replace(".eca", ".sep2.1.0")])
    return module
