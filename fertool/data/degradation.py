"""What lens, sensor and file do to images, batched: blur, low resolution, noise, JPEG artifacts.

Images are float32 [N, C, S, S] on the 0-255 scale; every image has a strength of its own, [N].
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from fertool.data.normal_noise import noise_pool

_SMALLEST_SIGMA = 1e-3
_BLOCK = 8
"""Side of the blocks that JPEG transforms."""
# ITU-T T.81, annex K, table K.1, for luma at quality 50; the scaling by quality is libjpeg's.
_LUMA_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_LUMA_WEIGHTS = (0.299, 0.587, 0.114)


def change_chosen(
    images: Tensor, chosen: Tensor, change: Callable[..., Tensor], *strengths: Tensor
) -> Tensor:
    """Return the images with `change(images, *strengths)` in place of those that are chosen [N]."""
    if images.device.type != "cpu":
        # All of them: counting the chosen ones would wait for the device.
        changed = change(images, *strengths)
        return torch.where(chosen.view(-1, 1, 1, 1), changed, images)
    rows = chosen.nonzero().flatten()
    if not len(rows):
        return images
    of_rows = [strength[rows] for strength in strengths]
    return images.index_copy(0, rows, change(images[rows], *of_rows))


def blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur by a Gaussian of `sigma` pixels; at the border the pixels that are there count alone."""
    axis = torch.arange(images.shape[-1], device=images.device, dtype=images.dtype)
    squares = (axis[:, None] - axis).square()
    widths = sigma.clamp(min=_SMALLEST_SIGMA).view(-1, 1, 1)
    # Not below e^-40: processors multiply denormal numbers a hundred times as slowly.
    exponents = (-0.5 * squares / widths.square()).clamp(min=-40)
    weights = exponents.exp()
    return _along_both_axes(images, weights / weights.sum(2, keepdim=True))


def downscale(images: Tensor, fraction: Tensor, repeats: Tensor) -> Tensor:
    """Shrink to a `fraction` of the side by averaging areas, and enlarge again.

    By repeating pixels where `repeats` [N], else bilinearly.
    """
    side = images.shape[-1]
    small = (fraction * side).round().clamp(min=1).view(-1, 1, 1)
    ratio = side / small
    axis = torch.arange(side, device=images.device, dtype=images.dtype)
    rows, columns = axis[:, None], axis
    # Of small pixel k: the part of each large pixel that lies in it. Those beyond the last are 0.
    starts = torch.maximum(rows * ratio, columns)
    ends = torch.minimum((rows + 1) * ratio, columns + 1)
    shrink = (ends - starts).clamp(min=0) / ratio
    places = torch.minimum(((rows + 0.5) / ratio - 0.5).clamp(min=0), small - 1)
    bilinear = (1 - (places - columns).abs()).clamp(min=0)
    nearest = ((rows + 0.5) / ratio).floor() == columns
    enlarge = torch.where(repeats.view(-1, 1, 1), nearest.to(images.dtype), bilinear)
    return _along_both_axes(images, enlarge @ shrink)


def add_noise(images: Tensor, sigma: Tensor, which: Tensor) -> Tensor:
    """Add normal noise of standard deviation `sigma`; `which`, from 0 to 1, chooses the noise."""
    # Windows of one pool: drawing anew took four times as long, and a view of recorded teachers
    # would have to hold a number for each pixel.
    size = images[0].numel()
    pool = noise_pool(size, images.device)
    starts = (which.double() * (len(pool) - size)).long()
    noise = pool.unfold(0, size, 1)[starts].view_as(images)
    return torch.addcmul(images, noise, sigma.view(-1, 1, 1, 1)).clamp_(0, 255)


def compress_jpeg(images: Tensor, quality: Tensor) -> Tensor:
    """Quantize the luma as a JPEG file of this `quality` (1 to 100) does; colors stay."""
    if images.shape[1] == 1:
        return _quantize_blocks(images, quality).clamp_(0, 255)
    weights = images.new_tensor(_LUMA_WEIGHTS).view(1, 3, 1, 1)
    luma = (images * weights).sum(1, keepdim=True)
    return (images + _quantize_blocks(luma, quality) - luma).clamp_(0, 255)


def _quantize_blocks(planes: Tensor, quality: Tensor) -> Tensor:
    """Return planes [N, 1, S, S] with the DCT coefficients of their blocks rounded."""
    side = planes.shape[-1]
    missing = -side % _BLOCK
    padded = F.pad(planes, (0, missing, 0, missing), mode="replicate") if missing else planes
    blocks = padded.shape[-1] // _BLOCK
    transform = _block_transform(blocks, planes.device)
    tables = _quantization_tables(quality).repeat(1, blocks, blocks).unsqueeze(1)
    coefficients = transform @ (padded - 128) @ transform.T
    rounded = (coefficients / tables).round() * tables
    restored = transform.T @ rounded @ transform + 128
    return restored[..., :side, :side]


def _quantization_tables(quality: Tensor) -> Tensor:
    """Return the tables [N, 8, 8] of libjpeg for these qualities [N]."""
    base = torch.tensor(_LUMA_TABLE, device=quality.device, dtype=torch.float32)
    percent = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)
    scaled = ((base * percent.view(-1, 1, 1) + 50) / 100).floor()
    return scaled.clamp(1, 255)


@cache
def _block_transform(blocks: int, device: torch.device) -> Tensor:
    """Return the matrix [S, S] of the orthonormal DCT-II of every block of 8 pixels of a row."""
    # One matrix for the whole row: the zeros cost less than taking the blocks apart.
    axis = torch.arange(_BLOCK, dtype=torch.float64)
    cosines = torch.cos(torch.pi / _BLOCK * (axis + 0.5) * axis[:, None]) / 2
    cosines[0] /= 2**0.5
    transform = torch.kron(torch.eye(blocks, dtype=torch.float64), cosines)
    return transform.to(device, torch.float32)


def _along_both_axes(images: Tensor, weights: Tensor) -> Tensor:
    """Return images whose rows and columns are multiplied by the matrices [N, S, S]."""
    weights = weights.unsqueeze(1)
    return weights @ images @ weights.transpose(2, 3)
