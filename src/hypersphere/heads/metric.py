"""Heads without a linear classifier: an embedding learned from Euclidean distances, between images
or to targets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from hypersphere import losses, prototypes
from hypersphere.heads.base import Head, class_means


class Euclidean(Head):
    """Scores are negative squared distances to the class vectors.

    normalize: embeddings are scaled to unit length first.
    """

    normalize = False

    def scores(self, embeddings: Tensor, class_vectors: Tensor) -> Tensor:
        return -losses.distances(self.point(embeddings), class_vectors, squared=True)

    def infer(
        self, embeddings: Tensor, labels: Tensor, classes: Tensor, renormalize: bool
    ) -> Tensor:
        if self.normalize:
            return super().infer(embeddings, labels, classes, renormalize)
        return class_means(embeddings, labels, classes)  # of a plane no point is of unit length

    def point(self, embeddings: Tensor) -> Tensor:
        """Where embeddings (n, dim) lie in the space that distances are measured in."""
        return F.normalize(embeddings, dim=-1) if self.normalize else embeddings


class Triplet(Euclidean):
    """Triplet loss (Schroff et al. 2015) on unit embeddings, or with `normalize=False` on them as
    they are. margin: of Euclidean distances, or of their squares where `squared`; mining: see
    `losses.triplet`. Classified by the nearest mean embedding."""

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        margin: Annotated[float, Field(gt=0)],
        squared: bool,
        mining: Literal["semihard", "all"],
        normalize: bool = True,
    ) -> None:
        super().__init__(dim, num_classes)
        self.margin, self.squared, self.mining = margin, squared, mining
        self.normalize = normalize

    def loss(self, embeddings: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        point = self.point(embeddings)
        return losses.triplet(point, labels, self.margin, self.squared, self.mining)


class LiftedStructured(Euclidean):
    """Lifted structured loss (Song et al. 2016, eq. 4) on embeddings as they are, or with
    `normalize` on unit ones; see `losses.lifted_structured`. margin: of Euclidean distances. Needs
    batches with several images of a class (`batches=class_balanced`). Classified by the nearest
    mean embedding."""

    def __init__(
        self, dim: int, num_classes: int, *, margin: Annotated[float, Field(gt=0)], normalize: bool
    ) -> None:
        super().__init__(dim, num_classes)
        self.margin, self.normalize = margin, normalize

    def loss(self, embeddings: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        return losses.lifted_structured(self.point(embeddings), labels, self.margin)


class Contrastive(Euclidean):
    """Contrastive loss (Hadsell et al. 2006) on unit embeddings, or with `normalize=False` on
    embeddings as they are; margin: of Euclidean distances; pairs: rows (0, 1), (2, 3), ... of the
    batch (`consecutive`, for `batches=pairs`), or `all`. Classified by the nearest mean embedding.

    factor: of the loss; 0.5 for the 1/2 of Hadsell et al. 2006.
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        margin: Annotated[float, Field(gt=0)],
        pairs: Literal["consecutive", "all"],
        normalize: bool = True,
        factor: Annotated[float, Field(gt=0)] = 1.0,
    ) -> None:
        super().__init__(dim, num_classes)
        self.margin, self.pairs = margin, pairs
        self.normalize, self.factor = normalize, factor

    def loss(self, embeddings: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        point = self.point(embeddings)
        return self.factor * losses.contrastive(point, labels, self.margin, self.pairs)


class Regression(Euclidean):
    """Squared distance to a fixed target per class, ||z - t_y||^2; classified by the nearest target
    (arXiv 2408.01767, section II-G).

    targets: `raster`, rows of five with spacing 1 around the origin (two dimensions); `sphere`,
    spread over the unit sphere: equal slices of the circle in two dimensions, in more the
    prototypes of Mettes et al. 2019. They are a buffer `class_vectors` (num_classes, dim): in the
    checkpoint, out of the optimiser. Raises ValueError for a raster in more than two dimensions.
    """

    classifies = True
    class_vectors: Tensor

    def __init__(self, dim: int, num_classes: int, *, targets: Literal["raster", "sphere"]) -> None:
        super().__init__(dim, num_classes)
        if targets == "raster":
            points = prototypes.raster(num_classes, dim)
        else:
            points = prototypes.published(num_classes, dim)
        self.register_buffer("class_vectors", points)

    def loss(self, embeddings: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        return losses.squared_error(embeddings, self.class_vectors, labels, weights)

    def logits(self, embeddings: Tensor) -> Tensor:
        return self.scores(embeddings, self.class_vectors)

    def trained(
        self, embeddings: Tensor, labels: Tensor, classes: Tensor, renormalize: bool
    ) -> Tensor:
        return self.class_vectors.clone()

    @property
    def targets(self) -> Tensor:
        """(num_classes, dim) the fixed points that classes are sent to."""
        return self.class_vectors
