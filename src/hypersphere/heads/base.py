"""What every head offers, so that evaluations need not know which loss trained it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Head(nn.Module):
    """A head over `num_classes` classes in `dim` dimensions.

    Class vectors always have shape (classes, dim) and are parameters or buffers of the head, so
    that optimiser, checkpoint and imprinting see them. Heads that learn by distances alone have
    none: their classes are the means of training embeddings.
    """

    revision = 1
    classifies = False  # whether `logits` gives something
    learns_value = False  # whether `loss` takes a number of each image too (heads/values.py)
    targets: Tensor | None = None  # (classes, dim) fixed points that classes are sent to, if any

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.dim, self.num_classes = dim, num_classes

    def loss(self, embeddings: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        """Scalar training loss. embeddings: (n, dim); labels: (n,) in 0 .. num_classes - 1;
        weights: (n,) of the images, of a head that `classifies`."""
        raise NotImplementedError

    def logits(self, embeddings: Tensor) -> Tensor:
        """Logits (n, num_classes) of the trained classes, of a head that `classifies`."""
        raise NotImplementedError

    def scores(self, embeddings: Tensor, class_vectors: Tensor) -> Tensor:
        """How well each embedding (n, dim) fits each class vector (k, dim): (n, k), higher fits
        better. Scores of trained and of inferred vectors are comparable with each other."""
        raise NotImplementedError

    def infer(
        self, embeddings: Tensor, labels: Tensor, classes: Tensor, renormalize: bool
    ) -> Tensor:
        """Class vectors (k, dim) of new `classes` (k,) from labelled embeddings (n, dim), (n,).

        The mean of the unit embeddings of each class: eq. 4 of arXiv 2102.03243, whose mean is
        shorter than 1; with `renormalize` scaled back to the unit length that its eq. 2 demands
        (imprinted weights, Qi et al. 2018).
        """
        means = class_means(F.normalize(embeddings, dim=-1), labels, classes)
        return F.normalize(means, dim=-1) if renormalize else means

    def trained(
        self, embeddings: Tensor, labels: Tensor, classes: Tensor, renormalize: bool
    ) -> Tensor:
        """Class vectors (k, dim) of the `classes` the network was trained on, in that order;
        `embeddings` and `labels` are the training set's."""
        return self.infer(embeddings, labels, classes, renormalize)


def class_means(embeddings: Tensor, labels: Tensor, classes: Tensor) -> Tensor:
    """Mean embedding (k, dim) of each of `classes` (k,), from embeddings (n, dim), labels (n,).

    Raises ValueError naming the classes that have no example.
    """
    # In float64: a sum of thousands of float32 would depend on how the memory is aligned.
    member = (labels[None] == classes[:, None]).double()
    count = member.sum(1, keepdim=True)
    if not bool((count > 0).all()):
        missing = classes[count[:, 0] == 0].tolist()
        raise ValueError(f"no example of class {missing}: a class vector needs at least one")
    return (torch.matmul(member, embeddings.double()) / count).to(embeddings.dtype)


def class_counts(labels: Tensor, num_classes: int) -> Tensor:
    """How many of labels (n,) there are of each class: (num_classes,) int64. Unlike bincount it
    asks nothing of the device, so that a CUDA graph can hold it."""
    return labels.new_zeros(num_classes).index_add_(0, labels, torch.ones_like(labels))
