"""Conversion of the colors of another profile to sRGB."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

from PIL import Image, ImageCms

_LARGEST_PROFILE = 1 << 22
"""Bytes; profiles of printers have up to 3 MB."""


def to_srgb(image: Image.Image, profile: Any) -> Image.Image | None:
    """Return an image of mode L, RGB or CMYK converted by its ICC profile to RGB as sRGB.

    None where that changes nothing or cannot be done: no profile, a damaged one, one of other
    channels, sRGB itself, or a Pillow without LittleCMS.
    """
    if not isinstance(profile, bytes) or len(profile) > _LARGEST_PROFILE:
        return None
    if image.mode not in ("L", "RGB", "CMYK"):
        return None
    transform = _transform(profile, image.mode)
    if transform is None:
        return None
    converted: Image.Image = transform.apply(image)
    return converted


# The photos of one camera have the same profile, and a transform takes longer than a small image.
@lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> Any:
    """Return a transform of Pillow's ImageCms that threads may share, or None."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if mode == "RGB" and "srgb" in ImageCms.getProfileDescription(source).lower():
            return None
        target: Any = ImageCms.createProfile("sRGB")
        # NOCACHE: the cache of LittleCMS inside a transform is what threads must not share.
        return ImageCms.buildTransform(source, target, mode, "RGB", flags=ImageCms.Flags.NOCACHE)
    # A profile that cannot be used is no reason to refuse the pixels; ImportError: no LittleCMS.
    except (ImageCms.PyCMSError, ImportError, OSError, TypeError, ValueError):
        return None
