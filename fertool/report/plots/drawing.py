"""What all figures are drawn on and with: PNG for files, SVG for pages."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class FigureFormat:
    """What a figure is drawn for: `max_width` (inches) is the widest that it may be.

    `style` are settings of Matplotlib, `small_font` (points) is for many names; `names_that_fit`
    says how many vertical ones an axis has room for.
    """

    name: str
    max_width: float = 20
    names_that_fit: int = 60
    small_font: int = 8
    legend_columns: int = 10
    style: dict[str, Any] = field(default_factory=dict)

    def finish(self, drawn: io.BytesIO) -> bytes:
        """Return the bytes of a figure that was saved."""
        if self.name == "svg":
            return _with_page_colors(drawn.getvalue().decode()).encode()
        return drawn.getvalue()


_INK = "#1f2328"
_TRANSPARENT = "none"
PNG = FigureFormat("png")
# 4.8 inches are 346 printer's points, which a phone of 390 CSS pixels shows at least at that size.
SVG = FigureFormat(
    "svg",
    max_width=4.8,
    names_that_fit=24,
    small_font=9,
    legend_columns=4,
    style={
        "font.size": 11,
        # As text and not as outlines: it can be searched, and is a tenth as long.
        "svg.fonttype": "none",
        # Names of the parts would be random.
        "svg.hashsalt": "fertool",
        "figure.facecolor": _TRANSPARENT,
        "axes.facecolor": _TRANSPARENT,
        "savefig.facecolor": _TRANSPARENT,
        "text.color": _INK,
        "axes.edgecolor": _INK,
        "axes.labelcolor": _INK,
        "xtick.color": _INK,
        "ytick.color": _INK,
    },
)
"""For pages: readable at the width of a phone, and with colors that follow its dark mode."""

_DARK_COLORS = {
    _INK: "#e6edf3",
    "#000000": "#e6edf3",
    "#e5e5e5": "#3a4048",
    "#d0d7de": "#57606a",
    "#0072b2": "#4da6e0",
    "#d55e00": "#f08a3c",
    "#009e73": "#2fc79a",
    "#cc79a7": "#dd93bb",
    "#e69f00": "#e6a92e",
    "#56b4e9": "#7cc7f0",
    "#440154": "#8a5cb3",
    "#443a83": "#6f69c4",
}
"""What a color of a figure is on a dark page, each at a contrast of 3 or more to it."""
# Verdana has the widths of DejaVu Sans, with which the figure was laid out, on most other systems.
_FONTS = "'DejaVu Sans', Verdana, system-ui, sans-serif"


@contextmanager
def new_figure(
    width: float, height: float, format: FigureFormat = PNG
) -> Iterator[tuple[Figure, io.BytesIO]]:
    """Yield an empty figure (inches) and the buffer that afterwards holds what was drawn.

    It is in a format that `FigureFormat.finish` turns into the bytes of a file. Raises FertoolError
    when Matplotlib is missing.
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
        **format.style,
    }
    drawn = io.BytesIO()
    # In a context, so that the process keeps its own style.
    with matplotlib.rc_context(style), warnings.catch_warnings():
        # A character that the font lacks is drawn as a box; the warning would be a line for each.
        warnings.simplefilter("ignore")
        size = (min(width, format.max_width), height)
        figure = Figure(figsize=size, dpi=DPI, layout="constrained")
        yield figure, drawn
        # With date and version of Matplotlib in it, the same figure would have other bytes.
        unsaid: dict[str, None] = {"Software": None}
        if format.name == "svg":
            unsaid = {"Date": None, "Creator": None}
        figure.savefig(drawn, format=format.name, metadata=unsaid)


def _with_page_colors(svg: str) -> str:
    """Return an SVG whose colors are those of a dark page where the reader's pages are dark."""
    light, dark = [], []
    for number, (color, in_the_dark) in enumerate(_DARK_COLORS.items()):
        svg = svg.replace(f": {color}", f": var(--c{number})")
        light.append(f"--c{number}:{color}")
        dark.append(f"--c{number}:{in_the_dark}")
    style = (
        f":root{{{';'.join(light)}}}@media(prefers-color-scheme:dark){{:root{{{';'.join(dark)}}}}}"
    )
    svg = svg.replace("'DejaVu Sans'", _FONTS)
    # A browser needs no document type, and reads no address in one.
    svg = svg[svg.index("<svg") :]
    return re.sub(r"(<svg[^>]*>)", rf"\1<style>{style}</style>", svg, count=1)
