"""Random augmentation of a whole batch of images at once, in pixel space (0 to 255)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fertool.config.training import (
    DEGRADATION_OPTIONS,
    DEGRADATIONS,
    HIGHEST_QUALITY,
    AugmentConfig,
)
from fertool.data.degradation import add_noise, blur, change_chosen, compress_jpeg, downscale
from fertool.header_json import digest_text

_LARGEST_ASPECT = 3.3


@dataclass(frozen=True)
class AugmentParams:
    """The random numbers, uniform from 0 to 1, that decide the augmentation of each of N images.

    `mirror` is [N], `move` (rotation, scale, shift right, shift down, and aspect if that is on)
    [4 or 5, N], `color` (brightness, contrast) [2, N], `erase` (whether, area, aspect, x, y)
    [5, N]; `noise`, `blur`, `downscale` and `jpeg` (whether, how much, and which noise or way of
    enlarging) [3, N]. Parts that `config` switches off are None.
    """

    config: AugmentConfig
    mirror: Tensor
    move: Tensor | None
    color: Tensor | None
    erase: Tensor | None
    noise: Tensor | None = None
    blur: Tensor | None = None
    downscale: Tensor | None = None
    jpeg: Tensor | None = None

    def __getitem__(self, images: Tensor | slice) -> AugmentParams:
        """Return the parameters of some of the images: positions int64 [M], or a slice."""
        return self._map(lambda numbers: numbers[..., images])

    def to(self, device: torch.device) -> AugmentParams:
        """Return the same parameters on another device."""
        return self._map(lambda numbers: numbers.to(device))

    def with_degradations(self, config: AugmentConfig, generator: torch.Generator) -> AugmentParams:
        """Return the same parameters with the degradations of another config, drawn here."""
        drawn = _draw_degradations(len(self.mirror), config, generator)
        if not drawn:
            return self
        options = {name: getattr(config, name) for name in DEGRADATION_OPTIONS}
        return replace(self, config=replace(self.config, **options), **drawn)

    @property
    def digest(self) -> str:
        """The SHA-256 of the random numbers."""
        digest = hashlib.sha256()
        for numbers in self._parts().values():
            digest.update(numbers.cpu().numpy().tobytes())
        return digest.hexdigest()

    def _parts(self) -> dict[str, Tensor]:
        """Return the random numbers by field, without parts that are off."""
        parts: dict[str, Tensor] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, Tensor):
                parts[each.name] = value
        return parts

    def _map(self, function: Callable[[Tensor], Tensor]) -> AugmentParams:
        changed: dict[str, Any] = {}
        for name, numbers in self._parts().items():
            changed[name] = function(numbers)
        return replace(self, **changed)


def draw_augment_params(n: int, config: AugmentConfig, generator: torch.Generator) -> AugmentParams:
    """Draw the parameters of n images, on the generator's device."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=generator.device)

    move = color = erase = None
    # The order of the draws is part of the format: recorded logits name views by their seed.
    mirror = uniform(n)
    if config.changes_geometry:
        move = uniform(5 if config.aspect else 4, n)
    if config.changes_color:
        color = uniform(2, n)
    if config.erasing:
        erase = uniform(5, n)
    degradations = _draw_degradations(n, config, generator)
    return AugmentParams(config, mirror, move, color, erase, **degradations)


def _draw_degradations(
    n: int, config: AugmentConfig, generator: torch.Generator
) -> dict[str, Tensor]:
    """Draw the parameters of the degradations that are on, by their names."""
    drawn: dict[str, Tensor] = {}
    for name in DEGRADATIONS:
        if getattr(config, name):
            drawn[name] = torch.rand(3, n, generator=generator, device=generator.device)
    return drawn


def view_augment_params(n: int, config: AugmentConfig, seed: int, view: int) -> AugmentParams:
    """Return the parameters of the fixed view number `view` (from 0) of a data set of n images.

    They are drawn on the CPU, so that every device makes the same views.
    """
    generator = torch.Generator().manual_seed(int(digest_text(f"view {view} of {seed}")[:15], 16))
    return draw_augment_params(n, config, generator)


def augment(
    images: Tensor, config: AugmentConfig, generator: torch.Generator, side: int | None = None
) -> Tensor:
    """Return augmented images float32 [N, C, side, side] on the 0-255 scale.

    `images` are [N, C, S, S], uint8 or float on this scale; `side` is theirs by default. All random
    numbers come from `generator`, which lives on the images' device. `mix` does what changes the
    targets too.
    """
    # Drawn in one go for the batch, so that a GPU is not asked for a number at a time.
    params = draw_augment_params(len(images), config, generator)
    return apply_augmentation(images, params, side)


