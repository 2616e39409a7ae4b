import hashlib
import math

import numpy as np
import pytest
import torch

from fertool.config.training import NO_AUGMENTATION, AugmentConfig
from fertool.data.augment import (
    BatchShard,
    apply_augmentation,
    augment,
    cutmix,
    draw_augment_params,
    mix,
    mixup,
    view_augment_params,
)
from fertool.errors import UsageError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def only(**changes):
    return AugmentConfig(
        **{"flip": 0, "rotation": 0, "brightness": 0, "contrast": 0, "erasing": 0, **changes}
    )


@pytest.fixture
def images():
    return torch.randint(0, 256, (64, 1, 24, 24), generator=generator(), dtype=torch.uint8)


def blob(x, y, size=33):
    """An image with one bright spot, at (x, y) pixels from its middle."""
    axis = torch.arange(size) - size // 2
    distance = (axis[None, :] - x) ** 2 + (axis[:, None] - y) ** 2
    return (255 * torch.exp(-distance / 4)).expand(1, 1, size, size)


def spot(image):
    """The centre of mass of an image, (x, y) in pixels from its middle."""
    axis = torch.arange(image.shape[-1]) - image.shape[-1] // 2
    mass = image.sum()
    return (image.sum((0, 1, 2)) * axis).sum() / mass, (image.sum((0, 1, 3)) * axis).sum() / mass


def test_nothing_asked_changes_nothing(images):
    torch.testing.assert_close(
        augment(images, NO_AUGMENTATION, generator()), images.float(), rtol=0, atol=0
    )


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(images):
    config = AugmentConfig(translate=0.1, scale=0.1)
    first, again, other = (augment(images, config, generator(seed)) for seed in (1, 1, 2))
    assert first.numpy().tobytes() == again.numpy().tobytes()
    assert not torch.equal(first, other)


def test_a_seed_keeps_its_meaning(images):
    """Results of old runs and logits of old files stay repeatable."""
    flips = augment(images, only(flip=0.5), generator(3))
    digest = "9955c8497286758650f2fb17615f3145961849123073f1e5cb995b0ef999c373"
    assert hashlib.sha256(flips.numpy().tobytes()).hexdigest() == digest
    # Processors differ in the last bits of sines.
    all_parts = augment(images, AugmentConfig(translate=0.1, scale=0.1, erasing=0.5), generator(3))
    assert all_parts.double().mean().item() == pytest.approx(124.622752483133, abs=1e-4)
    expected = [
        127.360649,
        109.211578,
        159.677765,
        148.242126,
        77.295677,
        10.339227,
        114.622475,
        76.617325,
    ]
    assert all_parts[::9, 0, 7, 16].tolist() == pytest.approx(expected, abs=1e-2)


@pytest.mark.parametrize(
    "config", [NO_AUGMENTATION, only(flip=0.5), AugmentConfig(translate=0.1, erasing=0.5)]
)
def test_changing_is_drawing_then_applying_image_by_image(images, config):
    gave = generator(4)
    changes = draw_augment_params(64, config, gave)
    whole, taken = augment(images, config, generator(4)), generator(4)
    augment(images, config, taken)
    assert torch.equal(gave.get_state(), taken.get_state())
    assert torch.equal(apply_augmentation(images, changes), whole)
    order = torch.randperm(64, generator=generator())
    torch.testing.assert_close(
        apply_augmentation(images[order], changes[order]), whole[order], rtol=0, atol=1e-2
    )
    torch.testing.assert_close(
        apply_augmentation(images[5:9], changes[5:9]), whole[5:9], rtol=0, atol=1e-2
    )


