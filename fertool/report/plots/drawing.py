"""What all figures are drawn on and with."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fertool.errors import FertoolError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, told apart with every common kind of color blindness."""
MARKERS = "osD^vP"
GRID_COLOR = "#E5E5E5"
BEFORE_COLOR = "#D0D7DE"
"""Of the network before a step, and of layers in float."""
DPI = 144


def require_matplotlib() -> None:
    """Raise FertoolError when figures cannot be drawn."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise FertoolError("figures need Matplotlib", "pip install 'fertool[plots]'") from None


@contextmanager
def new_figure(width: float, height: float) -> Iterator[tuple[Figure, io.BytesIO]]:
    """Yield an empty figure (inches) and the buffer that holds its PNG afterwards.

    Raises FertoolError when Matplotlib is missing.
    """
    require_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    style: Any = {
        "font.size": 10,
        "font.family": "DejaVu Sans",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": False,
        # Names may have dollar signs.
        "text.parse_math": False,
    }
    png = io.BytesIO()
    # In a context, so that the process keeps its own style.
    with matplotlib.rc_context(style), warnings.catch_warnings():
        # A character that the font lacks is drawn as a box; the warning would be a line for each.
        warnings.simplefilter("ignore")
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        yield figure, png
        # With the version of Matplotlib in it, the same figure would have other bytes elsewhere.
        figure.savefig(png, format="png", metadata={"Software": None})
