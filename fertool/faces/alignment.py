"""Cut a face out of a picture as the training images show it: upright,
landmarks in their places.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fertool.faces.constants import FER2013_TEMPLATE, MOST_SAMPLES

Template = Sequence[tuple[float, float]]
"""Where the five landmarks lie in a crop, as fractions of its side."""
_LEAST_AGREEMENT = 0.2
"""Of two sets of points: below this fraction of the usual scale they are not turned at all."""
_MARGIN = 2
"""Pixels around what is sampled that interpolation may read."""


def crop_face(
    image: Image.Image,
    landmarks: NDArray[np.float64],
    size: int,
    template: Template = FER2013_TEMPLATE,
) -> Image.Image:
    """Return the square of `size` pixels in which the landmarks [5, 2] lie as in the template.

    The picture, of mode L or RGB, is turned, scaled and shifted (a similarity). Where the face is
    larger than the crop, areas are averaged. The picture's edge continues outside of it: black
    there costs 1.6 points of accuracy on FER2013.
    """
    targets = np.asarray(template, np.float64) * size
    to_crop = similarity(landmarks, targets)
    scale = math.hypot(to_crop[0, 0], to_crop[1, 0])
    samples = min(MOST_SAMPLES, max(1, round(1 / scale)))
    to_picture = _inverse(to_crop)
    region, offset = _region_with_edges(image, _bounds(to_picture, size))
    to_picture[:, 2] -= offset

    # Pillow takes the map from the pixels that it makes, here `samples` a side for one of the crop.
    coefficients = to_picture / np.array([samples, samples, 1])
    side = size * samples
    sampled = region.transform(
        (side, side),
        Image.Transform.AFFINE,
        tuple(coefficients.ravel().tolist()),
        Image.Resampling.BILINEAR,
    )
    if samples > 1:
        # Means of squares of samples: what is smaller than a pixel of the crop leaves no pattern.
        sampled = sampled.reduce(samples)
    return sampled


def similarity(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the similarity [2, 3] that takes points [N, 2] to others with the least squares.

    Umeyama (1991), without reflections.
    """
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    a, b = source - source_mean, target - target_mean
    # The points of a face that is a single pixel have no extent.
    extent = max(float((a**2).sum()), 1e-6)
    cosine = float((a * b).sum()) / extent
    sine = float((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()) / extent
    usual_scale = math.sqrt(float((b**2).sum()) / extent)
    # Points in no order of a face, as in a mirror, would be blown down to nothing.
    if math.hypot(cosine, sine) < _LEAST_AGREEMENT * usual_scale:
        cosine, sine = usual_scale, 0.0
    rotation = np.array([[cosine, -sine], [sine, cosine]])
    shift = target_mean - rotation @ source_mean
    return np.concatenate([rotation, shift[:, None]], axis=1)


def _inverse(similar: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the inverse of a similarity [2, 3]."""
    rotation = similar[:, :2]
    square_scale = float(rotation[0, 0] ** 2 + rotation[1, 0] ** 2)
    inverse = rotation.T / square_scale
    shift = -inverse @ similar[:, 2]
    return np.concatenate([inverse, shift[:, None]], axis=1)


def _bounds(to_picture: NDArray[np.float64], size: int) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of what a crop shows, in pixels of the picture."""
    corners = np.array([[0, 0], [size, 0], [0, size], [size, size]], np.float64)
    placed = corners @ to_picture[:, :2].T + to_picture[:, 2]
    left, top = np.floor(placed.min(axis=0)).astype(int) - _MARGIN
    right, bottom = np.ceil(placed.max(axis=0)).astype(int) + _MARGIN
    return int(left), int(top), int(right), int(bottom)


def _region_with_edges(
    image: Image.Image, bounds: tuple[int, int, int, int]
) -> tuple[Image.Image, tuple[int, int]]:
    """Return a region of a picture, whose edge continues where it leaves it, and its origin."""
    left, top, right, bottom = bounds
    width, height = image.size
    # At least one pixel of the picture, also for a region beside it.
    inner_left, inner_top = min(max(left, 0), width - 1), min(max(top, 0), height - 1)
    inner_right = max(min(right, width), inner_left + 1)
    inner_bottom = max(min(bottom, height), inner_top + 1)
    inner = image.crop((inner_left, inner_top, inner_right, inner_bottom))
    if (inner_left, inner_top, inner_right, inner_bottom) == bounds:
        return inner, (left, top)

    pixels = np.asarray(inner)
    rows = np.clip(np.arange(top, bottom) - inner_top, 0, pixels.shape[0] - 1)
    columns = np.clip(np.arange(left, right) - inner_left, 0, pixels.shape[1] - 1)
    return Image.fromarray(pixels[rows][:, columns]), (left, top)
