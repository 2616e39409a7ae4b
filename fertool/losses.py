"""The losses of training and distillation; every target is a distribution over the classes.

All are computed in float32 at least, whatever precision the logits come in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from fertool.config.training import LossConfig
from fertool.errors import FertoolError


@dataclass(frozen=True)
class ClassificationLoss:
    """The loss on the labels: cross-entropy or, with a `focal_gamma` above 0, the focal loss.

    `class_weights` has one number for each class. Raises UsageError for a number out of bounds.
    """

    label_smoothing: float = 0.0
    focal_gamma: float = 0.0
    class_weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        # The bounds are those of the options, which check themselves.
        LossConfig(label_smoothing=self.label_smoothing, focal_gamma=self.focal_gamma)

    def __call__(self, logits: Tensor, target_probs: Tensor) -> Tensor:
        """Return the mean loss, in nats, of logits on target distributions, both [N, K]."""
        weights: Tensor | None = None
        if self.class_weights is not None:
            weights = _on_device(self.class_weights, logits.device)
        # The focal loss of gamma 0 has the same value; this is one fused operation.
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
    """Return the mean cross-entropy, in nats, of logits on target distributions, both [N, K].

    Smoothing spreads the fraction `label_smoothing` of each target evenly over all classes. With
    `class_weights` [K] it is the weighted mean, so that for one-hot targets the value is that of
    torch's own loss over class indices.
    """
    # Divided here: torch's own mean over distributions ignores the class weights.
    total = F.cross_entropy(
        _widen(logits),
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
    """Return the mean of `sum_k w_k t_k (1 - p_k)^gamma (-log p_k)`, in nats.

    t are the smoothed targets, [N, K]. For one-hot targets this is equation 5 of Lin et al. (2017)
    with w for their alpha. Smoothing and the weighted mean are those of `cross_entropy`, which it
    equals for a gamma of 0.
    """
    log_p = _widen(logits).log_softmax(1)
    uniform = torch.full_like(target_probs, 1 / logits.shape[1])
    targets = torch.lerp(target_probs, uniform, label_smoothing)
    # A power below 1 has no finite slope at 0, where a class that the network is certain of lies.
    complement = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)
    losses = -targets * complement.pow(gamma) * log_p
    if class_weights is not None:
        losses = losses * class_weights
    return losses.sum() / _total_weight(target_probs, class_weights)


def balanced_class_weights(target_probs: Tensor, classes: Sequence[str]) -> tuple[float, ...]:
    """Return `w_y = max_c N_c / N_y` (Sun, thesis, equation 3-1).

    N_y is the sum of a class's target probabilities; `target_probs` [N, K] are those of the whole
    training set. Raises FertoolError with the names of classes without images.
    """
    counts = target_probs.double().sum(0)
    missing = [name for name, count in zip(classes, counts.tolist(), strict=True) if count == 0]
    if missing:
        raise FertoolError(
            f"``class_weights=balanced``: no training image shows {', '.join(missing)}",
            "use ``class_weights=none``, or data with images of every class",
        )
    return tuple((counts.max() / counts).tolist())


def distillation_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Return `T^2 KL(q || p)`, the mean over the batch in nats.

    q is the teacher's softmax at T, p the student's, both [N, K]. T^2 keeps the gradient's size as
    T grows (Hinton, Vinyals and Dean 2015, section 2).
    """
    teacher_probs = (_widen(teacher_logits) / temperature).softmax(1)
    return distillation_kl_probs(student_logits, teacher_probs, temperature)


def distillation_kl_probs(
    student_logits: Tensor, teacher_probs: Tensor, temperature: float
) -> Tensor:
    """Return `distillation_kl` for a teacher that is given as a distribution softened at T."""
    log_p = (_widen(student_logits) / temperature).log_softmax(1)
    # 'batchmean', since torch's default reduction also divides by the number of classes.
    return F.kl_div(log_p, teacher_probs, reduction="batchmean") * temperature**2


