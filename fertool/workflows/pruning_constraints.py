"""What the pruned network must meet, in fractions of the given one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fertool.config.pruning import PruneConfig
from fertool.errors import UsageError
from fertool.workflows.model import Model
from fertool.workflows.targets import parse_floors, parse_target

if TYPE_CHECKING:
    from torch import nn

    from fertool.graph.network import Network
    from fertool.pruning import Constraints, Targets

_STEP_BYTES = 2048
"""Bytes that the step itself adds to a file's header, at most."""


def pruning_constraints(model: Model, module: Network, config: PruneConfig) -> Constraints:
    """Return the targets, but for that of latency, and the channel counts that must stay.

    `model` has the MACs and parameters of `module`. Raises UsageError for budgets and floors that
    make no sense for it.
    """
    from fertool.graph.channels import trace_channels
    from fertool.graph.groups import find_groups
    from fertool.pruning import Constraints, channel_counts

    groups = find_groups(trace_channels(module))
    layers = dict(zip(groups.names, groups.layers, strict=True))
    floors = parse_floors(config.selection.min_channels, channel_counts(groups), layers)
    return Constraints(_targets(model, config), floors)


def _targets(model: Model, config: PruneConfig) -> Targets | None:
    from fertool.pruning import Targets

    texts = config.budget.texts
    ratios: dict[str, float] = {}
    if "target_flops" in texts:
        ratios["macs"] = parse_target("target_flops", texts["target_flops"], model.spec.macs)
    if "target_params" in texts:
        ratios["params"] = parse_target("target_params", texts["target_params"], model.spec.params)
    if "target_size" in texts:
        ratios["size"] = _stored_ratio(texts["target_size"], model.size_bytes, model.module)
    return Targets(**ratios) if ratios else None


def _stored_ratio(text: str, size_bytes: int, module: nn.Module) -> float:
    """Return which fraction of the stored numbers fits beside the header into ``target_size``."""
    ratio = parse_target("target_size", text, size_bytes)
    numbers = 0
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            numbers += 4 * tensor.numel()
    # The header stays as long as it is, whatever is pruned.
    rest = size_bytes - numbers + _STEP_BYTES
    if ratio * size_bytes <= rest:
        raise UsageError(
            f"``target_size={text}``: the file's header alone has about {rest:,} bytes",
            f"at least {rest / size_bytes:.2f} of the file's {size_bytes:,} bytes are needed",
        )
    return float(min((ratio * size_bytes - rest) / numbers, 1 - 1e-9))
