"""Evaluations: from saved embeddings to named numbers. They never look at images."""

from hypersphere.evaluation.class_vectors import class_vectors
from hypersphere.evaluation.geometry import geometry
from hypersphere.evaluation.held_out_classes import held_out_classes
from hypersphere.evaluation.imprinting import imprinting
from hypersphere.evaluation.incremental import incremental
from hypersphere.evaluation.novel import novel_classes
from hypersphere.evaluation.random_classes import random_classes
from hypersphere.evaluation.rising_classes import rising_classes
from hypersphere.evaluation.values import values

__all__ = [
    "class_vectors",
    "geometry",
    "held_out_classes",
    "imprinting",
    "incremental",
    "novel_classes",
    "random_classes",
    "rising_classes",
    "values",
]
