"""The icon of the app: four corners around a smile."""

from __future__ import annotations

import base64
import io

from PIL import Image, ImageDraw

_GREEN = "#0b6b5d"
_WHITE = "#ffffff"
_OVERSAMPLING = 4
_CORNERS = ((0.24, 0.24, 180), (0.76, 0.24, 270), (0.76, 0.76, 0), (0.24, 0.76, 90))
"""Outermost point of each corner, as fractions of the side, and where its arc begins, degrees."""

SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100">'
    f'<rect width="100" height="100" rx="23" fill="{_GREEN}"/>'
    f'<g fill="none" stroke="{_WHITE}" stroke-width="6.5" stroke-linecap="round">'
    '<path d="M24 42V34a10 10 0 0 1 10-10h8M58 24h8a10 10 0 0 1 10 10v8'
    'M76 58v8a10 10 0 0 1-10 10h-8M42 76h-8a10 10 0 0 1-10-10v-8"/>'
    '<path d="M40 44v3M60 44v3M39 57a13 13 0 0 0 22 0"/></g></svg>'
)


def svg_as_url() -> str:
    """Return the icon as a URL that a page can hold."""
    return f"data:image/svg+xml;base64,{base64.b64encode(SVG.encode()).decode()}"


def png(size: int) -> bytes:
    """Return the icon as a PNG of `size` pixels a side, filled to its edges.

    Systems cut the corners off as they like; what matters is within the middle four fifths.
    """
    side = size * _OVERSAMPLING
    image = Image.new("RGB", (side, side), _GREEN)
    draw = ImageDraw.Draw(image)
    width = round(0.055 * side)
    for x, y, start in _CORNERS:
        _draw_corner(draw, x * side, y * side, start, side, width)
    for x in (0.41, 0.59):
        _draw_stroke(draw, (x * side, 0.44 * side), (x * side, 0.48 * side), width)
    mouth = (0.37 * side, 0.36 * side, 0.63 * side, 0.63 * side)
    draw.arc(mouth, 35, 145, fill=_WHITE, width=width)
    buffer = io.BytesIO()
    image.resize((size, size), Image.Resampling.LANCZOS).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _draw_corner(
    draw: ImageDraw.ImageDraw, x: float, y: float, start: int, side: int, width: int
) -> None:
    """Draw an arc of a quarter with a straight end on both sides."""
    # Towards the middle of the icon.
    dx = 1 if x < side / 2 else -1
    dy = 1 if y < side / 2 else -1
    radius, length = 0.1 * side, 0.18 * side
    center_x, center_y = x + dx * radius, y + dy * radius
    half = width / 2
    box = (
        center_x - radius - half,
        center_y - radius - half,
        center_x + radius + half,
        center_y + radius + half,
    )
    draw.arc(box, start, start + 90, fill=_WHITE, width=width)
    _draw_stroke(draw, (x, center_y), (x, y + dy * length), width)
    _draw_stroke(draw, (center_x, y), (x + dx * length, y), width)


def _draw_stroke(
    draw: ImageDraw.ImageDraw, start: tuple[float, float], end: tuple[float, float], width: int
) -> None:
    """Draw a line with round ends."""
    draw.line((start, end), fill=_WHITE, width=width)
    half = width / 2
    for x, y in (start, end):
        draw.ellipse((x - half, y - half, x + half, y + half), fill=_WHITE)
