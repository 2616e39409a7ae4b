"""The losses that train and distil; every target is a distribution over the classes.

All are computed in float32 at least, whatever precision the logits come in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from fertool.errors import FertoolError, UsageError


@dataclass(frozen=True)
class ClassificationLoss:
    """The loss against the labels: cross-entropy or, with a `focal_gamma` above 0, the focal loss.

    `class_weights` has one number for each class. Raises UsageError for a bad number.
    """

    label_smoothing: float = 0.0
    focal_gamma: float = 0.0
    class_weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise UsageError(
                f"``label_smoothing={self.label_smoothing}``: must be 0 or more and below 1",
                "0.1 is usual, 0 is none",
            )
        if not 0 <= self.focal_gamma < float("inf"):
            raise UsageError(
                f"``focal_gamma={self.focal_gamma}``: must be 0 or more",
                "2 is usual, 0 is cross-entropy",
            )

    def __call__(self, logits: Tensor, target_probs: Tensor) -> Tensor:
        """Return the mean loss of `logits` [N, K] against distributions `target_probs` [N, K], in nats."""
        weights = (
            None if self.class_weights is None else _on_device(self.class_weights, logits.device)
        )
        if self.focal_gamma == 0:
            return cross_entropy(
                logits, target_probs, label_smoothing=self.label_smoothing, class_weights=weights
            )
        return focal_loss(
            logits,
            target_probs,
            self.focal_gamma,
            label_smoothing=self.label_smoothing,
            class_weights=weights,
        )


def cross_entropy(
    logits: Tensor,
    target_probs: Tensor,
    *,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Return the mean cross-entropy of `logits` [N, K] against distributions `target_probs` [N, K], in nats.

    Smoothing moves the share `label_smoothing` of each target to all classes alike. With `class_weights` [K] it is
    the weighted mean, so that for one-hot targets the value is that of torch's own loss over class indices.
    """
    total = F.cross_entropy(
        _widened(logits),
        target_probs,
        weight=class_weights,
        label_smoothing=label_smoothing,
        reduction="sum",
    )
    return total / _total_weight(target_probs, class_weights)


