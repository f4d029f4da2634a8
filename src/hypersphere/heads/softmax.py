"""Linear classifiers: class vectors of any length or of unit length, an optional bias,
cross-entropy, and the center loss on top of it."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, empty, nn, zeros
from torch.nn import functional as F

from hypersphere import losses
from hypersphere.heads.base import class_counts
from hypersphere.heads.classifier import Classifier


class Softmax(Classifier):
    """Softmax cross-entropy of w_k z + b_k, the usual last layer (eq. 1 of arXiv 2102.03243).

    unit_vectors: ||w_k|| = 1 by normalising in the forward pass; z keeps its length (with
    `bias=False` the normalised softmax loss of arXiv 2408.01767, section II-C). initialisation:
    `glorot`, as Keras' Dense has it (Glorot uniform, zero bias), or `torch`, as torch.nn.Linear
    has it (weights and bias uniform within 1 / sqrt(dim)).
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        bias: bool,
        unit_vectors: bool = False,
        initialisation: Literal["glorot", "torch"] = "glorot",
    ) -> None:
        super().__init__(dim, num_classes)
        self.unit_vectors = unit_vectors
        if initialisation == "torch":
            layer = nn.Linear(dim, num_classes, bias)
            self.class_vectors, self.bias = layer.weight, layer.bias
        else:
            self.class_vectors = nn.Parameter(nn.init.xavier_uniform_(empty(num_classes, dim)))
            self.bias = nn.Parameter(zeros(num_classes)) if bias else None

    def _of_classes(self) -> list[Tensor]:
        return [self.class_vectors] if self.bias is None else [self.class_vectors, self.bias]

    def _logits(self, embeddings: Tensor, vectors: Tensor, bias: Tensor | None = None) -> Tensor:
        of_class = losses.lifted(self._unit(vectors))
        return F.linear(
            losses.lifted(embeddings), of_class, None if bias is None else losses.lifted(bias)
        )

    def scores(self, embeddings: Tensor, class_vectors: Tensor) -> Tensor:
        # Without the bias: nothing says which one an inferred class should have.
        return embeddings @ class_vectors.T

    def trained(
        self, embeddings: Tensor, labels: Tensor, classes: Tensor, renormalize: bool
    ) -> Tensor:
        return self._unit(self.class_vectors).detach()

    @property
    def not_imprintable(self) -> str:
        if self.unit_vectors and self.bias is None:
            return ""
        return (
            "has class vectors of any length, or a bias: unit_vectors=True and bias=False has not"
        )

    def _unit(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=-1) if self.unit_vectors else vectors


class CenterLoss(Softmax):
    """Softmax cross-entropy plus weight / 2 * ||z - c_y||^2 (Wen et al. 2016; arXiv 2408.01767,
    section II-E), mean over the batch.

    The centers c_k are no parameters: they start at zero and after each batch move towards its
    mean embedding of the class, by `rate` times sum(z - c_k) / (1 + n_k) over the n_k images of
    class k (Wen et al., eq. 4). `rate` 0 would leave them where they are.
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        bias: bool,
        unit_vectors: bool,
        weight: Annotated[float, Field(ge=0)],
        rate: Annotated[float, Field(ge=0, le=1)],
    ) -> None:
        super().__init__(dim, num_classes, bias=bias, unit_vectors=unit_vectors)
        self.weight, self.rate = weight, rate
        self.register_buffer("centers", zeros(num_classes, dim))

    def loss(self, embeddings: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        spread = losses.squared_error(embeddings, self.centers, labels, weights)
        if self.training:
            self._follow(embeddings.detach(), labels)
        return super().loss(embeddings, labels, weights) + self.weight / 2 * spread

    @torch.no_grad()
    def _follow(self, embeddings: Tensor, labels: Tensor) -> None:
        away = torch.zeros_like(self.centers)
        away.index_add_(0, labels, embeddings - self.centers[labels])
        counts = class_counts(labels, self.num_classes)[:, None]
        # A new tensor: the loss of this batch still needs the old centers for its gradient.
        self.centers = self.centers + self.rate * away / (1 + counts)

    @property
    def not_imprintable(self) -> str:
        return "has centers too, which come from training"
