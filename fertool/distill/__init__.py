"""Knowledge distillation: small networks trained on the logits and features of larger ones."""

from fertool.distill.cached_teachers import CachedTeacher
from fertool.distill.knowledge import AnyTeacher, KnowledgeDistillation, Teacher
from fertool.distill.method import (
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
