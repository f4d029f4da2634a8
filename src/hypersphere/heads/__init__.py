"""Heads: they own the class vectors and turn embeddings into a loss, scores and new classes."""

from hypersphere.heads.base import Head, class_means
from hypersphere.heads.deep_ncm import DeepNCM
from hypersphere.heads.metric import Contrastive, LiftedStructured, Regression, Triplet
from hypersphere.heads.normalized_softmax import NormalizedSoftmax
from hypersphere.heads.prototypes import Prototypes
from hypersphere.heads.random_vectors import RandomVectors
from hypersphere.heads.softmax import CenterLoss, Softmax
from hypersphere.heads.values import (
    ClampedRegression,
    JointPrototypes,
    MultiTask,
    Poles,
    ValueHead,
)

__all__ = [
    "CenterLoss",
    "ClampedRegression",
    "Contrastive",
    "DeepNCM",
    "Head",
    "JointPrototypes",
    "LiftedStructured",
    "MultiTask",
    "NormalizedSoftmax",
    "Poles",
    "Prototypes",
    "RandomVectors",
    "Regression",
    "Softmax",
    "Triplet",
    "ValueHead",
    "class_means",
]
