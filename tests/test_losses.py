import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from fertool.errors import FertoolError, UsageError
from fertool.losses import (
    ClassificationLoss,
    attention_map,
    attention_transfer,
    balanced_class_weights,
    cross_entropy,
    distillation_kl,
    distillation_kl_probs,
    focal_loss,
    guided_feature_loss,
    output_factor,
    output_probes,
)


@pytest.fixture
def logits():
    return torch.randn(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3


@pytest.fixture
def labels():
    return torch.tensor([0, 3, 6, 3, 1])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_one_hot_cross_entropy_is_torchs_loss_over_indices(logits, labels, smoothing, weighted):
    weights = torch.linspace(0.5, 3, 7, dtype=torch.float64) if weighted else None
    one_hot = functional.one_hot(labels, 7).double()
    ours = cross_entropy(logits, one_hot, label_smoothing=smoothing, class_weights=weights)
    theirs = functional.cross_entropy(logits, labels, weight=weights, label_smoothing=smoothing)
    torch.testing.assert_close(ours, theirs)


def test_cross_entropy_of_a_mixed_target_is_the_mixture_of_the_losses(logits):
    a, b = functional.one_hot(torch.tensor([[0] * 5, [4] * 5]), 7).double()
    mixed = cross_entropy(logits, 0.3 * a + 0.7 * b)
    torch.testing.assert_close(
        mixed, 0.3 * cross_entropy(logits, a) + 0.7 * cross_entropy(logits, b)
    )


def test_cross_entropy_of_uniform_logits_is_the_log_of_the_number_of_classes():
    assert cross_entropy(torch.zeros(3, 7), torch.full((3, 7), 1 / 7)).item() == pytest.approx(
        math.log(7)
    )


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_distillation_is_the_kl_divergence_from_teacher_to_student_times_t_squared(
    logits, temperature
):
    student, teacher = logits, logits.flip(0, 1)
    total = 0.0
    for p_logits, q_logits in zip(
        (student / temperature).tolist(), (teacher / temperature).tolist(), strict=True
    ):
        p = [math.exp(x) / sum(map(math.exp, p_logits)) for x in p_logits]
        q = [math.exp(x) / sum(map(math.exp, q_logits)) for x in q_logits]
        total += sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))
    expected = temperature**2 * total / len(student)
    assert distillation_kl(student, teacher, temperature).item() == pytest.approx(
        expected, rel=1e-12
    )


def test_distillation_vanishes_with_its_gradient_where_student_and_teacher_agree(logits):
    student = logits.clone().requires_grad_()
    loss = distillation_kl(student, logits + 5, 4.0)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert student.grad.abs().max() < 1e-12


def test_a_teacher_certain_of_its_class_leaves_the_plain_cross_entropy(logits, labels):
    certain = functional.one_hot(labels, 7).double()
    torch.testing.assert_close(
        distillation_kl_probs(logits, certain, 1.0), cross_entropy(logits, certain)
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_focal_loss_is_the_papers_sum_over_classes(logits, smoothing, weighted):
    targets = logits.flip(0, 1).softmax(1)
    weights = [1.0, 2.5, 0.5, 1, 3, 1, 4] if weighted else [1.0] * 7
    total = norm = 0.0
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        for logit, t, weight in zip(row, target, weights, strict=True):
            p = math.exp(logit) / sum(map(math.exp, row))
            smoothed = (1 - smoothing) * t + smoothing / 7
            total += weight * smoothed * (1 - p) ** 2 * -math.log(p)
            norm += weight * t
    class_weights = torch.tensor(weights, dtype=torch.float64) if weighted else None
    ours = focal_loss(logits, targets, 2.0, label_smoothing=smoothing, class_weights=class_weights)
    assert ours.item() == pytest.approx(total / norm, rel=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_without_gamma_focal_loss_is_cross_entropy(logits, smoothing, weighted):
    options = {
        "label_smoothing": smoothing,
        "class_weights": torch.linspace(0.5, 3, 7, dtype=torch.float64) if weighted else None,
    }
    targets = logits.flip(0, 1).softmax(1)
    torch.testing.assert_close(
        focal_loss(logits, targets, 0.0, **options), cross_entropy(logits, targets, **options)
    )


@pytest.mark.parametrize("gamma", [0.1, 0.5, 1.0, 2.0])
def test_a_class_that_the_network_is_certain_of_has_a_finite_focal_gradient(gamma):
    logits = torch.tensor([[200.0, 0, 0], [0.0, 200, 0]], requires_grad=True)
    loss = focal_loss(logits, torch.tensor([[1.0, 0, 0], [1, 0, 0]]), gamma, label_smoothing=0.1)
    loss.backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[1, 0] < 0


def test_balanced_weights_are_the_largest_class_over_each():
    targets = torch.eye(3)[[0, 0, 0, 0, 1, 1, 2]]
    assert balanced_class_weights(targets, "abc") == (1, 2, 4)
    soft = torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]])
    assert balanced_class_weights(soft, "abc") == (1, 6, 6)


