"""Heads that learn a number of each image (an angle, a year), alone or beside its class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from hypersphere import losses
from hypersphere.heads.base import Head
from hypersphere.prototypes.placements import TOLD_BY, UNPLACED, Kind, place

Bounds = Literal["data"] | Annotated[Sequence[float], Field(min_length=2, max_length=2)]
Reduction = Literal["sum", "mean"]


class ValueHead(Head):
    """Learns a number y of each image, which is seen as (y - v_l) / (v_u - v_l).

    bounds: [v_l, v_u] in the number's own unit, or those of the training images' numbers (`data`).
    They are a buffer `bounds` (2,): in the checkpoint. Raises ValueError for bounds that do not
    rise.
    """

    learns_value = True
    bounds: Tensor

    def __init__(self, dim: int, num_classes: int, bounds: Bounds) -> None:
        super().__init__(dim, num_classes)
        self.from_data = bounds == "data"
        self._prepared = not self.from_data  # in Python: no wait for the device
        low, high = (math.nan, math.nan) if bounds == "data" else map(float, bounds)
        if not self.from_data and not low < high:
            raise ValueError(f"bounds {[low, high]} must rise")
        self.register_buffer("bounds", torch.tensor([low, high]))

    def prepare(self, values: Tensor) -> None:
        """Called before the first step with the training images' numbers (n,). Raises ValueError
        when they are all the same."""
        if self.from_data:
            if values.min() == values.max():
                raise ValueError(f"all training images have the number {values.min().item():g}")
            self.bounds.copy_(torch.stack([values.min(), values.max()]))
            self._prepared = True

    def share(self, values: Tensor) -> Tensor:
        """(n,) in the number's unit -> (n,), 0 at the lower bound and 1 at the upper one."""
        low, high = self.bounds
        return (values - low) / (high - low)

    def predict(self, embeddings: Tensor) -> Tensor:
        """The predicted numbers (n,), in their unit, of embeddings (n, dim)."""
        low, high = self.bounds
        return low + (high - low) * self.predicted_share(embeddings)

    def predicted_share(self, embeddings: Tensor) -> Tensor:
        """(n, dim) -> (n,), what `share` gives of a right prediction."""
        raise NotImplementedError

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._prepared = self._prepared or not bool(self.bounds.isnan().any())

    def wanted(self, embeddings: Tensor, values: Tensor | None) -> Tensor:
        """(n,), what `share` gives of the images' numbers. Raises ValueError when there are none,
        not one per embedding, or the bounds are still those of data that nobody gave."""
        if values is None:
            raise ValueError(f"{type(self).__name__}: the loss needs the images' numbers (values)")
        losses.check_batch(embeddings, values=values)
        if not self._prepared:
            raise ValueError(
                f"{type(self).__name__}: bounds='data': call prepare(values) with the training"
                " images' numbers first"
            )
        return self.share(values)

    def _reduce(self, each: Tensor, reduction: str) -> Tensor:
        return each.sum() if reduction == "sum" else each.mean()


class Poles(ValueHead):
    """Regression between two poles (Mettes et al. 2019, eq. 7): (r - cos(z, p_u))^2 with
    r = 2 (y - v_l) / (v_u - v_l) - 1. The upper pole p_u is the first axis, the lower one its
    opposite. reduction: over the batch; the released code takes the sum.

    Targets, two poles, are no classes: they are not `targets`.
    """

    def __init__(self, dim: int, num_classes: int, *, bounds: Bounds, reduction: Reduction) -> None:
        super().__init__(dim, num_classes, bounds)
        self.reduction = reduction

    def loss(
        self,
        embeddings: Tensor,
        labels: Tensor,
        weights: Tensor | None = None,
        values: Tensor | None = None,
    ) -> Tensor:
        return self._reduce(self._squares(embeddings, values), self.reduction)

    def predicted_share(self, embeddings: Tensor) -> Tensor:
        return (self._cosine(embeddings) + 1) / 2

    @property
    def poles(self) -> Tensor:
        """The upper pole and the lower one, (2, dim)."""
        upper = torch.zeros_like(self.bounds[:1].expand(self.dim))
        upper[self._axis] = 1
        return torch.stack([upper, -upper])

    def _squares(self, embeddings: Tensor, values: Tensor | None) -> Tensor:
        return (2 * self.wanted(embeddings, values) - 1 - self._cosine(embeddings)).square()

    def _cosine(self, embeddings: Tensor) -> Tensor:
        """To the upper pole, (n,)."""
        return F.normalize(embeddings, dim=1)[:, self._axis]

    @property
    def _axis(self) -> int:
        return 0