def test_degradations_are_added_to_a_view_by_the_generator_alone(images):
    view = view_augment_params(64, AugmentConfig(), 0, 0)
    shown = apply_augmentation(images, view)
    config = only(noise=0.5, blur=0.3, blur_sigma=1.5)
    first, again, other = (
        apply_augmentation(images, view.with_degradations(config, generator(seed)))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    # Whatever was not drawn for noise or blur is the view as it was.
    changed = (first != shown).flatten(1).any(1).float().mean()
    assert 0.4 < changed < 0.9
    assert view.with_degradations(NO_AUGMENTATION, generator(1)) is view


def test_a_view_is_the_same_whoever_asks_and_unlike_any_other(images):
    config = AugmentConfig()
    shown = [
        apply_augmentation(images, view_augment_params(64, config, *key)).numpy().tobytes()
        for key in ((0, 0), (0, 1), (1, 0))
    ]
    assert len(set(shown)) == 3
    assert (
        apply_augmentation(images, view_augment_params(64, config, 0, 1)).numpy().tobytes()
        == shown[1]
    )
    assert view_augment_params(64, config, 0, 0).mirror[:4].tolist() == pytest.approx(
        [0.8325, 0.5999, 0.4508, 0.8693], abs=1e-4
    )


def test_results_stay_within_the_range_of_pixels(images):
    result = augment(images, AugmentConfig(brightness=1, contrast=1), generator())
    assert result.dtype == torch.float32
    assert 0 <= result.min() <= result.max() <= 255


def test_each_image_is_mirrored_or_not_with_the_probability_asked(images):
    many = images.repeat(32, 1, 1, 1)
    result = augment(many, only(flip=0.25), generator())
    mirrored = (result == many.flip(3)).all(dim=(1, 2, 3))
    kept = (result == many).all(dim=(1, 2, 3))
    assert (mirrored ^ kept).all()
    assert mirrored.float().mean().item() == pytest.approx(0.25, abs=0.04)


def test_a_mirror_image_through_the_affine_map_is_the_mirror_image(images):
    result = augment(images, only(flip=1, rotation=1e-4), generator())
    torch.testing.assert_close(result, images.flip(3).float(), atol=0.05, rtol=0)


def test_rotation_turns_about_the_middle_up_to_the_angle_asked():
    turned = augment(blob(8, 0).expand(200, 1, 33, 33), only(rotation=30), generator())
    spots = [spot(image[None]) for image in turned]
    angles = [math.degrees(math.atan2(y, x)) for x, y in spots]
    assert [math.hypot(x, y) for x, y in spots] == pytest.approx([8] * 200, abs=0.15)
    assert max(map(abs, angles)) <= 30.5
    assert min(angles) < -25
    assert max(angles) > 25


def test_a_smaller_side_shows_the_whole_image():
    picture = blob(8, -6)
    whole = spot(augment(picture, NO_AUGMENTATION, generator()))
    small = augment(picture, NO_AUGMENTATION, generator(), 22)
    assert small.shape == (1, 1, 22, 22)
    shrunk = torch.nn.functional.interpolate(
        picture, size=(22, 22), mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(small, shrunk, rtol=0, atol=1e-2)
    # A half pixel, since an even number of pixels has none in the middle.
    torch.testing.assert_close(
        torch.tensor(spot(small)) + 0.5, torch.tensor(whole) * 22 / 33, rtol=0, atol=0.2
    )


def test_shifts_are_shares_of_the_side():
    moved = augment(blob(0, 0).expand(200, 1, 33, 33), only(translate=0.2), generator())
    xs, ys = zip(*(spot(image[None]) for image in moved), strict=True)
    for shifts in (xs, ys):
        assert 0.85 * 6.6 < max(map(abs, shifts)) <= 6.65
        assert min(shifts) < 0 < max(shifts)


def test_scale_is_a_factor_around_one():
    zoomed = augment(blob(8, 0).expand(200, 1, 33, 33), only(scale=0.25), generator())
    factors = [spot(image[None])[0].item() / 8 for image in zoomed]
    assert 0.74 < min(factors) < 0.8
    assert 1.2 < max(factors) < 1.26


def test_aspect_is_the_largest_ratio_of_width_to_height_and_keeps_the_area():
    wide = augment(blob(8, 0).expand(200, 1, 33, 33), only(aspect=0.3), generator())
    high = augment(blob(0, 8).expand(200, 1, 33, 33), only(aspect=0.3), generator())
    widths = torch.tensor([spot(image[None])[0] / 8 for image in wide])
    heights = torch.tensor([spot(image[None])[1] / 8 for image in high])
    torch.testing.assert_close(widths * heights, torch.ones(200), rtol=0, atol=0.02)
    ratios = widths / heights
    assert 1 / 1.31 < ratios.min() < 1 / 1.26
    assert 1.26 < ratios.max() < 1.31


def test_colour_changes_follow_brightness_then_contrast_about_the_mean():
    pixels = torch.full((500, 1, 8, 8), 100.0)
    pixels[..., ::2] = 140
    bright = augment(pixels, only(brightness=0.2), generator())
    torch.testing.assert_close(bright[..., 1] / bright[..., 0], torch.full((500, 1, 8), 100 / 140))
    assert 80 <= bright[..., 1].min() < 83
    assert 117 < bright[..., 1].max() <= 120
    contrast = augment(pixels, only(contrast=0.2), generator())
    torch.testing.assert_close(contrast.mean((1, 2, 3)), torch.full((500,), 120.0))
    spread = (contrast[..., 0] - contrast[..., 1]) / 40
    assert 0.8 <= spread.min() < 0.83
    assert 1.17 < spread.max() <= 1.2


def test_erasing_covers_one_rectangle_of_the_area_asked():
    pixels = torch.zeros(2000, 1, 48, 48)
    pixels[:, :, 0, 0] = 48 * 48 * 100.0
    erased = augment(pixels, only(erasing=0.15), generator())
    hidden = (erased == 100)[:, 0]
    hit = hidden.any(dim=(1, 2))
    assert hit.float().mean().item() == pytest.approx(0.15, abs=0.025)
    heights, widths = hidden[hit].any(2).sum(1), hidden[hit].any(1).sum(1)
    areas = hidden[hit].sum((1, 2))
    assert torch.equal(areas, heights * widths)
    shares = areas / 48**2
    assert 0.015 < shares.min() < 0.03
    assert 0.18 < shares.max() < 0.22
    assert shares.mean().item() == pytest.approx(0.11, abs=0.01)
    assert (heights / widths).max() < 4
    assert (heights / widths).log().mean().abs() < 0.1


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 4.0])
def test_mixup_shares_have_the_beta_distribution(alpha):
    n = 20_000
    targets = torch.eye(2).repeat(n // 2, 1)
    _, mixed = mixup(torch.zeros(n, 1, 1, 1), targets, alpha, generator())
    shares = mixed[targets.bool()].double().numpy()
    expected = np.random.default_rng(0).beta(alpha, alpha, n)
    grid = np.linspace(0.001, 0.999, 50)
    gap = np.abs((shares[:, None] <= grid).mean(0) - (expected[:, None] <= grid).mean(0)).max()
    assert gap < 1.95 * math.sqrt(2 / n)  # Kolmogorov and Smirnov's two-sample limit at p = 0.001
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)


