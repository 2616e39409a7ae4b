"""Knowledge distillation: small networks trained on the logits and features of larger ones."""

from fertool.distill.cached_teachers import CachedTeacher
from fertool.distill.feature import FeatureDistillation
from fertool.distill.iterative import distill_iteratively
from fertool.distill.knowledge import AnyTeacher, KnowledgeDistillation, Teacher

__all__ = [
    "AnyTeacher",
    "CachedTeacher",
    "FeatureDistillation",
    "KnowledgeDistillation",
    "Teacher",
    "distill_iteratively",
]