def attention_map(features: Tensor) -> Tensor:
    """Return the attention maps [N, H W] of features [N, C, H, W]: the mean square over channels.

    It is `F_sum^2` of section 3.1 of Zagoruyko and Komodakis (2017), divided by C.
    """
    return _widen(features).square().mean(1).flatten(1)


def attention_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """Return `1 - cos(Q_s, Q_t)`, the mean over the batch, Q being the attention maps.

    Both are [N, C, H, W] and may differ in C. It is half the squared distance of the maps at length
    1 (Zagoruyko and Komodakis 2017, equation 2).
    """
    return 1 - F.cosine_similarity(attention_map(student), attention_map(teacher), dim=1).mean()


def guided_feature_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the distance of maps [N, C, H, W], weighted by attention: `1/2 mean a (s - t)^2`.

    s and t are the maps with each channel standardized over the batch, a is the teacher's attention
    map with a mean of 1 in each image: the attention-guided loss of Zhang and Ma (2021) between
    standardized maps. With the same attention everywhere it is 1 minus the mean of the channels'
    correlations, which is PKD (Cao et al. 2022).
    """
    attention = attention_map(teacher)
    # Clamped for maps that are zero everywhere.
    mean = attention.mean(1, keepdim=True).clamp_min(torch.finfo(attention.dtype).tiny)
    guide = attention / mean
    difference = _standardize(student) - _standardize(teacher)
    distance = difference.square().mean(1).flatten(1)
    return (guide * distance).mean() / 2


def output_factor(logits: Tensor) -> Tensor:
    """Return S [N, K, K] of each image: `S S^T = diag(p) - p p^T`, p the softmax of `logits`."""
    # In float64, since 1 - p_k loses its digits where the network is certain.
    p = logits.double().softmax(-1)
    columns = torch.eye(p.shape[-1], dtype=p.dtype, device=p.device) - p[:, :, None]
    return (columns * p.sqrt()[:, None, :]).to(logits.dtype)


def output_probes(factor: Tensor, probes: int, generator: torch.Generator) -> Tensor:
    """Return `u = S e` of each probe and image, [probes, N, K], for `factor` S [N, K, K].

    e are independent random signs: in the mean over them `u u^T` is `S S^T`.
    """
    count, classes, _ = factor.shape
    # Image by image, so that an image's signs do not depend on the batch that it is in.
    bits = [torch.randint(2, (probes, classes), generator=generator) for _ in range(count)]
    signs = 2 * torch.stack(bits, dim=1) - 1
    return torch.einsum("nkj,mnj->mnk", factor, signs.to(factor))


def divergence_probe(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Return `u . z` summed over images, u a random root of the KL divergence's Hessian in z.

    z are the logits [N, K]. To second order, the change of an image's `u . z` under a change of the
    network, squared and halved, is in the mean over u the KL divergence from the image's original
    prediction.
    """
    # On the CPU, so that a seed gives the same directions on every device.
    factor = output_factor(logits.detach().cpu())
    direction = output_probes(factor, 1, generator)[0].to(logits)
    total: Tensor = (logits * direction).sum()
    return total


def _standardize(features: Tensor) -> Tensor:
    return F.batch_norm(_widen(features), None, None, training=True)


def _widen(logits: Tensor) -> Tensor:
    """Return the tensor in float32 at least."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _total_weight(target_probs: Tensor, class_weights: Tensor | None) -> Tensor | int:
    if class_weights is None:
        return len(target_probs)
    # Not a product of matrices, which autocast would compute in half precision.
    return (target_probs * class_weights).sum()


@lru_cache(maxsize=16)
def _on_device(weights: tuple[float, ...], device: torch.device) -> Tensor:
    """Return the weights as a tensor; cached, since every copy to a GPU waits for the GPU."""
    return torch.tensor(weights, device=device)
