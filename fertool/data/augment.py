"""Random changes of a whole batch of images at once, in pixel space (0 to 255)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fertool.errors import UsageError
from fertool.spec import digest_text

_LARGEST_ASPECT = 3.3
_LARGEST_AREA = 0.3
"""Up to this area a rectangle of the largest aspect ratio still fits into the image."""


@dataclass(frozen=True)
class AugmentConfig:
    """How far images are changed; 0 switches a part off. The defaults are those of recipe 1.

    `flip` and `erasing` are probabilities, `rotation` is in degrees, `translate` a share of the side, `scale`,
    `brightness` and `contrast` are deviations from a factor of 1, `aspect` that of width to height, `erasing_area` is
    a range of shares of the image, `mixup` and `cutmix` the alphas of their Beta distributions. Translation, scale and
    aspect together are a random resized crop.
    """

    flip: float = 0.5
    rotation: float = 15.0
    translate: float = 0.0
    scale: float = 0.0
    aspect: float = 0.0
    brightness: float = 0.2
    contrast: float = 0.2
    erasing: float = 0.15
    erasing_area: tuple[float, float] = (0.02, 0.20)
    mixup: float = 0.2
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        limits = dict.fromkeys(
            ("flip", "translate", "aspect", "brightness", "contrast", "erasing"), 1.0
        )
        limits |= {"rotation": 180, "scale": 0.9, "mixup": math.inf, "cutmix": math.inf}
        for name, limit in limits.items():
            value = getattr(self, name)
            if not (0 <= value <= limit and math.isfinite(value)):
                wanted = "0 or more" if limit == math.inf else f"between 0 and {limit}"
                raise UsageError(f"--{name} {value}: must be {wanted}", "0 switches it off")
        if not 0 < self.erasing_area[0] <= self.erasing_area[1] <= _LARGEST_AREA:
            raise UsageError(
                f"erasing area {self.erasing_area}: must be two rising shares up to {_LARGEST_AREA}",
                "use 0.02 to 0.20",
            )


NO_AUGMENTATION = AugmentConfig(flip=0, rotation=0, brightness=0, contrast=0, erasing=0, mixup=0)
"""Images as they are."""


@dataclass(frozen=True)
class Changes:
    """What happens to each of N images: how far they may go, and the random numbers, from 0 to 1, that say where.

    `mirror` is [N], `move` (rotation, scale, shift right, shift down, and aspect if that is on) [4 or 5, N], `colour`
    (brightness, contrast) [2, N], `erase` (whether, area, aspect, x, y) [5, N]; parts that are switched off are None.
    """

    config: AugmentConfig
    mirror: Tensor
    move: Tensor | None
    colour: Tensor | None
    erase: Tensor | None

    def __getitem__(self, images: Tensor | slice) -> Changes:
        """Return the changes of some of the images: positions int64 [M], or a slice."""
        return self._each(lambda numbers: numbers[..., images])

    def to(self, device: torch.device) -> Changes:
        """Return the same changes on another device."""
        return self._each(lambda numbers: numbers.to(device))

    @property
    def digest(self) -> str:
        """The SHA-256 of the random numbers."""
        parts = (
            part for part in (self.mirror, self.move, self.colour, self.erase) if part is not None
        )
        return hashlib.sha256(b"".join(part.cpu().numpy().tobytes() for part in parts)).hexdigest()

    def _each(self, function: Callable[[Tensor], Tensor]) -> Changes:
        rest = (
            None if part is None else function(part)
            for part in (self.move, self.colour, self.erase)
        )
        return Changes(self.config, function(self.mirror), *rest)


def draw_changes(n: int, config: AugmentConfig, generator: torch.Generator) -> Changes:
    """Draw the changes of n images, on the generator's device."""
    device = generator.device
    mirror = torch.rand(n, generator=generator, device=device)
    still = config.rotation == config.translate == config.scale == config.aspect == 0
    move = (
        None
        if still
        else torch.rand(4 + (config.aspect > 0), n, generator=generator, device=device)
    )
    plain = config.brightness == config.contrast == 0
    colour = None if plain else torch.rand(2, n, generator=generator, device=device)
    erase = torch.rand(5, n, generator=generator, device=device) if config.erasing else None
    return Changes(config, mirror, move, colour, erase)


