"""Classification towards prototypes that are placed before training and never move."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from hypersphere import losses
from hypersphere.heads.base import Head
from hypersphere.prototypes.placements import TOLD_BY, UNPLACED, Kind, place


class Prototypes(Head):
    """Squared cosine loss towards fixed prototypes (Mettes et al. 2019, eqs. 1 and 3): the class of
    an image is that of the prototype at the largest cosine.

    placement, placement_seed, steps, file, sha256, data: which ones (prototypes/placements.py).
    reduction: over the batch. The paper's released code takes the `sum`, which at its learning rate
    of 0.01 and batches of 128 is a rate of 1.28 on the `mean`. absolute: the loss with the absolute
    value of the cosine, which eq. 1 prints and the released code does not have.

    The prototypes are a buffer `class_vectors` (num_classes, dim): in the checkpoint, out of the
    optimiser. Raises ValueError when the placement does not fit the dimensions, UserError for a
    file that is not the one meant.
    """

    classifies = True
    told_by = TOLD_BY
    class_vectors: Tensor

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        placement: Kind,
        placement_seed: Annotated[int, Field(ge=0)],
        reduction: Literal["sum", "mean"],
        steps: Annotated[int, Field(ge=0)] = 1000,
        file: str = "",
        sha256: str = "",
        data: str = "",
        absolute: bool = False,
    ) -> None:
        super().__init__(dim, num_classes)
        self.reduction, self.absolute = reduction, absolute
        points = place(
            placement, num_classes, dim, seed=placement_seed, steps=steps, file=file, sha256=sha256,
            data=data,
        )  # fmt: skip
        self.register_buffer("class_vectors", points)

    @classmethod
    def from_points(
        cls, points: Tensor | np.ndarray, *, reduction: Literal["sum", "mean"] = "mean"
    ) -> Self:
        """A head towards points (num_classes, dim) of your own, in label order, whose directions
        count: `Prototypes.from_points(prototypes.optimal(100, 25))`.

        Raises ValueError for another shape, and for points at the origin or not finite.
        """
        points = torch.as_tensor(points).detach()
        if points.ndim != 2 or not bool(torch.isfinite(points).all() & points.any(1).all()):
            raise ValueError(
                f"points {tuple(points.shape)}: needs (num_classes, dim), none at the origin"
            )
        head = cls(points.shape[1], len(points), reduction=reduction, **UNPLACED)
        head.class_vectors = F.normalize(points.float(), dim=1)
        return head

    @classmethod
    def without_placing(cls, params: dict[str, Any]) -> dict[str, Any]:
        return params | UNPLACED

    def loss(self, embeddings: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        losses.check_batch(embeddings, weights=weights)
        each = losses.squared_cosine(embeddings, self.class_vectors, labels, self.absolute)
        each = each if weights is None else weights * each
        return each.sum() if self.reduction == "sum" else each.mean()

    def logits(self, embeddings: Tensor) -> Tensor:
        return losses.cosine(embeddings, self.class_vectors)

    def scores(self, embeddings: Tensor, class_vectors: Tensor) -> Tensor:
        return F.normalize(embeddings, dim=-1) @ class_vectors.T

    def trained(
        self, embeddings: Tensor, labels: Tensor, classes: Tensor, renormalize: bool
    ) -> Tensor:
        return self.class_vectors.clone()

    @property
    def not_imprintable(self) -> str:
        return ""
