"""Evaluations: from saved embeddings to named numbers.

They do not look at images, but for those that say so (`reads_images`) and are given the trained
network instead of its embeddings.
"""

from hypersphere.evaluation.class_similarity import class_similarity
from hypersphere.evaluation.class_vectors import class_vectors
from hypersphere.evaluation.exemplars import exemplars
from hypersphere.evaluation.feature_map import feature_map
from hypersphere.evaluation.geometry import geometry
from hypersphere.evaluation.held_out_classes import held_out_classes
from hypersphere.evaluation.imprinting import imprinting
from hypersphere.evaluation.imprinting_augmented import imprinting_augmented
from hypersphere.evaluation.incremental import incremental
from hypersphere.evaluation.novel import novel_classes
from hypersphere.evaluation.pretrained_features import pretrained_features
from hypersphere.evaluation.random_classes import random_classes
from hypersphere.evaluation.rising_classes import rising_classes
from hypersphere.evaluation.test_images import test_images
from hypersphere.evaluation.values import values

__all__ = [
    "class_similarity",
    "class_vectors",
    "exemplars",
    "feature_map",
    "geometry",
    "held_out_classes",
    "imprinting",
    "imprinting_augmented",
    "incremental",
    "novel_classes",
    "pretrained_features",
    "random_classes",
    "rising_classes",
    "test_images",
    "values",
]
