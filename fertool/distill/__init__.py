"""Small networks that learn from larger ones."""

from fertool.distill.objective import KnowledgeDistillation, Teacher
from fertool.distill.recorded import RecordedTeacher

__all__ = ["KnowledgeDistillation", "RecordedTeacher", "Teacher"]
