"""Heads: they own the class vectors and turn embeddings into a loss, scores and new classes."""

from hypersphere.heads.base import Head, class_means
from hypersphere.heads.metric import Contrastive, Triplet
from hypersphere.heads.normalized_softmax import NormalizedSoftmax
from hypersphere.heads.softmax import Softmax

__all__ = ["Contrastive", "Head", "NormalizedSoftmax", "Softmax", "Triplet", "class_means"]