def test_mixup_blends_images_and_targets_by_the_same_share():
    pixels = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 1, 2, 2)
    mixed, targets = mixup(pixels, torch.eye(8), 1.0, generator())
    torch.testing.assert_close(targets.sum(1), torch.ones(8))
    torch.testing.assert_close(mixed[:, 0, 0, 0], targets @ torch.arange(8.0))
    assert ((targets > 0).sum(1) == 2).all()


@pytest.mark.parametrize("blend", [mixup, cutmix])
def test_an_alpha_of_zero_returns_the_batch_itself(images, blend):
    targets = torch.eye(64)
    assert blend(images, targets, 0, generator()) == (images, targets)


def test_cutmix_replaces_one_box_and_as_much_of_the_target():
    n, height = 500, 24
    pixels = torch.arange(float(n)).view(n, 1, 1, 1).expand(n, 3, height, height)
    mixed, targets = cutmix(pixels, torch.eye(n), 1.0, generator())
    foreign = mixed[:, 0] != pixels[:, 0]
    assert torch.equal(mixed, torch.where(foreign[:, None], pixels.roll(1, 0), pixels))
    rows, columns = foreign.any(2), foreign.any(1)
    assert torch.equal(foreign, rows[:, :, None] & columns[:, None, :])
    for side in (rows, columns):
        assert ((side[:, 1:] != side[:, :-1]).sum(1) <= 2).all()
    share = foreign.float().mean((1, 2))
    expected = torch.eye(n) * (1 - share[:, None]) + torch.eye(n).roll(1, 0) * share[:, None]
    torch.testing.assert_close(targets, expected)
    inside = ~(rows[:, 0] | rows[:, -1] | columns[:, 0] | columns[:, -1])
    assert inside.sum() > 20
    assert ((rows.sum(1) - columns.sum(1)).abs()[inside] <= 1).all()


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_cutmix_boxes_are_as_large_as_the_papers(alpha):
    n, width = 20_000, 32
    _, targets = cutmix(
        torch.zeros(n, 1, width, width), torch.eye(2).repeat(n // 2, 1), alpha, generator()
    )
    ours = 1 - targets[torch.eye(2).repeat(n // 2, 1).bool()].double().numpy()
    random = np.random.default_rng(0)
    cut = width * np.sqrt(1 - random.beta(alpha, alpha, n))
    sides = []
    for _ in range(2):
        centre = random.uniform(0, width, n)
        sides.append(np.clip(centre + cut / 2, 0, width) - np.clip(centre - cut / 2, 0, width))
    theirs = sides[0] * sides[1] / width**2
    assert ours.mean() == pytest.approx(theirs.mean(), abs=4 * math.sqrt(2 * theirs.var() / n))
    assert np.quantile(ours, [0.25, 0.5, 0.75]) == pytest.approx(
        np.quantile(theirs, [0.25, 0.5, 0.75]), abs=0.02
    )


def test_with_both_each_batch_gets_mixup_or_cutmix(images):
    targets, toss = torch.eye(64), generator(5)
    config = only(mixup=0.5, cutmix=1.0)
    cuts = []
    for seed in range(200):
        _, mixed = mix(images[:, :, :1, :1].float(), targets, config, generator(seed), toss)
        candidates = [
            blend(images[:, :, :1, :1].float(), targets, alpha, generator(seed))[1]
            for blend, alpha in ((mixup, 0.5), (cutmix, 1.0))
        ]
        same = [torch.equal(mixed, candidate) for candidate in candidates]
        assert sum(same) == 1
        cuts.append(same[1])
    assert 70 < sum(cuts) < 130


@pytest.mark.parametrize(("mixups", "cuts"), [(0.4, 0), (0, 0.4), (0, 0)])
def test_with_one_or_none_nothing_is_tossed_for(images, mixups, cuts):
    targets, toss = torch.eye(64), generator(5)
    before = toss.get_state()
    mixed = mix(images.float(), targets, only(mixup=mixups, cutmix=cuts), generator(1), toss)
    expected = mixup(images.float(), targets, mixups, generator(1))
    if cuts:
        expected = cutmix(images.float(), targets, cuts, generator(1))
    assert all(map(torch.equal, mixed, expected))
    assert torch.equal(toss.get_state(), before)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("flip", 1.5),
        ("rotation", -1),
        ("scale", 1),
        ("mixup", math.nan),
        ("cutmix", -1),
    ],
)
def test_a_bad_value_is_an_error_that_names_the_option(field, value):
    with pytest.raises(UsageError, match=f"^``{field}={value}``"):
        AugmentConfig(**{field: value})


@pytest.mark.parametrize(
    "alphas", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}, {"mixup": 0}]
)
@pytest.mark.parametrize("positions", [range(-1, 20), range(19, 64), range(40, 42)], ids=str)
def test_a_part_of_a_batch_is_changed_and_mixed_as_it_is_in_the_whole(images, alphas, positions):
    config, targets = AugmentConfig(**alphas), torch.rand(64, 5, generator=generator(1))
    part = BatchShard(64, torch.tensor(positions) % 64)
    for seed in range(3):
        results = []
        for chosen in (None, part):
            rows = torch.arange(64) if chosen is None else chosen.positions
            chance, toss = generator(seed), generator(seed)
            changed = apply_augmentation(
                images[rows], draw_augment_params(64, config, chance)[rows]
            )
            results.append(mix(changed, targets[rows], config, chance, toss, chosen))
        for whole, piece in zip(*results, strict=True):
            torch.testing.assert_close(piece[1:], whole[part.positions[1:]], atol=1e-4, rtol=1e-6)
