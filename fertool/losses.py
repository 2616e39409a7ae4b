"""The losses that train and distil; every target is a distribution over the classes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def cross_entropy(
    logits: Tensor, target_probs: Tensor, *, label_smoothing: float = 0.0, class_weights: Tensor | None = None
) -> Tensor:
    """Return the mean cross-entropy of `logits` [N, K] against distributions `target_probs` [N, K], in nats.

    Smoothing moves the share `label_smoothing` of each target to all classes alike. With `class_weights` [K] it is
    the weighted mean, so that for one-hot targets the value is that of torch's own loss over class indices.
    """
    total = F.cross_entropy(
        logits, target_probs, weight=class_weights, label_smoothing=label_smoothing, reduction="sum"
    )
    return total / (len(logits) if class_weights is None else (target_probs @ class_weights).sum())


def distillation_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Return `T^2 KL(q || p)`, the mean over the batch in nats; q is the teacher's softmax at T, p the student's.

    Both are [N, K]. T^2 keeps the gradient's size as T grows (Hinton, Vinyals and Dean 2015, section 2).
    """
    return distillation_kl_probs(student_logits, (teacher_logits / temperature).softmax(1), temperature)


def distillation_kl_probs(student_logits: Tensor, teacher_probs: Tensor, temperature: float) -> Tensor:
    """Return the same as `distillation_kl` for a teacher that is given as a distribution already softened at T."""
    log_p = (student_logits / temperature).log_softmax(1)
    # 'batchmean': torch's default reduction also divides by the number of classes, which is not a KL divergence.
    return F.kl_div(log_p, teacher_probs, reduction="batchmean") * temperature**2