def view_changes(n: int, config: AugmentConfig, seed: int, view: int) -> Changes:
    """Return the changes that make up the fixed view number `view` (from 0) of a data set of n images.

    They are drawn on the CPU, so that every device shows the same views.
    """
    generator = torch.Generator().manual_seed(int(digest_text(f"view {view} of {seed}")[:15], 16))
    return draw_changes(n, config, generator)


def augment(
    images: Tensor, config: AugmentConfig, generator: torch.Generator, side: int | None = None
) -> Tensor:
    """Return images changed at random, float32 [N, C, side, side] on the 0-255 scale, from uint8 or float ones.

    `side` is theirs by default. All random numbers come from `generator`, which lives on the images' device. What
    changes the targets too is apart, in `mix`.
    """
    return apply_changes(images, draw_changes(len(images), config, generator), side)


def apply_changes(images: Tensor, changes: Changes, side: int | None = None) -> Tensor:
    """Return changed images float32 [N, C, side, side] on the 0-255 scale, from uint8 or float ones on one device.

    One affine map, one colour map and one rectangle for each image, the same whatever the `side`; it is theirs by
    default.
    """
    pixels = _move(images.to(torch.float32), changes, side or images.shape[-1])
    return _erase(_recolour(pixels, changes), changes)


@dataclass(frozen=True)
class Part:
    """The images of a batch of `size` that are at hand, by their positions int64 [M] in it."""

    size: int
    positions: Tensor


