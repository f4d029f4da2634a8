"""What softmax heads share: logits of a class from its own parameters alone."""

from __future__ import annotations

from torch import Tensor

from hypersphere import losses
from hypersphere.heads.base import Head


class Classifier(Head):
    """A head trained by softmax cross-entropy, whose logit of a class depends on that class's own
    vector (and bias, or scale) alone, so that many classes can be gone through in parts."""

    classifies = True

    def loss(self, embeddings: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        return losses.classification(self._logits, embeddings, self._of_classes(), labels, weights)

    def logits(self, embeddings: Tensor) -> Tensor:
        return self._logits(embeddings, *self._of_classes())

    def _of_classes(self) -> list[Tensor]:
        """The parameters that have a row per class, class vectors first."""
        raise NotImplementedError

    def _logits(self, embeddings: Tensor, *of_classes: Tensor) -> Tensor:
        """Logits (n, k) of the k classes that these rows of `_of_classes` belong to."""
        raise NotImplementedError
