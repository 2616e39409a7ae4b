"""What can choose the profile of an image in a dynamic network."""

from __future__ import annotations

from typing import Literal

Gate = Literal["statistics", "cascade"]
"""A gate that looks at the image, or the profiles themselves, from the narrowest on."""
