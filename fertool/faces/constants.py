"""The numbers of detection and alignment, in one place: other implementations repeat them.

Those that a user can change are in `fertool.config.detection`.
"""

from __future__ import annotations

FER2013_TEMPLATE = (
    (15.53 / 48, 17.93 / 48),
    (32.47 / 48, 17.93 / 48),
    (24.0 / 48, 28.31 / 48),
    (17.2 / 48, 36.14 / 48),
    (30.8 / 48, 36.14 / 48),
)
"""Where the landmarks of a face lie in FER2013's images, as fractions of the side: the eye at the
left of the image, the other eye, the tip of the nose, the corners of the mouth. The mean of what
YuNet finds in 3,000 training images, made symmetric."""

SECOND_LOOKS = (320, 160)
"""Long sides at which a picture without a face is looked at again, enlarged where it is smaller: a
face that fills the picture is too large for the detector at any other."""
SMALLEST_SIDE = 160
"""Pixels: a picture with a shorter long side is enlarged to it, and the short side of a panorama is
not reduced below it."""
LARGEST_AREA = 1 << 22
"""Pixels that a picture has at most when it is looked at."""

PAD_MULTIPLE = 32
"""The detector takes sides of such multiples; zeros are added at the right and at the bottom."""
STRIDES = (8, 16, 32)
"""Pixels between the anchors of YuNet's three outputs."""
LARGEST_OVERLAP = 0.3
"""Intersection over union from which the worse of two detections is the same face."""

MOST_SAMPLES = 16
"""Samples a side that are averaged for one pixel of a crop of a large face."""
