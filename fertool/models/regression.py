"""Ridge regression of the wanted outputs of a layer on its inputs, by groups of channels.

Of many samples only the moments are kept. They are summed in float64, of products in float32 about
a point near the means: the ridge is far above what these lose.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fertool.models.sampling import input_columns, ridge_strength

_VALUES = 1 << 22
"""Values of the inputs in one product: of fewer, products are slow; more take memory."""
_ROWS = 512
"""Rows of a covariance matrix that are computed at once, up to the diagonal."""


@dataclass(frozen=True)
class Moments:
    """Means and covariances, float64, of a layer's inputs x and wanted outputs y, by group.

    x_mean [G, F], y_mean [G, R], xx [G, F, F], yx [G, R, F], for G groups of channels, fan-in F and
    R channels a group.
    """

    x_mean: Tensor
    y_mean: Tensor
    xx: Tensor
    yx: Tensor


def measure_moments(
    layer: nn.Module, inputs: Iterable[Tensor], wanted: Iterable[Tensor], positions: Tensor
) -> Moments:
    """Return the moments of a layer's inputs [N, …] and wanted outputs [N, out, P], by batch.

    The outputs are those at `positions` [P] of the layer's map.
    """
    totals: _Totals | None = None
    for x, y in _samples(layer, inputs, wanted, positions):
        if totals is None:
            totals = _Totals(x, y)
        totals.add(x, y)
    assert totals is not None
    return totals.moments()


def measure_inputs(
    layer: nn.Module, inputs: Sequence[Tensor], positions: Tensor
) -> tuple[Tensor, Tensor]:
    """Return mean [G, F] and covariance [G, F, F] of a layer's inputs [N, …], by batch, float64."""
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    # Nothing is wanted: one output of zeros a group.
    outputs = [x.new_zeros(len(x), groups, len(positions)) for x in inputs]
    moments = measure_moments(layer, inputs, outputs, positions)
    return moments.x_mean, moments.xx


class _Totals:
    """Sums over samples x [G, F, n] and y [G, R, n], about the means of the first ones."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        # Of inputs that hardly vary only rounding errors would be left about another point.
        self._x_near = x.mean(2, keepdim=True)
        self._y_near = y.mean(2, keepdim=True)
        groups, fan_in, _ = x.shape
        self._count = 0
        self._x_sum = x.new_zeros(groups, fan_in, dtype=torch.float64)
        self._y_sum = y.new_zeros(groups, y.shape[1], dtype=torch.float64)
        self._xx = x.new_zeros(groups, fan_in, fan_in, dtype=torch.float64)
        self._yx = x.new_zeros(groups, y.shape[1], fan_in, dtype=torch.float64)

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add samples."""
        x = x - self._x_near
        y = y - self._y_near
        self._count += x.shape[2]
        self._x_sum += x.sum(2)
        self._y_sum += y.sum(2)
        self._yx += y @ x.mT
        # The matrix is symmetric: what is above the diagonal need not be computed.
        fan_in = x.shape[1]
        for start in range(0, fan_in, _ROWS):
            end = min(start + _ROWS, fan_in)
            self._xx[:, start:end, :end] += x[:, start:end] @ x[:, :end].mT

    def moments(self) -> Moments:
        """Return means and covariances; nothing can be added afterwards."""
        x_mean = self._x_sum / self._count
        y_mean = self._y_sum / self._count
        fan_in = x_mean.shape[1]
        for start in range(_ROWS, fan_in, _ROWS):
            rows = self._xx[:, start : start + _ROWS, :start]
            self._xx[:, :start, start : start + _ROWS] = rows.mT
        # In place: of a wide layer a matrix takes hundreds of megabytes.
        xx = self._xx.div_(self._count)
        xx.baddbmm_(x_mean[:, :, None], x_mean[:, None], alpha=-1)
        xx.diagonal(dim1=1, dim2=2).clamp_(min=0)
        yx = self._yx.div_(self._count)
        yx.baddbmm_(y_mean[:, :, None], x_mean[:, None], alpha=-1)
        return Moments(x_mean + self._x_near[..., 0], y_mean + self._y_near[..., 0], xx, yx)


def _samples(
    layer: nn.Module, inputs: Iterable[Tensor], wanted: Iterable[Tensor], positions: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield inputs [G, F, n] and wanted outputs [G, R, n] of some batches together."""
    xs: list[Tensor] = []
    ys: list[Tensor] = []
    values = 0
    for images, outputs in zip(inputs, wanted, strict=True):
        columns = input_columns(layer, images, positions)
        by_group = outputs.reshape(len(outputs), len(columns), -1, len(positions))
        xs.append(columns)
        ys.append(by_group.permute(1, 2, 0, 3).flatten(2))
        values += columns.numel()
        if values >= _VALUES:
            yield torch.cat(xs, 2), torch.cat(ys, 2)
            xs, ys, values = [], [], 0
    if xs:
        yield torch.cat(xs, 2), torch.cat(ys, 2)


def ordered_factor_(xx: Tensor, order: Tensor) -> Tensor:
    """Return the lower Cholesky factor [G, F, F] of covariances with a ridge, in this order [G, F].

    The order is that of rows and columns. `xx` is overwritten: of a wide layer a matrix takes
    hundreds of megabytes.
    """
    ridge = ridge_strength(xx)
    rows = xx.gather(1, order[:, :, None].expand_as(xx))
    torch.gather(rows, 2, order[:, None].expand_as(xx), out=xx)
    # Before the factor needs as much.
    del rows
    xx.diagonal(dim1=1, dim2=2).add_(ridge)
    factor: Tensor = torch.linalg.cholesky(xx)
    return factor


def regress_(weight: Tensor, moments: Moments, order: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weights [G, R, F], float64, closest to the wanted outputs, and a factor.

    A ridge pulls them towards the given ones. The factor is the `ordered_factor_` of the inputs,
    whose covariances are overwritten.
    """
    ridge = ridge_strength(moments.xx)
    right = moments.yx + ridge[..., None] * weight.double()
    columns = order[:, None].expand_as(right)
    factor = ordered_factor_(moments.xx, order)
    solved = torch.cholesky_solve(right.gather(2, columns).mT, factor).mT
    return torch.empty_like(right).scatter_(2, columns, solved), factor