class JointPrototypes(Poles):
    """Classes and a number in one output space (Mettes et al. 2019, section 2.3): the poles lie on
    one axis (`pole`), the prototypes of the classes in the other dim - 1 dimensions.

    The cosine to a prototype is taken within those dimensions, as the released code takes it: the
    output without its part along the poles, scaled to unit length. So a point anywhere on a
    half-plane through the poles is right for its class, and the number is free to vary.

    weight: w of w L_c + (1 - w) L_r where it `weighs` the classification (the released code), of
    (1 - w) L_c + w L_r where it weighs the regression (the paper's text); None: L_c + L_r.
    placement, placement_seed, steps, file, sha256, data: of the prototypes
    (prototypes/placements.py). They are a buffer `class_vectors` (num_classes, dim). Raises
    ValueError when the placement does not fit the dimensions.
    """

    classifies = True
    told_by = TOLD_BY
    class_vectors: Tensor

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        bounds: Bounds,
        reduction: Reduction,
        pole: Literal["first", "last"],
        placement: Kind,
        placement_seed: Annotated[int, Field(ge=0)],
        steps: Annotated[int, Field(ge=0)] = 1000,
        file: str = "",
        sha256: str = "",
        data: str = "",
        weight: Annotated[float, Field(ge=0, le=1)] | None = None,
        weighs: Literal["classification", "regression"] = "classification",
    ) -> None:
        if dim < 3:
            raise ValueError("one axis for the poles leaves less than a plane for the classes")
        super().__init__(dim, num_classes, bounds=bounds, reduction=reduction)
        self.pole, self.weight, self.weighs = pole, weight, weighs
        points = place(
            placement, num_classes, dim - 1, seed=placement_seed, steps=steps, file=file,
            sha256=sha256, data=data,
        )  # fmt: skip
        none = torch.zeros(num_classes, 1)
        parts = [none, points] if pole == "first" else [points, none]
        self.register_buffer("class_vectors", torch.cat(parts, 1))

    @classmethod
    def without_placing(cls, params: dict[str, Any]) -> dict[str, Any]:
        return params | UNPLACED

    def loss(
        self,
        embeddings: Tensor,
        labels: Tensor,
        weights: Tensor | None = None,
        values: Tensor | None = None,
    ) -> Tensor:
        losses.check_batch(embeddings, weights=weights)
        each = losses.squared_cosine(self._beside(embeddings), self.class_vectors, labels)
        each = each if weights is None else weights * each
        of_class = self._reduce(each, self.reduction)
        of_value = self._reduce(self._squares(embeddings, values), self.reduction)
        return weighted(of_class, of_value, self.weight, self.weighs)

    def logits(self, embeddings: Tensor) -> Tensor:
        return losses.cosine(self._beside(embeddings), self.class_vectors)

    def scores(self, embeddings: Tensor, class_vectors: Tensor) -> Tensor:
        return F.normalize(self._beside(embeddings), dim=1) @ class_vectors.T

    def infer(
        self, embeddings: Tensor, labels: Tensor, classes: Tensor, renormalize: bool
    ) -> Tensor:
        return super().infer(self._beside(embeddings), labels, classes, renormalize)

    def trained(
        self, embeddings: Tensor, labels: Tensor, classes: Tensor, renormalize: bool
    ) -> Tensor:
        return self.class_vectors.clone()

    def _beside(self, embeddings: Tensor) -> Tensor:
        """The part (n, dim) of embeddings that is not along the poles."""
        keep = embeddings.new_ones(self.dim)
        keep[self._axis] = 0
        return embeddings * keep

    @property
    def _axis(self) -> int:
        return 0 if self.pole == "first" else self.dim - 1


class ClampedRegression(ValueHead):
    """A linear layer to one output, clamped to 0 .. 1, and the mean squared error: the regression
    baseline of Mettes et al. 2019, section 3.2.

    Outside 0 .. 1 the clamp lets no gradient through: a network that sends every image there stays.
    """

    def __init__(self, dim: int, num_classes: int, *, bounds: Bounds) -> None:
        super().__init__(dim, num_classes, bounds)
        self.output = nn.Linear(dim, 1)

    def loss(
        self,
        embeddings: Tensor,
        labels: Tensor,
        weights: Tensor | None = None,
        values: Tensor | None = None,
    ) -> Tensor:
        wanted = self.wanted(embeddings, values)
        return (self.predicted_share(embeddings) - wanted).square().mean()

    def predicted_share(self, embeddings: Tensor) -> Tensor:
        return self.output(embeddings)[:, 0].clamp(0, 1)


class MultiTask(ClampedRegression):
    """Two linear layers on the same features, softmax cross-entropy for the class and clamped
    regression for the number, both means over the batch: the multi-task baseline of Mettes et al.
    2019, section 3.3. weight, weighs: as JointPrototypes has them."""

    classifies = True

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        bounds: Bounds,
        weight: Annotated[float, Field(ge=0, le=1)] | None = None,
        weighs: Literal["classification", "regression"] = "classification",
    ) -> None:
        super().__init__(dim, num_classes, bounds=bounds)
        self.weight, self.weighs = weight, weighs
        self.classifier = nn.Linear(dim, num_classes)

    def loss(
        self,
        embeddings: Tensor,
        labels: Tensor,
        weights: Tensor | None = None,
        values: Tensor | None = None,
    ) -> Tensor:
        of_class = losses.cross_entropy(self.logits(embeddings), labels, weights)
        of_value = super().loss(embeddings, labels, weights, values)
        return weighted(of_class, of_value, self.weight, self.weighs)

    def logits(self, embeddings: Tensor) -> Tensor:
        return self.classifier(embeddings)

    def scores(self, embeddings: Tensor, class_vectors: Tensor) -> Tensor:
        return embeddings @ class_vectors.T  # without the bias, as Softmax has it

    def trained(
        self, embeddings: Tensor, labels: Tensor, classes: Tensor, renormalize: bool
    ) -> Tensor:
        return self.classifier.weight.detach()


def weighted(of_class: Tensor, of_value: Tensor, weight: float | None, weighs: str) -> Tensor:
    """The loss of two tasks: their sum, or weighted by w and 1 - w (see JointPrototypes)."""
    if weight is None:
        return of_class + of_value
    first, second = (of_class, of_value) if weighs == "classification" else (of_value, of_class)
    return weight * first + (1 - weight) * second
