"""Evaluations: from saved embeddings to named numbers. They never look at images."""

from hypersphere.evaluation.novel import novel_classes

__all__ = ["novel_classes"]
