"""Heads without a classifier: an embedding learned from distances, classes as mean embeddings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from hypersphere import losses
from hypersphere.heads.base import Head


class _MeanClassifier(Head):
    """Unit embeddings, classified by the nearest mean embedding (Euclidean)."""

    def scores(self, embeddings: Tensor, class_vectors: Tensor) -> Tensor:
        return -losses.distances(F.normalize(embeddings, dim=-1), class_vectors, squared=True)


class Triplet(_MeanClassifier):
    """Triplet loss on unit embeddings; see `losses.triplet` for the mining rules."""

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        margin: Annotated[float, Field(gt=0)],
        squared: bool,
        mining: Literal["semihard", "all"],
    ) -> None:
        super().__init__(dim, num_classes)
        self.margin, self.squared, self.mining = margin, squared, mining

    def loss(self, embeddings: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        unit = F.normalize(embeddings, dim=-1)
        return losses.triplet(unit, labels, self.margin, self.squared, self.mining)


class Contrastive(_MeanClassifier):
    """Contrastive loss on unit embeddings; `consecutive` pairs need `batches=pairs`."""

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        margin: Annotated[float, Field(gt=0)],
        pairs: Literal["consecutive", "all"],
    ) -> None:
        super().__init__(dim, num_classes)
        self.margin, self.pairs = margin, pairs

    def loss(self, embeddings: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        unit = F.normalize(embeddings, dim=-1)
        return losses.contrastive(unit, labels, self.margin, self.pairs)
