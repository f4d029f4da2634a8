"""The cosine classifier: learned unit class vectors, a scale, no bias, maybe a margin."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, empty, full, nn
from torch.nn import functional as F

from hypersphere import losses
from hypersphere.heads.classifier import Classifier


class NormalizedSoftmax(Classifier):
    """Normalised softmax (eq. 2 of arXiv 2102.03243): b = 0, ||w_k|| = 1, ||z|| = scale.

    Both unit lengths hold by normalising in the forward pass; the class vectors start Glorot
    uniform, Keras' default. margin: of CosFace (Wang et al. 2018), subtracted from the cosine of
    the image's own class while training. learn_scale: `scale` stays as it is (`no`), or is where a
    trainable one starts, `shared` by all classes (eq. 8 of Qi et al. 2018, imprinted weights) or
    `per_class`; an imprinted class then takes the mean of the others' scales.
    """

    scale: float | nn.Parameter  # (), or (num_classes,)
    class_vectors: nn.Parameter

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        scale: Annotated[float, Field(gt=0)],
        margin: Annotated[float, Field(ge=0)] = 0.0,
        learn_scale: Literal["no", "shared", "per_class"] = "no",
    ) -> None:
        super().__init__(dim, num_classes)
        shape = {"no": None, "shared": (), "per_class": (num_classes,)}[learn_scale]
        self.scale = scale if shape is None else nn.Parameter(full(shape, scale))
        self.margin = margin
        self.class_vectors = nn.Parameter(nn.init.xavier_uniform_(empty(num_classes, dim)))

    def loss(self, embeddings: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        if len(labels) * self.num_classes <= losses.WHOLE:
            return losses.normalized_softmax(
                embeddings, self.class_vectors, labels, self.scale, weights, self.margin
            )
        _, *scales = of_classes = self._of_classes()
        less = self.margin * (scales[0][labels] if scales else self.scale)
        return losses.classification(
            self._logits, embeddings, of_classes, labels, weights, less if self.margin else None
        )

    def _of_classes(self) -> list[Tensor]:
        own = isinstance(self.scale, Tensor) and self.scale.ndim
        return [self.class_vectors, self.scale] if own else [self.class_vectors]

    def _logits(self, embeddings: Tensor, vectors: Tensor, scale: Tensor | None = None) -> Tensor:
        return (self.scale if scale is None else scale) * losses.cosine(embeddings, vectors)

    def scores(self, embeddings: Tensor, class_vectors: Tensor) -> Tensor:
        # Vectors keep their length: a raw mean is shorter than 1 and so scores lower (eq. 5). Whose
        # they are is not known here: scales per class enter by their mean.
        scale = self.scale.mean() if isinstance(self.scale, Tensor) else self.scale
        return scale * F.normalize(embeddings, dim=-1) @ class_vectors.T

    def trained(
        self, embeddings: Tensor, labels: Tensor, classes: Tensor, renormalize: bool
    ) -> Tensor:
        return F.normalize(self.class_vectors.detach(), dim=-1)

    @property
    def not_imprintable(self) -> str:
        return ""

    def _add_classes(self, number: int) -> None:
        super()._add_classes(number)
        if isinstance(self.scale, Tensor) and self.scale.ndim:
            self._grow("scale", self.scale.data.mean().expand(number))
