"""Small networks that learn from larger ones."""

from fertool.distill.objective import KnowledgeDistillation, Teacher

__all__ = ["KnowledgeDistillation", "Teacher"]