def test_a_class_without_images_has_no_weight():
    with pytest.raises(
        FertoolError, match="``class_weights=balanced``: no training image shows disgust, sad"
    ):
        balanced_class_weights(torch.eye(4)[[0, 2]], ("angry", "disgust", "happy", "sad"))


def test_the_loss_against_labels_combines_its_parts(logits, labels):
    logits, targets = logits.float(), functional.one_hot(labels, 7).float()
    weights = tuple(float(k + 1) for k in range(7))
    together = {"label_smoothing": 0.1, "class_weights": torch.tensor(weights)}
    for loss, expected in (
        (ClassificationLoss(), cross_entropy(logits, targets)),
        (ClassificationLoss(0.1, 0.0, weights), cross_entropy(logits, targets, **together)),
        (ClassificationLoss(0.1, 2.0, weights), focal_loss(logits, targets, 2.0, **together)),
    ):
        assert torch.equal(loss(logits, targets), expected)


def test_losses_are_computed_in_float32_whatever_the_network_computes_in(logits, labels):
    half, targets = logits.bfloat16(), functional.one_hot(labels, 7).float()
    weights = tuple(1 + k / 7 for k in range(7))
    for loss in (
        ClassificationLoss(class_weights=weights),
        ClassificationLoss(0.1, 2.0, weights),
        lambda logits, targets: distillation_kl(logits, logits.flip(0), 4.0),
    ):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = loss(half, targets)
        torch.testing.assert_close(value, loss(half.float(), targets), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": 1.0}, "``label_smoothing=1.0``: must be 0 or more and below 1"),
        ({"focal_gamma": -1}, "``focal_gamma=-1``: must be 0 or more"),
        ({"focal_gamma": math.nan}, "``focal_gamma=nan``: must be 0 or more"),
    ],
)
def test_a_bad_number_is_an_error_that_names_the_option(options, message):
    with pytest.raises(UsageError) as error:
        ClassificationLoss(**options)
    assert error.value.message == message


def feature_maps(channels, seed, dtype=torch.float64):
    return torch.randn(
        3, channels, 4, 5, generator=torch.Generator().manual_seed(seed), dtype=dtype
    )


def test_an_attention_map_is_the_mean_of_the_squared_channels():
    maps = feature_maps(6, 0)
    torch.testing.assert_close(
        attention_map(maps), torch.from_numpy((maps.numpy() ** 2).mean(1)).reshape(3, 20)
    )


def test_attention_transfer_is_half_the_squared_distance_of_maps_of_length_one():
    student, teacher = feature_maps(6, 0), feature_maps(9, 1)
    distances = []
    for s, t in zip(student.numpy(), teacher.numpy(), strict=True):
        q_s, q_t = (s**2).sum(0), (t**2).sum(0)
        distances.append(
            ((q_s / np.sqrt((q_s**2).sum()) - q_t / np.sqrt((q_t**2).sum())) ** 2).sum()
        )
    assert attention_transfer(student, teacher).item() == pytest.approx(np.mean(distances) / 2)


