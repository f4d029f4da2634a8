"""Nearest class mean classification while the representation is learned."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, zeros

from hypersphere import losses
from hypersphere.heads.base import class_counts
from hypersphere.heads.metric import Euclidean


class DeepNCM(Euclidean):
    """Softmax cross-entropy of -||z - m_k||^2 for running class means m_k of the features, which
    are not normalised (Guerriero, Caputo and Mensink 2018, DeepNCM: Deep Nearest Class Mean
    Classifiers).

    means: how they follow the features while training. `online`: the mean of all features of a
    class so far. `condensation`: the same, but after every `every` steps all that was seen of a
    class counts as one image, so that its mean is soon that of newer features. `decay`: of a class
    in the batch, decay * m_k + (1 - decay) * its mean in the batch.

    As in their released code: means start at zero, a batch is classified by the means before it,
    and no gradient passes through a mean. Two details are ours: steps are counted from the end of
    the first batch (the code condenses after that one as well), and a class without an image so
    far still counts none after a condensation (there: one image, at the origin). Weights of images
    scale their loss and not the means.

    The means are a buffer `class_vectors` (num_classes, dim), beside `counts` (num_classes,) and
    `step`: in the checkpoint, out of the optimiser.
    """

    classifies = True
    class_vectors: Tensor
    counts: Tensor
    step: Tensor

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        means: Literal["online", "decay", "condensation"],
        decay: Annotated[float, Field(ge=0, lt=1)],
        every: Annotated[int, Field(gt=0)],
    ) -> None:
        super().__init__(dim, num_classes)
        self.means, self.decay, self.every = means, decay, every
        self.register_buffer("class_vectors", zeros(num_classes, dim))
        self.register_buffer("counts", zeros(num_classes, dtype=torch.long))
        self.register_buffer("step", zeros((), dtype=torch.long))

    def loss(self, embeddings: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        loss = losses.cross_entropy(self.logits(embeddings), labels, weights)
        if self.training:
            self._follow(embeddings.detach(), labels)
        return loss

    def logits(self, embeddings: Tensor) -> Tensor:
        return self.scores(embeddings, self.class_vectors)

    def trained(
        self, embeddings: Tensor, labels: Tensor, classes: Tensor, renormalize: bool
    ) -> Tensor:
        return self.class_vectors.clone()

    @torch.no_grad()
    def _follow(self, embeddings: Tensor, labels: Tensor) -> None:
        away = torch.zeros_like(self.class_vectors)
        away.index_add_(0, labels, embeddings - self.class_vectors[labels])
        here = class_counts(labels, self.num_classes)
        self.step = self.step + 1
        self.counts = self.counts + here
        # A step towards the batch and not a sum over all images, which float32 would blur.
        if self.means == "decay":
            share = (1 - self.decay) / here.clamp_min(1)
        else:
            share = 1 / self.counts.clamp_min(1)
        # A new tensor: the loss of this batch still needs the old means for its gradient.
        self.class_vectors = self.class_vectors + share[:, None] * away
        if self.means == "condensation":
            condense = self.step % self.every == 0  # stays on the device
            self.counts = torch.where(condense, self.counts.clamp_max(1), self.counts)