def apply_augmentation(images: Tensor, params: AugmentParams, side: int | None = None) -> Tensor:
    """Return augmented images float32 [N, C, side, side] on the 0-255 scale, from uint8 or float.

    One affine map, one color map and one rectangle for each image, the same for every `side`, which
    is theirs by default; then what lens, sensor and file do to it, in this order. Images and
    parameters are on one device.
    """
    whole_side = images.shape[-1]
    side = side or whole_side
    pixels = _warp(images.to(torch.float32), params, side)
    pixels = _adjust_color(pixels, params)
    pixels = _erase(pixels, params)
    return _degrade(pixels, params, side / whole_side)


@dataclass(frozen=True)
class BatchShard:
    """One process's images of a batch of `size`, by their positions int64 [M] in it."""

    size: int
    positions: Tensor


def mix(
    images: Tensor,
    targets: Tensor,
    config: AugmentConfig,
    generator: torch.Generator,
    choice_generator: torch.Generator,
    shard: BatchShard | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the batch after mixup or CutMix, whichever is on.

    Where both are on, one is chosen at random for the whole batch. `generator` lives on the images'
    device, `choice_generator` on the CPU, so that nothing waits for a device. An image of a `shard`
    whose left neighbor in the batch stands left of it there gets the same result as in the whole
    batch.
    """
    if config.cutmix:
        # Drawn only where both are on: one more draw would change every later one.
        use_cutmix = config.mixup == 0 or torch.rand((), generator=choice_generator) < 0.5
        if use_cutmix:
            return cutmix(images, targets, config.cutmix, generator, shard)
    return mixup(images, targets, config.mixup, generator, shard)


def mixup(
    images: Tensor,
    targets: Tensor,
    alpha: float,
    generator: torch.Generator,
    shard: BatchShard | None = None,
) -> tuple[Tensor, Tensor]:
    """Blend each image and its target distribution [N, K] with its neighbor's.

    The batch must be shuffled. The coefficients are Beta(alpha, alpha), one a pair (Zhang et al.
    2018, equation 1).
    """
    if alpha == 0:
        return images, targets
    batch_size = shard.size if shard else len(images)
    coefficients = _of_shard(shard, _symmetric_beta(batch_size, alpha, generator)).to(images)
    mixed_images = torch.lerp(images.roll(1, 0), images, coefficients.view(-1, 1, 1, 1))
    mixed_targets = torch.lerp(targets.roll(1, 0), targets, coefficients.view(-1, 1))
    return mixed_images, mixed_targets


def cutmix(
    images: Tensor,
    targets: Tensor,
    alpha: float,
    generator: torch.Generator,
    shard: BatchShard | None = None,
) -> tuple[Tensor, Tensor]:
    """Replace a box of each image by its neighbor's, and mix targets [N, K] by its area.

    The batch must be shuffled. Boxes have the image's shape, the fraction 1 - Beta(alpha, alpha) of
    its area and a uniform center, one for each pair. They are clipped to the image, and targets mix
    by the fraction of pixels really replaced (Yun et al. 2019, section 3.1).
    """
    if alpha == 0:
        return images, targets
    side = images.shape[-1]
    batch_size = shard.size if shard else len(images)
    kept = _of_shard(shard, _symmetric_beta(batch_size, alpha, generator))
    kept = kept.to(images.dtype).view(-1, 1)
    uniform = torch.rand(2, batch_size, generator=generator, device=images.device)
    box_centers = side * _of_shard(shard, uniform).unsqueeze(2)
    half_sides = side * (1 - kept).sqrt() / 2

    pixel_centers = torch.arange(side, device=images.device) + 0.5
    rows, columns = (pixel_centers - box_centers).abs() < half_sides
    box = (rows[:, :, None] & columns[:, None, :]).unsqueeze(1)
    replaced = box.to(targets.dtype).mean((1, 2, 3)).view(-1, 1)
    mixed_images = torch.where(box, images.roll(1, 0), images)
    mixed_targets = torch.lerp(targets, targets.roll(1, 0), replaced)
    return mixed_images, mixed_targets


def _of_shard(shard: BatchShard | None, numbers: Tensor) -> Tensor:
    """Return those of the numbers [..., N] of a whole batch that belong to the shard's images."""
    return numbers if shard is None else numbers[..., shard.positions]


def _warp(images: Tensor, params: AugmentParams, side: int) -> Tensor:
    """Flip, rotate, scale, stretch and shift, sampling `side` by `side` points.

    Pixels from outside of the image repeat its border.
    """
    config = params.config
    mirrored = params.mirror < config.flip
    if params.move is None and side == images.shape[-1]:
        if not config.flip:
            return images
        return torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)

    moves = images.new_zeros(4, len(images))
    if params.move is not None:
        moves = 2 * params.move - 1
    angle, zoom, right, down = moves[:4]
    angle = angle * math.radians(config.rotation)
    # The map goes from output to input, on coordinates from -1 to 1: the inverse of what is seen.
    size = 1 / (1 + zoom * config.scale)
    stretch = torch.ones_like(size)
    if config.aspect:
        stretch = (moves[4] * math.log1p(config.aspect) / 2).exp()
    mirror = torch.stack([(1 - 2 * mirrored.to(images.dtype)) / stretch, stretch], 1)
    along_x = mirror * torch.stack([size * angle.cos(), -size * angle.sin()], 1)
    along_y = mirror * torch.stack([size * angle.sin(), size * angle.cos()], 1)
    shift = 2 * config.translate * torch.stack([right, down], 1)

    axis = (torch.arange(side, device=images.device) * 2 + 1) / side - 1
    # Outer sums along rows of pixels: affine_grid's matrix product took six times as long as the
    # sampling.
    columns = along_x[:, :, None] * axis
    rows = along_y[:, :, None] * axis + shift[:, :, None]
    grid = (columns[:, :, None, :] + rows[:, :, :, None]).permute(0, 2, 3, 1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _adjust_color(images: Tensor, params: AugmentParams) -> Tensor:
    """Scale the brightness, then the distance from the image's own mean.

    Values are clipped to 0 to 255, after both steps.
    """
    if params.color is None:
        return images
    config = params.config
    brightness, contrast = 2 * params.color.view(2, -1, 1, 1, 1) - 1
    brightness = 1 + brightness * config.brightness
    contrast = 1 + contrast * config.contrast
    # Both steps as one product and sum, which read and write the batch once.
    offset = brightness * (1 - contrast) * images.mean((1, 2, 3), keepdim=True)
    return torch.addcmul(offset, images, brightness * contrast).clamp_(0, 255)


def _erase(images: Tensor, params: AugmentParams) -> Tensor:
    """Fill a rectangle with the image's mean.

    Random erasing of Zhong et al. 2020, with aspect ratios from 1 : 3.3 to 3.3 : 1.
    """
    if params.erase is None:
        return images
    config = params.config
    side = images.shape[-1]
    chosen, area, aspect, x, y = params.erase.unsqueeze(2)
    smallest, largest = config.erasing_area
    area = smallest + area * (largest - smallest)
    root = ((2 * aspect - 1) * (math.log(_LARGEST_ASPECT) / 2)).exp()
    height = side * area.sqrt() * root
    width = side * area.sqrt() / root

    pixel_centers = torch.arange(side, device=images.device) + 0.5
    top = y * (side - height)
    left = x * (side - width)
    in_rows = (pixel_centers > top) & (pixel_centers <= top + height) & (chosen < config.erasing)
    in_columns = (pixel_centers > left) & (pixel_centers <= left + width)
    erased = (in_rows[:, :, None] & in_columns[:, None, :]).unsqueeze(1)
    return torch.where(erased, images.mean((1, 2, 3), keepdim=True), images)


def _degrade(images: Tensor, params: AugmentParams, scale: float) -> Tensor:
    """Blur, shrink, add noise and compress, each those images that it has been drawn for.

    Lengths in pixels are multiplied by `scale`, for images that are made smaller in training.
    """
    config = params.config
    if params.blur is not None:
        chosen, much, _ = params.blur
        sigma = much * (config.strength("blur_sigma") * scale)
        images = change_chosen(images, chosen < (config.blur or 0), blur, sigma)
    if params.downscale is not None:
        chosen, much, way = params.downscale
        chosen = chosen < (config.downscale or 0)
        fraction = 1 - much * (1 - config.strength("downscale_to"))
        images = change_chosen(images, chosen, downscale, fraction, way < 0.5)
    if params.noise is not None:
        chosen, much, which = params.noise
        sigma = much * config.strength("noise_sigma")
        images = change_chosen(images, chosen < (config.noise or 0), add_noise, sigma, which)
    if params.jpeg is not None:
        chosen, much, _ = params.jpeg
        lowest = config.strength("jpeg_quality")
        quality = HIGHEST_QUALITY - much * (HIGHEST_QUALITY - lowest)
        images = change_chosen(images, chosen < (config.jpeg or 0), compress_jpeg, quality.round())
    return images


def _symmetric_beta(n: int, alpha: float, generator: torch.Generator) -> Tensor:
    """Draw n Beta(alpha, alpha) numbers, float64, without rejection and so without device syncs.

    T = sqrt(2a (U^(-1/a) - 1)) cos(2 pi V) has Student's distribution with 2a degrees of freedom
    (Bailey, Mathematics of Computation 62, 1994, 779-781), and (1 + T / sqrt(2a + T^2)) / 2 is
    Beta(a, a).
    """
    # In float64: for a small alpha most numbers lie very close to 0 or 1.
    u, v = torch.rand(2, n, generator=generator, device=generator.device, dtype=torch.float64)
    power = u.pow(1 / alpha)
    cosine = torch.cos(2 * math.pi * v)
    return 0.5 + 0.5 * cosine / torch.sqrt(power / (1 - power) + cosine.square())
