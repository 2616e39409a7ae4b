"""Draw boxes and labels onto a picture."""

from __future__ import annotations

from functools import cache
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from fertool.config.predicting import UNSURE
from fertool.results import FaceResult, PictureResult

_COLOR, _COLOR_UNSURE = (40, 170, 255), (150, 150, 150)
_TEXT = (255, 255, 255)
_SMALLEST_TEXT = 11
_TEXT_PER_SIDE = 1 / 36
"""Height of the text by the shorter side of the picture."""


def draw_result(image: Image.Image, result: PictureResult) -> Image.Image:
    """Return a copy of a picture, in RGB, with a box and a label around each face."""
    # A copy also of a picture that is RGB already.
    drawn = image.convert("RGB")
    text_size = max(_SMALLEST_TEXT, round(min(image.size) * _TEXT_PER_SIDE))
    pen = ImageDraw.Draw(drawn)
    for face in result.faces:
        _draw_face(pen, face, text_size)
    return drawn


def _draw_face(pen: ImageDraw.ImageDraw, face: FaceResult, text_size: int) -> None:
    color = _COLOR_UNSURE if face.label == UNSURE else _COLOR
    x, y, width, height = face.box
    line = max(1, text_size // 7)
    # Pillow refuses boxes whose right side is left of the left one.
    right, bottom = x + max(width, 1), y + max(height, 1)
    pen.rectangle((x, y, right, bottom), outline=color, width=line)

    text = f"{face.label} {100 * face.confidence:.0f} %"
    font = _font(text_size)
    left, top, text_right, text_bottom = pen.textbbox((0, 0), text, font=font)
    space = text_size // 4
    label_width = text_right - left + 2 * space
    label_height = text_bottom - top + 2 * space
    # Inside of the box where there is no room above it.
    label_top = max(y, 0.0)
    if y >= label_height:
        label_top = y - label_height
    label_left = max(0.0, x)
    pen.rectangle(
        (label_left, label_top, label_left + label_width, label_top + label_height), fill=color
    )
    pen.text((label_left + space - left, label_top + space - top), text, fill=_TEXT, font=font)


@cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)
