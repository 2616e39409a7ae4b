"""The training loop, its options, and the saved state of a killed run."""

from fertool.artifact.resume_file import discard_resume, resume_path
from fertool.config.training import TrainConfig
from fertool.device import resolve_device
from fertool.objective import Objective, Supervised
from fertool.training.engine import FitResult, fit
from fertool.training.predict import predict_logits
from fertool.training.training_state import EpochRecord, read_history

__all__ = [
    "EpochRecord",
    "FitResult",
    "Objective",
    "Supervised",
    "TrainConfig",
    "discard_resume",
    "fit",
    "predict_logits",
    "read_history",
    "resolve_device",
    "resume_path",
]
