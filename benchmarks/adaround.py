"""AdaRound, a rival of the rounding in `fertool.quant`: for comparisons in bits.py alone.

Nagel et al. 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization" (arXiv
2004.10568), layer by layer, with asymmetric reconstruction (their equation 25 without the
activation): each weight is rounded down or up as the float layer's outputs are best reached from
the inputs that arrive from the integer layers before it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fertool.data.pixels import channels_last, to_input
from fertool.graph.network import Network
from fertool.models.batched_run import BatchedRun
from fertool.models.quantized import IntegerTensors, QuantizedNet
from fertool.models.sampling import (
    gather_positions,
    input_columns,
    sample_positions,
    to_channels_first,
)
from fertool.quant.weight_rounding import set_bias
from fertool.spec import InputSpec, WeightQuant

STEPS = 2000
SAMPLES = 256
"""Positions of maps in one step."""
LEARNING_RATE = 0.01
STRENGTH = 0.01
"""Of the regularization, the paper's lambda; its exponent beta falls from 20 to 2."""
WARM_UP = 0.2
_BATCH = 64
# The stretch of the sigmoid, equation 23.
_ZETA, _GAMMA = 1.1, -0.1


def round_adaptively(
    net: QuantizedNet,
    network: Network,
    rules: dict[str, WeightQuant],
    images: Tensor,
    input: InputSpec,
) -> None:
    """Round the weights of `net`, whose scales are set, again; `network` is its folded float form.

    The bias takes the remaining difference of the means, as with GPTQ.
    """
    batches = []
    for batch in torch.split(images, _BATCH):
        batches.append(channels_last(to_input(batch, input)))
    wanted_run, run = BatchedRun(network, batches), BatchedRun(net, batches)
    generator = torch.Generator().manual_seed(0)
    for node in net.graph.nodes:
        if node.name not in rules:
            continue
        source, layer = network.get_submodule(node.name), net.get_submodule(node.name)
        assert isinstance(source, nn.Conv2d | nn.Linear)
        assert isinstance(layer, IntegerTensors)
        with torch.no_grad():
            maps = [to_channels_first(source, map) for map in wanted_run.outputs_of(node.name)]
            count = maps[0][0, 0].numel() if maps[0].dim() > 2 else 1
            positions = sample_positions(count, generator)
            columns = [input_columns(source, x, positions) for x in run.inputs_of(node.name)]
            wanted = [gather_positions(map, positions).transpose(0, 1).flatten(1) for map in maps]
        limits = torch.tensor(rules[node.name].limits(len(source.weight)))
        fit(layer, source, limits, torch.cat(columns, 2), torch.cat(wanted, 1), generator)


def fit(
    layer: IntegerTensors,
    source: nn.Conv2d | nn.Linear,
    limits: Tensor,
    columns: Tensor,
    wanted: Tensor,
    generator: torch.Generator,
) -> None:
    """Choose the integers of one layer; inputs [G, F, n] are to give outputs [out, n]."""
    groups, fan_in, count = columns.shape
    weight = source.weight.detach().reshape(groups, -1, fan_in)
    scale = layer.weight_scale.float().reshape(groups, -1, 1)
    bound = limits.float().reshape(groups, -1, 1)
    down = (weight / scale).floor()
    # Where the sigmoid gives the fraction that rounding down takes away.
    fraction = (weight / scale - down - _GAMMA) / (_ZETA - _GAMMA)
    variable = torch.logit(fraction).requires_grad_()
    bias = torch.zeros(len(source.weight)) if source.bias is None else source.bias.detach()
    targets = (wanted - bias[:, None]).reshape(groups, -1, count)

    def share() -> Tensor:
        return (variable.sigmoid() * (_ZETA - _GAMMA) + _GAMMA).clamp(0, 1)

    def integers(up: Tensor) -> Tensor:
        return torch.maximum(torch.minimum(down + up, bound), -bound)

    optimizer = torch.optim.Adam([variable], lr=LEARNING_RATE)
    for step in range(STEPS):
        chosen = torch.randint(count, (SAMPLES,), generator=generator)
        up = share()
        outputs = (integers(up) * scale) @ columns[:, :, chosen]
        loss = (outputs - targets[:, :, chosen]).square().sum((0, 1)).mean()
        progress = (step / STEPS - WARM_UP) / (1 - WARM_UP)
        if progress > 0:
            beta = 2 + 18 * (1 - progress)
            loss = loss + STRENGTH * (1 - (2 * up - 1).abs().pow(beta)).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        rounded = integers((share() > 0.5).float())
        layer.weight.copy_(rounded.reshape(layer.weight.shape))
        means = ((rounded * scale) @ columns.mean(2, keepdim=True)).flatten()
        set_bias(layer, (wanted.mean(1) - means).double())