def mix(
    images: Tensor,
    targets: Tensor,
    config: AugmentConfig,
    generator: torch.Generator,
    toss: torch.Generator,
    part: Part | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the batch after mixup or CutMix, whichever is on; where both are, `toss` picks one for the whole batch.

    `generator` lives on the images' device; `toss` lives on the CPU, so that nothing waits for a device. Of a `part`
    each image whose left neighbour in the batch stands left of it becomes what it becomes in the whole batch.
    """
    if config.cutmix and (config.mixup == 0 or torch.rand((), generator=toss) < 0.5):
        return cutmix(images, targets, config.cutmix, generator, part)
    return mixup(images, targets, config.mixup, generator, part)


def mixup(
    images: Tensor,
    targets: Tensor,
    alpha: float,
    generator: torch.Generator,
    part: Part | None = None,
) -> tuple[Tensor, Tensor]:
    """Blend each image and its target distribution [N, K] with its neighbour's; the batch is in random order.

    The shares are Beta(alpha, alpha), one for each pair (Zhang et al. 2018, equation 1).
    """
    if alpha == 0:
        return images, targets
    share = _for_images(
        part, _symmetric_beta(part.size if part else len(images), alpha, generator)
    ).to(images)
    blended = torch.lerp(images.roll(1, 0), images, share.view(-1, 1, 1, 1))
    return blended, torch.lerp(targets.roll(1, 0), targets, share.view(-1, 1))


def cutmix(
    images: Tensor,
    targets: Tensor,
    alpha: float,
    generator: torch.Generator,
    part: Part | None = None,
) -> tuple[Tensor, Tensor]:
    """Replace a box of each image by its neighbour's, and targets [N, K] by as much; the batch is in random order.

    Boxes have the image's shape, the share 1 - Beta(alpha, alpha) of its area and a uniform centre, one for each pair;
    what lies outside is cut off, and targets mix by the pixels really replaced (Yun et al. 2019, section 3.1).
    """
    if alpha == 0:
        return images, targets
    n, side = part.size if part else len(images), images.shape[-1]
    kept = _for_images(part, _symmetric_beta(n, alpha, generator)).to(images.dtype).view(-1, 1)
    middle = side * _for_images(
        part, torch.rand(2, n, generator=generator, device=images.device)
    ).unsqueeze(2)
    half = side * (1 - kept).sqrt() / 2
    centres = torch.arange(side, device=images.device) + 0.5
    rows, columns = (centres - middle).abs() < half
    box = (rows[:, :, None] & columns[:, None, :]).unsqueeze(1)
    share = box.to(targets.dtype).mean((1, 2, 3)).view(-1, 1)
    return torch.where(box, images.roll(1, 0), images), torch.lerp(
        targets, targets.roll(1, 0), share
    )


def _for_images(part: Part | None, numbers: Tensor) -> Tensor:
    """Return those of the numbers [..., N] drawn for a whole batch that belong to its images at hand."""
    return numbers if part is None else numbers[..., part.positions]


def _move(images: Tensor, changes: Changes, side: int) -> Tensor:
    """Flip, turn, scale, stretch, shift, sample `side` by `side` points; what comes from outside repeats the border."""
    config, mirrored = changes.config, changes.mirror < changes.config.flip
    if changes.move is None and side == images.shape[-1]:
        return (
            torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)
            if config.flip
            else images
        )
    moves = images.new_zeros(4, len(images)) if changes.move is None else 2 * changes.move - 1
    angle, zoom, right, down = moves[:4]
    angle = angle * math.radians(config.rotation)
    # The map goes from output to input, on coordinates from -1 to 1: it is the inverse of what is seen.
    size = 1 / (1 + zoom * config.scale)
    stretch = (
        (moves[4] * math.log1p(config.aspect) / 2).exp() if config.aspect else torch.ones_like(size)
    )
    mirror = torch.stack([(1 - 2 * mirrored.to(images.dtype)) / stretch, stretch], 1)
    along_x = mirror * torch.stack([size * angle.cos(), -size * angle.sin()], 1)
    along_y = mirror * torch.stack([size * angle.sin(), size * angle.cos()], 1)
    shift = 2 * config.translate * torch.stack([right, down], 1)
    axis = (torch.arange(side, device=images.device) * 2 + 1) / side - 1
    # Outer sums along rows of pixels: affine_grid's product of matrices took six times as long as the sampling.
    columns = along_x[:, :, None] * axis
    rows = along_y[:, :, None] * axis + shift[:, :, None]
    grid = (columns[:, :, None, :] + rows[:, :, :, None]).permute(0, 2, 3, 1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _recolour(images: Tensor, changes: Changes) -> Tensor:
    """Scale the brightness, then the distance from the image's own mean."""
    if changes.colour is None:
        return images
    config = changes.config
    brightness, contrast = 2 * changes.colour.view(2, -1, 1, 1, 1) - 1
    brightness, contrast = 1 + brightness * config.brightness, 1 + contrast * config.contrast
    offset = brightness * (1 - contrast) * images.mean((1, 2, 3), keepdim=True)
    return torch.addcmul(offset, images, brightness * contrast).clamp_(0, 255)


def _erase(images: Tensor, changes: Changes) -> Tensor:
    """Cover a rectangle with the image's mean (Zhong et al. 2020, with aspect ratios from 1 : 3.3 to 3.3 : 1)."""
    if changes.erase is None:
        return images
    config, side = changes.config, images.shape[-1]
    chosen, area, aspect, x, y = changes.erase.unsqueeze(2)
    smallest, largest = config.erasing_area
    area = smallest + area * (largest - smallest)
    root = ((2 * aspect - 1) * (math.log(_LARGEST_ASPECT) / 2)).exp()
    height, width = side * area.sqrt() * root, side * area.sqrt() / root
    centres = torch.arange(side, device=images.device) + 0.5
    top, left = y * (side - height), x * (side - width)
    rows = (centres > top) & (centres <= top + height) & (chosen < config.erasing)
    columns = (centres > left) & (centres <= left + width)
    hidden = (rows[:, :, None] & columns[:, None, :]).unsqueeze(1)
    return torch.where(hidden, images.mean((1, 2, 3), keepdim=True), images)


def _symmetric_beta(n: int, alpha: float, generator: torch.Generator) -> Tensor:
    """Draw n Beta(alpha, alpha) numbers, float64, without rejection and so without waiting for a device.

    T = sqrt(2a (U^(-1/a) - 1)) cos(2 pi V) has Student's distribution with 2a degrees of freedom (Bailey, Mathematics
    of Computation 62, 1994, 779-781), and (1 + T / sqrt(2a + T^2)) / 2 is Beta(a, a).
    """
    u, v = torch.rand(2, n, generator=generator, device=generator.device, dtype=torch.float64)
    power, cosine = u.pow(1 / alpha), torch.cos(2 * math.pi * v)
    return 0.5 + 0.5 * cosine / torch.sqrt(power / (1 - power) + cosine.square())
