"""Knowledge distillation: small networks trained on the logits and features of larger ones."""

from fertool.distillation.cached_teachers import CachedTeacher
from fertool.distillation.knowledge import AnyTeacher, KnowledgeDistillation, Teacher
from fertool.distillation.method import (
    DistillationMethod,
    Student,
    StudentTrainer,
    load_method,
)

__all__ = [
    "AnyTeacher",
    "CachedTeacher",
    "DistillationMethod",
    "KnowledgeDistillation",
    "Student",
    "StudentTrainer",
    "Teacher",
    "load_method",
]
