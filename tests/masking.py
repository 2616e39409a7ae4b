"""What a network computes without some of its channels, while they are still there."""

import copy

import torch
from torch import nn

from fertool.graph.channels import trace_channels


def masked(network, kept):
    """Return a copy of a network in which the channels that are not `kept` of dense layers are 0
    wherever they pass.

    Weights, biases, scales and shifts of these channels become 0; local attention does not see
    them.
    """
    zeroed, graph = copy.deepcopy(network), trace_channels(network)
    alive = {*graph.inputs.tolist(), *graph.fixed.nonzero().flatten().tolist()}
    for layer in graph.layers:
        if layer.kind == "dense":
            alive.update(layer.outputs[list(kept[layer.name])].tolist())
    tensors = {**dict(zeroed.named_parameters()), **dict(zeroed.named_buffers())}
    for layer in graph.layers:
        stays = [place for place, index in enumerate(layer.outputs.tolist()) if index in alive]
        if layer.kind == "channel_conv":
            zeroed.replace(layer.name, _Among(zeroed.layer(layer.name), stays))
            continue
        gone = [place for place in range(len(layer.outputs)) if place not in stays]
        transposed = network.graph.by_name[layer.name].op == "conv_transpose2d"
        for name in (layer.name, f"{layer.name}.weight", f"{layer.name}.bias"):
            if gone and name in tensors:
                tensor = tensors[name].detach()
                axis = _axis_of(tensor, len(layer.outputs)) if name == layer.name else 0
                tensor.movedim(1 if transposed and name.endswith(".weight") else axis, 0)[gone] = 0
    return zeroed


def _axis_of(tensor, channels):
    return tensor.shape.index(channels)


class _Among(nn.Module):
    """A convolution along the channels that sees none but the `kept` ones."""

    def __init__(self, layer, kept):
        super().__init__()
        self.layer, self.kept = layer, kept

    def forward(self, row):
        shape, flat = row.shape, row.flatten(1)
        result = torch.zeros_like(flat)
        along = (len(row), *(len(self.kept) if size > 1 else 1 for size in shape[1:]))
        result[:, self.kept] = self.layer(flat[:, self.kept].reshape(along)).flatten(1)
        return result.reshape(shape)


def randomise_norms(module):
    """Draw the scales, shifts and statistics of batch norms,
    which are of no effect as they are made.
    """
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.3)
            nn.init.normal_(layer.running_mean, 0, 0.3)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return module
