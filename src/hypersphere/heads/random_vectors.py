"""Linear classifiers whose class vectors are drawn at random, and kept fixed or learned."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, full, nn
from torch.nn import functional as F

from hypersphere import losses
from hypersphere.heads.classifier import Classifier

LARGEST = 100  # integers are drawn from -LARGEST to LARGEST - 1


class RandomVectors(Classifier):
    """Softmax cross-entropy of w_k z + b_k (`dot`, eq. 1 of arXiv 2011.08704) or of
    scale * cos(w_k, z) + b_k (`cosine`, its eq. 3).

    The class vectors start as random directions of unit length: every coordinate an integer,
    equally likely from -100 to 99, as the released code draws them, or standard normal (`gaussian`:
    uniform on the sphere). All biases start at `bias`. learned: both are parameters; else both are
    buffers: in the checkpoint, out of the optimiser. Vectors learned by `dot` may change their
    length; `cosine` normalises them in the forward pass. Raises ValueError for a `scale` other than
    1 of dot products.
    """

    class_vectors: Tensor
    bias: Tensor

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        similarity: Literal["dot", "cosine"],
        scale: Annotated[float, Field(gt=0)],
        learned: bool,
        draw: Literal["integers", "gaussian"],
        bias: float,
    ) -> None:
        super().__init__(dim, num_classes)
        self.check_together(similarity=similarity, scale=scale)
        self.similarity, self.scale, self.learned = similarity, scale, learned
        if draw == "integers":
            drawn = torch.randint(-LARGEST, LARGEST, (num_classes, dim)).float()
        else:
            drawn = torch.randn(num_classes, dim)
        for name, start in (
            ("class_vectors", F.normalize(drawn, dim=1)),
            ("bias", full((num_classes,), bias)),
        ):
            if learned:
                self.register_parameter(name, nn.Parameter(start))
            else:
                self.register_buffer(name, start)

    @staticmethod
    def check_together(*, similarity: str, scale: float, **_: object) -> None:
        if similarity == "dot" and scale != 1:
            raise ValueError(f"scale={scale} multiplies cosines; with similarity=dot it must be 1")

    @property
    def not_imprintable(self) -> str:
        return "has a bias of each class, which no example gives"

    def _of_classes(self) -> list[Tensor]:
        return [self.class_vectors, self.bias]

    def _logits(self, embeddings: Tensor, vectors: Tensor, bias: Tensor) -> Tensor:
        if self.similarity == "dot":
            return F.linear(losses.lifted(embeddings), losses.lifted(vectors), losses.lifted(bias))
        return self.scale * losses.cosine(embeddings, vectors) + bias

    def scores(self, embeddings: Tensor, class_vectors: Tensor) -> Tensor:
        # Without the bias: nothing says which one an inferred class should have.
        if self.similarity == "dot":
            return embeddings @ class_vectors.T
        return self.scale * F.normalize(embeddings, dim=-1) @ class_vectors.T

    def trained(
        self, embeddings: Tensor, labels: Tensor, classes: Tensor, renormalize: bool
    ) -> Tensor:
        vectors = self.class_vectors.detach().clone()
        return vectors if self.similarity == "dot" else F.normalize(vectors, dim=-1)