def focal_loss(
    logits: Tensor,
    target_probs: Tensor,
    gamma: float,
    *,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Return the mean of `sum_k w_k t_k (1 - p_k)^gamma (-log p_k)`, in nats; t are the smoothed targets, [N, K].

    For one-hot targets this is equation 5 of Lin et al. (2017) with w for their alpha. Smoothing and the weighted
    mean are those of `cross_entropy`, which it equals for a gamma of 0.
    """
    log_p = _widened(logits).log_softmax(1)
    targets = torch.lerp(
        target_probs, torch.full_like(target_probs, 1 / logits.shape[1]), label_smoothing
    )
    # A power below 1 has no finite slope at 0, which is where a class that the network is certain of lies.
    doubt = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)
    losses = -targets * doubt.pow(gamma) * log_p
    if class_weights is not None:
        losses = losses * class_weights
    return losses.sum() / _total_weight(target_probs, class_weights)


def balanced_class_weights(target_probs: Tensor, classes: Sequence[str]) -> tuple[float, ...]:
    """Return `w_y = max_c N_c / N_y` (Sun, thesis, equation 3-1), N_y being the sum of a class's target probabilities.

    `target_probs` [N, K] are those of the whole training set. Raises FertoolError naming classes without images.
    """
    counts = target_probs.double().sum(0)
    missing = [name for name, count in zip(classes, counts.tolist(), strict=True) if count == 0]
    if missing:
        raise FertoolError(
            f"--class-weights balanced: no training image shows {', '.join(missing)}",
            "use --class-weights none, or data with images of every class",
        )
    return tuple((counts.max() / counts).tolist())


def distillation_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Return `T^2 KL(q || p)`, the mean over the batch in nats; q is the teacher's softmax at T, p the student's.

    Both are [N, K]. T^2 keeps the gradient's size as T grows (Hinton, Vinyals and Dean 2015, section 2).
    """
    return distillation_kl_probs(
        student_logits, (_widened(teacher_logits) / temperature).softmax(1), temperature
    )


def distillation_kl_probs(
    student_logits: Tensor, teacher_probs: Tensor, temperature: float
) -> Tensor:
    """Return the same as `distillation_kl` for a teacher that is given as a distribution already softened at T."""
    log_p = (_widened(student_logits) / temperature).log_softmax(1)
    # 'batchmean': torch's default reduction also divides by the number of classes, which is not a KL divergence.
    return F.kl_div(log_p, teacher_probs, reduction="batchmean") * temperature**2


def attention_map(features: Tensor) -> Tensor:
    """Return where feature maps [N, C, H, W] are active, [N, H W]: the mean of the squares over the channels.

    Zagoruyko and Komodakis 2017, `F_sum^2` of section 3.1, divided by C.
    """
    return _widened(features).square().mean(1).flatten(1)


def attention_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """Return `1 - cos(Q_s, Q_t)`, the mean over the batch, Q being the attention maps of [N, C, H, W] maps.

    Channels may differ in number. It is half the squared distance of the maps at length 1 (Zagoruyko and Komodakis
    2017, equation 2).
    """
    return 1 - F.cosine_similarity(attention_map(student), attention_map(teacher), dim=1).mean()


def guided_feature_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return how far maps [N, C, H, W] lie apart where the teacher looks: `1/2 mean a (s - t)^2`.

    s and t are the maps with each channel standardised over the batch, a is the teacher's attention map with a mean of
    1 in each image: the attention-guided loss of Zhang and Ma (2021) between standardised maps. With the same
    attention everywhere it is 1 minus the mean of the channels' correlations, which is PKD (Cao et al. 2022).
    """
    attention = attention_map(teacher)
    guide = attention / attention.mean(1, keepdim=True).clamp_min(torch.finfo(attention.dtype).tiny)
    distance = (_standardised(student) - _standardised(teacher)).square().mean(1).flatten(1)
    return (guide * distance).mean() / 2


def output_factor(logits: Tensor) -> Tensor:
    """Return S of each image, [N, K, K], with `S S^T = diag(p) - p p^T` for p the softmax of `logits` [N, K]."""
    # In float64: 1 - p_k loses its digits where the network is sure.
    p = logits.double().softmax(-1)
    columns = torch.eye(p.shape[-1], dtype=p.dtype, device=p.device) - p[:, :, None]
    return (columns * p.sqrt()[:, None, :]).to(logits.dtype)


def output_probes(factor: Tensor, probes: int, generator: torch.Generator) -> Tensor:
    """Return `u = S e` of each probe and image, [probes, N, K], e of independent random signs; `factor` is S.

    In the mean over e, `u u^T` is `S S^T`.
    """
    count, classes, _ = factor.shape
    # Image by image, so that an image's signs do not depend on the batch that it is in.
    bits = torch.stack(
        [torch.randint(2, (probes, classes), generator=generator) for _ in range(count)], dim=1
    )
    return torch.einsum("nkj,mnj->mnk", factor, (2 * bits - 1).to(factor))


def divergence_probe(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Return `u . z` summed over images, z the logits [N, K], u a random root of the Hessian of KL in z.

    What a change of the network does to `u . z` of an image is, squared and halved, in the mean over u the divergence
    from the image's own answer, to second order.
    """
    direction = output_probes(output_factor(logits.detach().cpu()), 1, generator)[0].to(logits)
    total: Tensor = (logits * direction).sum()
    return total


def _standardised(features: Tensor) -> Tensor:
    return F.batch_norm(_widened(features), None, None, training=True)


def _widened(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _total_weight(target_probs: Tensor, class_weights: Tensor | None) -> Tensor | int:
    # Not a product of matrices: autocast would compute that in half precision.
    return len(target_probs) if class_weights is None else (target_probs * class_weights).sum()


@lru_cache(maxsize=16)
def _on_device(weights: tuple[float, ...], device: torch.device) -> Tensor:
    """Copied once: every copy to a GPU waits for it."""
    return torch.tensor(weights, device=device)
