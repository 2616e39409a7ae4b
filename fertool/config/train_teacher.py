"""Options of training a network on labels alone."""

from __future__ import annotations

from dataclasses import dataclass, field

from fertool.config.distillation import LogitsConfig, RecordLogitsConfig
from fertool.config.network import NetworkConfig
from fertool.config.training import LossConfig, TrainConfig


@dataclass(frozen=True)
class TrainTeacherConfig:
    """The options of `train`; raises UsageError for values and combinations that make no sense."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    training: TrainConfig = field(default_factory=TrainConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    logits: LogitsConfig = field(default_factory=LogitsConfig)

    def __post_init__(self) -> None:
        self.logits.require_recording()

    @property
    def recording(self) -> RecordLogitsConfig:
        """The options of recording the trained network."""
        return RecordLogitsConfig(
            logit_views=self.logits.logit_views,
            precision=self.training.precision,
            augmentation=self.training.augmentation,
        )
