"""The cosine classifier: learned unit class vectors, a fixed scale, no bias, maybe a margin."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, empty, nn
from torch.nn import functional as F

from hypersphere import losses
from hypersphere.heads.base import Head


class NormalizedSoftmax(Head):
    """Normalised softmax (eq. 2 of arXiv 2102.03243): b = 0, ||w_k|| = 1, ||z|| = scale.

    Both unit lengths hold by normalising in the forward pass; the class vectors start Glorot
    uniform, Keras' default. margin: of CosFace (Wang et al. 2018), subtracted from the cosine of
    the image's own class while training.
    """

    classifies = True

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        scale: Annotated[float, Field(gt=0)],
        margin: Annotated[float, Field(ge=0)] = 0.0,
    ) -> None:
        super().__init__(dim, num_classes)
        self.scale, self.margin = scale, margin
        self.class_vectors = nn.Parameter(nn.init.xavier_uniform_(empty(num_classes, dim)))

    def loss(self, embeddings: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        return losses.normalized_softmax(
            embeddings, self.class_vectors, labels, self.scale, weights, self.margin
        )

    def logits(self, embeddings: Tensor) -> Tensor:
        return self.scale * losses.cosine(embeddings, self.class_vectors)

    def scores(self, embeddings: Tensor, class_vectors: Tensor) -> Tensor:
        # Vectors keep their length: a raw mean is shorter than 1 and so scores lower (eq. 5).
        return self.scale * F.normalize(embeddings, dim=-1) @ class_vectors.T

    def trained(
        self, embeddings: Tensor, labels: Tensor, classes: Tensor, renormalize: bool
    ) -> Tensor:
        return F.normalize(self.class_vectors.detach(), dim=-1)
