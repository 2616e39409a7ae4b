import math

import pytest
import torch
from torch.nn import functional

from fertool.losses import cross_entropy, distillation_kl, distillation_kl_probs


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
    torch.testing.assert_close(mixed, 0.3 * cross_entropy(logits, a) + 0.7 * cross_entropy(logits, b))


def test_cross_entropy_of_uniform_logits_is_the_log_of_the_number_of_classes():
    assert cross_entropy(torch.zeros(3, 7), torch.full((3, 7), 1 / 7)).item() == pytest.approx(math.log(7))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_distillation_is_the_kl_divergence_from_teacher_to_student_times_t_squared(logits, temperature):
    student, teacher = logits, logits.flip(0, 1)
    total = 0.0
    for p_logits, q_logits in zip((student / temperature).tolist(), (teacher / temperature).tolist(), strict=True):
        p = [math.exp(x) / sum(map(math.exp, p_logits)) for x in p_logits]
        q = [math.exp(x) / sum(map(math.exp, q_logits)) for x in q_logits]
        total += sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))
    expected = temperature**2 * total / len(student)
    assert distillation_kl(student, teacher, temperature).item() == pytest.approx(expected, rel=1e-12)


def test_distillation_vanishes_with_its_gradient_where_student_and_teacher_agree(logits):
    student = logits.clone().requires_grad_()
    loss = distillation_kl(student, logits + 5, 4.0)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert student.grad.abs().max() < 1e-12


def test_a_teacher_certain_of_its_class_leaves_the_plain_cross_entropy(logits, labels):
    certain = functional.one_hot(labels, 7).double()
    torch.testing.assert_close(distillation_kl_probs(logits, certain, 1.0), cross_entropy(logits, certain))
