"""How many bits each layer's activations get, from what rounding them does to the answers.

With z the logits, y the activations of one site and e(y) what rounding to k bits adds to them, the divergence from the
network's own answers is to second order `E [u . J e(y)]^2 / 2`, u a random root of its Hessian in z
(`divergence_probe`) and J the derivative of z by y. One backward pass of `u . z` gives it for all sites and widths at
once, with all that the errors of one image have in common, which a trace leaves out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fertool.data.pixels import to_input
from fertool.graph.network import Network
from fertool.losses import divergence_probe
from fertool.models.quantized import dequantize, quantize, tapped_at_sites
from fertool.models.sites import Sites
from fertool.quant.knapsack import Items, filled, least_loss
from fertool.quant.observers import Grid
from fertool.spec import InputSpec, affordable_batch

ACTIVATION_WIDTHS = (4, 5, 6, 7, 8)


class _Rounding(nn.Module):
    """Notes what rounding to each of some grids would add to `u . z`: `changes` float64 [widths, N], of one batch."""

    def __init__(self, grids: Sequence[Grid]) -> None:
        super().__init__()
        self.grids, self.values = grids, 0
        self.changes: Tensor | None = None

    def forward(self, values: Tensor) -> Tensor:
        """Return the values as they came."""
        if values.requires_grad:
            seen = values.detach().clone()  # an in-place activation may overwrite the values
            self.values += seen[0].numel()
            values.register_hook(lambda gradient: self._note(gradient, seen))  # type: ignore[no-untyped-call]
        return values

    def _note(self, gradient: Tensor, seen: Tensor) -> None:
        changes = torch.stack(
            [(gradient * self._error(seen, k)).flatten(1).sum(1) for k in range(len(self.grids))]
        )
        # The results that share a site are rounded together.
        self.changes = changes.double() if self.changes is None else self.changes + changes

    def _error(self, values: Tensor, k: int) -> Tensor:
        grid, high = self.grids[k], 2 ** ACTIVATION_WIDTHS[k] - 1
        scale = torch.tensor(grid.scale, device=values.device)
        return (
            dequantize(quantize(values, scale, grid.zero_point, 0, high), scale, grid.zero_point)
            - values
        )


def rounding_losses(
    graph_module: Network,
    sites: Sites,
    grids: Mapping[str, Sequence[Grid]],
    images: Tensor,
    input: InputSpec,
    *,
    batch_size: int = 64,
    seed: int = 0,
    tick: Callable[[], None] = lambda: None,
) -> Items:
    """Return what each site of a folded float network loses at each of ACTIVATION_WIDTHS, in nats, and its values.

    `grids` are those of each site by width, `images` uint8 [N, C, S, S]; `tick` is called after
    each batch.
    """
    watches = {site.name: _Rounding(grids[site.name]) for site in sites.sites}
    watched = tapped_at_sites(graph_module, _where_values_change(graph_module, sites), watches)
    device, generator = next(watched.parameters()).device, torch.Generator().manual_seed(seed)
    losses = {name: torch.zeros(len(ACTIVATION_WIDTHS), dtype=torch.float64) for name in watches}
    for batch in torch.split(images, affordable_batch(batch_size, input.size)):
        pixels: Any = to_input(batch.to(device), input).requires_grad_()
        for watch in watches.values():
            watch.changes, watch.values = None, 0
        with torch.enable_grad():
            torch.autograd.grad(divergence_probe(watched(pixels), generator), pixels)
        for name, watch in watches.items():
            if watch.changes is not None:
                losses[name] += watch.changes.square().sum(1).cpu() / 2
        tick()
    # More bits never hurt, whatever the search for ranges found.
    found = torch.stack([losses[name] / len(images) for name in watches]).cummin(1).values
    values = torch.tensor([watch.values for watch in watches.values()])
    return Items(found, values, ACTIVATION_WIDTHS, ACTIVATION_WIDTHS[-1])


def _where_values_change(graph_module: Network, sites: Sites) -> Sites:
    """Leave out the results that only move values which the same site has rounded: those are on its grid already."""
    inputs = {node.name: set(node.inputs) for node in graph_module.graph.nodes}
    moved = {
        site.name: {name for name in site.nodes if inputs.get(name, {""}) <= set(site.nodes)}
        for site in sites.sites
    }
    first = [
        replace(site, nodes=tuple(n for n in site.nodes if n not in moved[site.name]))
        for site in sites.sites
    ]
    return replace(sites, sites=tuple(first))


def shared_out(items: Items, average_bits: float) -> list[int]:
    """Return the bits of each site that lose least in all, within a mean of `average_bits` over the values."""
    budget = items.budget(average_bits)
    widths: list[int] = filled(items, least_loss(items, budget)[0], budget).tolist()
    return widths
