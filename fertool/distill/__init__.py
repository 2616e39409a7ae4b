"""Small networks that learn from larger ones."""

from fertool.distill.feature import FeatureDistillation
from fertool.distill.iterative import learn_iteratively
from fertool.distill.objective import AnyTeacher, KnowledgeDistillation, Teacher
from fertool.distill.recorded import RecordedTeacher

__all__ = [
    "AnyTeacher",
    "FeatureDistillation",
    "KnowledgeDistillation",
    "RecordedTeacher",
    "Teacher",
    "learn_iteratively",
]
