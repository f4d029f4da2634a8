"""The linear classifier: class vectors of any length, an optional bias, cross-entropy."""

from __future__ import annotations

from torch import Tensor, empty, nn, zeros
from torch.nn import functional as F

from hypersphere import losses
from hypersphere.heads.base import Head


class Softmax(Head):
    """Softmax cross-entropy of w_k z + b_k, the usual last layer (eq. 1 of arXiv 2102.03243).

    Initialised as Keras' Dense is: Glorot uniform, zero bias.
    """

    classifies = True

    def __init__(self, dim: int, num_classes: int, *, bias: bool) -> None:
        super().__init__(dim, num_classes)
        self.class_vectors = nn.Parameter(nn.init.xavier_uniform_(empty(num_classes, dim)))
        self.bias = nn.Parameter(zeros(num_classes)) if bias else None

    def loss(self, embeddings: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        return losses.cross_entropy(self.logits(embeddings), labels, weights)

    def logits(self, embeddings: Tensor) -> Tensor:
        return F.linear(embeddings, self.class_vectors, self.bias)

    def scores(self, embeddings: Tensor, class_vectors: Tensor) -> Tensor:
        # Without the bias: nothing says which one an inferred class should have.
        return embeddings @ class_vectors.T

    def trained(
        self, embeddings: Tensor, labels: Tensor, classes: Tensor, renormalize: bool
    ) -> Tensor:
        return self.class_vectors.detach()
