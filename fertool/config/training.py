"""The options of training: the loop, the loss, and how images are augmented."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from fertool.config.option import advanced, changed, check, option
from fertool.errors import UsageError

OptimizerName = Literal["sgd", "adam", "adamw"]
ScheduleName = Literal["cosine", "onecycle", "plateau", "constant"]
PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]
Keep = Literal["best", "last"]

TRAINING, AUGMENTATION = "Training", "Augmentation"
_LARGEST_AREA = 0.3
"""Up to this area a rectangle of the largest aspect ratio still fits into the image."""
DEGRADATIONS = ("noise", "blur", "downscale", "jpeg")
"""Fractions of the images that get what a cheap camera does to a face."""
STRENGTHS = {"noise_sigma": 25.0, "blur_sigma": 2.0, "downscale_to": 0.4, "jpeg_quality": 20.0}
"""The strongest that each degradation becomes by default."""
DEGRADATION_OPTIONS = (*DEGRADATIONS, *STRENGTHS)
"""All that says what is done by them."""
HIGHEST_QUALITY = 95


@dataclass(frozen=True)
class AugmentConfig:
    """How far images are changed; 0 switches a part off. The defaults are those of recipe 1.

    Translation, scale and aspect together are a random resized crop. `erasing_area` is the range of
    the erased part's area, as fractions of the image. Raises UsageError for a value out of bounds.
    """

    # Mixup: Zhang et al. 2018, arXiv 1710.09412. CutMix: Yun et al. 2019, arXiv 1905.04899.
    mixup: float = option(0.2, "Mixup's alpha, 0 for none.", panel=AUGMENTATION, minimum=0)
    cutmix: float = option(
        0.0,
        "CutMix's alpha, 0 for none; with mixup on too, each batch gets one of them.",
        panel=AUGMENTATION,
        minimum=0,
        advanced=True,
    )
    flip: float = option(
        0.5, "Fraction of the images that are mirrored.", panel=AUGMENTATION, minimum=0, maximum=1
    )
    rotation: float = option(
        15.0, "Largest rotation, degrees.", panel=AUGMENTATION, minimum=0, maximum=180
    )
    translate: float = option(
        0.0,
        "Largest shift, fraction of the side.",
        panel=AUGMENTATION,
        minimum=0,
        maximum=1,
        advanced=True,
    )
    scale: float = option(
        0.0,
        "Largest change of scale: 0.2 is 0.8 to 1.2.",
        panel=AUGMENTATION,
        minimum=0,
        maximum=0.9,
        advanced=True,
    )
    aspect: float = option(
        0.0,
        "Largest change of width against height: 0.3 is 1/1.3 to 1.3; with scale and translate, a "
        "random resized crop.",
        panel=AUGMENTATION,
        minimum=0,
        maximum=1,
        advanced=True,
    )
    brightness: float = option(
        0.2,
        "Largest change of brightness.",
        panel=AUGMENTATION,
        minimum=0,
        maximum=1,
        advanced=True,
    )
    contrast: float = option(
        0.2, "Largest change of contrast.", panel=AUGMENTATION, minimum=0, maximum=1, advanced=True
    )
    # Zhong et al. 2020, arXiv 1708.04896.
    erasing: float = option(
        0.15,
        "Fraction of the images with a part erased.",
        panel=AUGMENTATION,
        minimum=0,
        maximum=1,
    )
    erasing_area: tuple[float, float] = (0.02, 0.20)
    # None and not 0: what is not given stands in no lineage, fingerprint or header of logits.
    noise: float | None = option(
        None,
        "Fraction of the images with Gaussian noise. Default: 0.",
        panel=AUGMENTATION,
        minimum=0,
        maximum=1,
        advanced=True,
    )
    noise_sigma: float | None = option(
        None,
        "Largest standard deviation of the noise, levels of 255. Default: "
        f"{STRENGTHS['noise_sigma']:g}.",
        panel=AUGMENTATION,
        above=0,
        maximum=128,
        advanced=True,
    )
    blur: float | None = option(
        None,
        "Fraction of the images with Gaussian blur. Default: 0.",
        panel=AUGMENTATION,
        minimum=0,
        maximum=1,
        advanced=True,
    )
    blur_sigma: float | None = option(
        None,
        f"Largest sigma of the blur, pixels. Default: {STRENGTHS['blur_sigma']:g}.",
        panel=AUGMENTATION,
        above=0,
        maximum=16,
        advanced=True,
    )
    downscale: float | None = option(
        None,
        "Fraction of the images that are shrunk and enlarged again. Default: 0.",
        panel=AUGMENTATION,
        minimum=0,
        maximum=1,
        advanced=True,
    )
    downscale_to: float | None = option(
        None,
        "Smallest resolution that images are shrunk to, fraction of the side. Default: "
        f"{STRENGTHS['downscale_to']:g}.",
        panel=AUGMENTATION,
        minimum=0.05,
        below=1,
        advanced=True,
    )
    jpeg: float | None = option(
        None,
        "Fraction of the images with JPEG artifacts. Default: 0.",
        panel=AUGMENTATION,
        minimum=0,
        maximum=1,
        advanced=True,
    )
    jpeg_quality: int | None = option(
        None,
        f"Lowest JPEG quality; the highest is {HIGHEST_QUALITY}. Default: "
        f"{STRENGTHS['jpeg_quality']:g}.",
        panel=AUGMENTATION,
        minimum=1,
        maximum=HIGHEST_QUALITY,
        advanced=True,
    )

    def __post_init__(self) -> None:
        check(self)
        smallest, largest = self.erasing_area
        if not 0 < smallest <= largest <= _LARGEST_AREA:
            raise UsageError(
                f"``erasing_area={self.erasing_area}``: must be two rising fractions up to "
                f"{_LARGEST_AREA}",
                "use 0.02 to 0.20",
            )

    @property
    def changes_geometry(self) -> bool:
        """Whether images are rotated, shifted, scaled or stretched; a flip is apart."""
        return any((self.rotation, self.translate, self.scale, self.aspect))

    @property
    def changes_color(self) -> bool:
        """Whether brightness or contrast change."""
        return any((self.brightness, self.contrast))

    def strength(self, name: str) -> float:
        """Return one of `STRENGTHS` as it was given, or its default."""
        given = getattr(self, name)
        return STRENGTHS[name] if given is None else float(given)

    def given_values(self) -> dict[str, Any]:
        """Return all values, by name, but those that stand for a default by None."""
        values = asdict(self)
        return {name: value for name, value in values.items() if value is not None}


NO_AUGMENTATION = AugmentConfig(flip=0, rotation=0, brightness=0, contrast=0, erasing=0, mixup=0)
"""Images as they are."""


@dataclass(frozen=True)
class LossConfig:
    """The loss against the labels; raises UsageError for a value out of bounds."""

    # Szegedy et al. 2016, arXiv 1512.00567, section 7.
    label_smoothing: float = option(
        0.0, "Fraction of the target spread over all classes.", panel=TRAINING, minimum=0, below=1
    )
    # Lin et al. 2017, arXiv 1708.02002.
    focal_gamma: float = option(
        0.0,
        "Gamma of the focal loss, 0 for cross-entropy.",
        panel=TRAINING,
        minimum=0,
        advanced=True,
    )
    # Sun, thesis, equation 3-1.
    class_weights: Literal["none", "balanced"] = option(
        "none",
        "balanced: a class weighs (largest class) / (its images).",
        panel=TRAINING,
        advanced=True,
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class TrainConfig:
    """The training loop; raises UsageError for a value out of bounds.

    `lr` is the peak; cosine and onecycle end at `lr * final_lr_ratio`. `keep` says which epoch
    stays: the best on the validation images or, where a penalty prepares the network for pruning,
    the last, for which patience is ignored.
    """

    epochs: int = option(30, "Passes over the training set.", panel=TRAINING, minimum=1)
    # Batch normalization has no variance to take from a single image.
    batch_size: int = option(
        64, "Images per batch, of all processes together.", panel=TRAINING, minimum=2
    )
    grad_accumulation: int = option(
        1, "Batches whose gradients make one step.", panel=TRAINING, minimum=1, advanced=True
    )
    lr: float = option(1e-3, "Peak learning rate.", panel=TRAINING, above=0)
    optimizer: OptimizerName = option("adamw", "Optimizer.", panel=TRAINING)
    momentum: float = option(
        0.9, "Momentum of SGD; beta 1 of Adam.", panel=TRAINING, minimum=0, below=1, advanced=True
    )
    nesterov: bool = option(True, "Nesterov's momentum in SGD.", panel=TRAINING, advanced=True)
    weight_decay: float = option(
        1e-4, "Weight decay; not on BN and biases.", panel=TRAINING, minimum=0
    )
    # Foret et al. 2021, arXiv 2010.01412.
    sam_rho: float = option(
        0.0,
        "Radius (rho) of sharpness-aware minimization, around any optimizer; 0 for none, 0.05 is "
        "usual.",
        panel=TRAINING,
        minimum=0,
        advanced=True,
    )
    # Half a cosine: Loshchilov and Hutter 2017. One cycle: Smith and Topin 2018.
    lr_schedule: ScheduleName = option(
        "cosine",
        "Course of the learning rate; plateau: falls with the validation loss.",
        panel=TRAINING,
    )
    plateau_factor: float = option(
        0.1, "What plateau multiplies the rate by.", panel=TRAINING, above=0, below=1, advanced=True
    )
    plateau_patience: int = option(
        3, "Epochs that plateau waits for a lower loss.", panel=TRAINING, minimum=0, advanced=True
    )
    # A fraction is allowed: an epoch of a large data set is longer than a warm-up needs.
    warmup_epochs: float = option(
        0.5, "Epochs of linear warm-up.", panel=TRAINING, minimum=0, advanced=True
    )
    final_lr_ratio: float = 0.01
    ema_decay: float = option(
        0.0,
        "Decay of the running mean of weights, 0 for none.",
        panel=TRAINING,
        minimum=0,
        below=1,
    )
    # Progressive training: Tan and Le 2021, arXiv 2104.00298, section 4.
    start_size: int = option(
        0,
        "Side of the first epochs' images, growing to the whole in 70 % of the run: faster. 0: "
        "always whole.",
        panel=TRAINING,
        minimum=0,
        advanced=True,
    )
    max_grad_norm: float = option(
        0.0, "Largest gradient norm, 0 for no limit.", panel=TRAINING, minimum=0, advanced=True
    )
    # That of recipe 1.
    patience: int = option(
        15, "Stop after N epochs without a better one, 0 for never.", panel=TRAINING, minimum=0
    )
    freeze_epochs: int = option(
        0,
        "First epochs in which the classifier's head alone is trained.",
        panel=TRAINING,
        minimum=0,
        advanced=True,
    )
    precision: PrecisionName = option(
        "auto",
        "Number format of the network while it trains, and of its teachers; auto: bf16 where GPU "
        "or CPU have it and the network gains from it, else fp32.",
        panel=TRAINING,
        advanced=True,
    )
    keep: Keep = "best"
    augmentation: AugmentConfig = field(default_factory=AugmentConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        check(self)
        if not 0 <= self.final_lr_ratio <= 1:
            raise UsageError(
                f"``final_lr_ratio={self.final_lr_ratio}``: must be 0 or more and at most 1",
                "0.01 is usual",
            )
        # Without a training its parts are of no effect.
        if not self.epochs:
            return
        for name in ("warmup_epochs", "freeze_epochs"):
            value = getattr(self, name)
            if value >= self.epochs:
                raise UsageError(
                    f"``{name}={value}``: must be 0 or more and below {self.epochs}",
                    f"there are {self.epochs} epochs",
                )


@dataclass(frozen=True)
class OptionalTrainConfig(TrainConfig):
    """The same loop where it may be skipped, by 0 epochs."""

    epochs: int = changed(
        TrainConfig,
        "epochs",
        30,
        minimum=0,
        help="Passes over the training set; 0 for no training.",
    )


@dataclass(frozen=True)
class FineTuneConfig(OptionalTrainConfig):
    """The same loop after surgery: none by default, at half the learning rate when asked for."""

    # In the full help only: the defaults suit a network that has been trained already, and the
    # command's own options come first.
    epochs: int = changed(
        TrainConfig, "epochs", 0, minimum=0, help="Fine-tuning epochs; needs ``data``."
    )
    lr: float = changed(TrainConfig, "lr", 5e-4)
    optimizer: OptimizerName = advanced(TrainConfig, "optimizer")
    weight_decay: float = advanced(TrainConfig, "weight_decay")
    lr_schedule: ScheduleName = advanced(TrainConfig, "lr_schedule")
    ema_decay: float = advanced(TrainConfig, "ema_decay")
    patience: int = advanced(TrainConfig, "patience")