def test_attention_transfer_sees_where_a_network_looks_and_not_how_strongly():
    maps = feature_maps(6, 0)
    assert attention_transfer(7 * maps.flip(1), maps).item() == pytest.approx(0, abs=1e-12)
    left, right = torch.zeros(1, 2, 4, 4), torch.zeros(1, 3, 4, 4)
    left[..., 0], right[..., 3] = 1, 1
    assert attention_transfer(left, right).item() == 1


def test_features_under_even_attention_lose_what_their_channels_lack_in_correlation():
    signs = torch.where(feature_maps(6, 1) > 0, 1.0, -1.0)  # the same square everywhere
    student = feature_maps(6, 0)
    by_channel = zip(
        student.numpy().swapaxes(0, 1), signs.double().numpy().swapaxes(0, 1), strict=True
    )
    correlations = [np.corrcoef(s.ravel(), t.ravel())[0, 1] for s, t in by_channel]
    assert guided_feature_loss(student, signs.double()).item() == pytest.approx(
        1 - np.mean(correlations), abs=1e-4
    )


def test_features_are_weighed_by_the_teachers_attention():
    student, teacher = feature_maps(6, 0).numpy(), feature_maps(6, 1).numpy()
    standard = [
        (x - x.mean((0, 2, 3), keepdims=True)) / x.std((0, 2, 3), keepdims=True)
        for x in (student, teacher)
    ]
    attention = (teacher**2).mean(1)
    attention /= attention.mean((1, 2), keepdims=True)
    expected = (attention * ((standard[0] - standard[1]) ** 2).mean(1)).mean() / 2
    ours = guided_feature_loss(torch.from_numpy(student), torch.from_numpy(teacher)).item()
    assert ours == pytest.approx(expected, rel=1e-4)


def test_features_are_compared_whatever_their_scale_and_offset_and_dead_channels_are_no_trouble():
    maps = feature_maps(6, 0)
    assert guided_feature_loss(3 * maps - 5, maps).item() == pytest.approx(0, abs=1e-4)
    dead = torch.zeros(3, 6, 4, 5, dtype=torch.float64)
    student = feature_maps(6, 1).requires_grad_()
    for loss in (guided_feature_loss(student, dead), attention_transfer(student, dead)):
        assert torch.isfinite(loss)
        assert torch.isfinite(torch.autograd.grad(loss, student)[0]).all()


def test_half_precision_features_are_compared_in_full():
    student, teacher = feature_maps(6, 0, torch.bfloat16), feature_maps(6, 1, torch.bfloat16)
    for loss in (attention_transfer, guided_feature_loss):
        assert loss(student, teacher).dtype == torch.float32
        torch.testing.assert_close(loss(student, teacher), loss(student.float(), teacher.float()))


def test_output_factor_is_a_root_of_the_hessian_of_kl_in_the_logits():
    logits = torch.tensor([[0.0, 1.0, -2.0], [40.0, 0.0, 3.0]], dtype=torch.float64)
    p = logits.softmax(-1)
    factor = output_factor(logits)
    expected = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    torch.testing.assert_close(factor @ factor.mT, expected, rtol=1e-12, atol=1e-16)


def test_output_probes_are_roots_of_it_in_the_mean(logits):
    probes = output_probes(output_factor(logits), 20_000, torch.Generator().manual_seed(0))
    p = logits.softmax(-1)
    mean = torch.einsum("mnk,mnj->nkj", probes, probes) / len(probes)
    torch.testing.assert_close(
        mean, torch.diag_embed(p) - p[:, :, None] * p[:, None, :], rtol=0, atol=0.01
    )
