"""What `hessian-sensitivity` measured, as rows of text."""

from __future__ import annotations

from collections.abc import Sequence

from fertool.report.text_table import TextTable
from fertool.report.units import MISSING, count_text, hessian_text
from fertool.results import Sensitivity

_HEADERS = (
    "layer",
    ">channels",
    ">weights",
    ">mean trace",
    ">smallest",
    ">largest",
    ">mean by\nactivation",
)


def layout_sensitivity(sensitivity: Sensitivity) -> TextTable:
    """Lay out for each layer its channels, and the mean and extreme Hessian traces."""
    rows = []
    for layer in sensitivity.layers:
        traces = layer.weight_trace
        row = (
            layer.name,
            f"{len(traces):,}",
            count_text(layer.weight_params * len(traces)),
            f"{sum(traces) / len(traces):.3g}",
            f"{min(traces):.3g}",
            f"{max(traces):.3g}",
            _mean_text(layer.activation_trace),
        )
        rows.append(row)
    return TextTable(_HEADERS, tuple(rows))


def _mean_text(traces: Sequence[float]) -> str:
    if not traces:
        return MISSING
    return f"{sum(traces) / len(traces):.3g}"


def sensitivity_caption(sensitivity: Sensitivity) -> str:
    """Return what the traces are, and from how many images and probes they were estimated."""
    probes = sensitivity.probes
    # Without probes the trace is computed and not estimated.
    accuracy = f"{probes} probes" if probes else "exact"
    images = f"{sensitivity.samples:,} images"
    loss = hessian_text(sensitivity.hessian)
    return f"Hessian trace of the {loss}, per output channel; {images}, {accuracy}"
