"""Which images make up each batch of an epoch.

A sampler turns (labels, generator) into the index batches of one epoch. The generator is seeded
by (seed, epoch), so an interrupted training that goes on draws the batches it would have drawn.
repeats: whether an epoch may show an image more than once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import numpy as np
from pydantic import Field

Size = Annotated[int, Field(ge=1)]


class Shuffled:
    """Every image once per epoch in random order; the last batch may be smaller.

    images_of_classes_with: an epoch shows as many images as the classes with at least so many have
    together, so that networks trained on more classes see equally many per epoch.

    A last batch of a single image joins the one before it: no pair or triplet could be formed.
    """

    revision = 1

    def __init__(self, *, size: Size, images_of_classes_with: Size | None = None) -> None:
        self.size, self.images_of_classes_with = size, images_of_classes_with

    def epoch(self, labels: np.ndarray, generator: np.random.Generator) -> Iterator[np.ndarray]:
        """Index batches of one epoch over `labels` (n,). Raises ValueError when no class has as
        many images as `images_of_classes_with`."""
        order = generator.permutation(len(labels))
        if (least := self.images_of_classes_with) is not None:
            counts = np.bincount(labels)
            if not (number := int(counts[counts >= least].sum())):
                raise ValueError(
                    f"images_of_classes_with={least}: no class has so many training images (the"
                    f" largest has {counts.max()})"
                )
            order = order[:number]
        cuts = list(range(self.size, len(order), self.size))
        if cuts and len(order) - cuts[-1] == 1:
            cuts.pop()
        yield from np.split(order, cuts)


class Pairs:
    """Pairs of images laid out as (2i, 2i + 1) in each batch, half of them of one class.

    An epoch has as many images as the training set (size / 2 pairs per batch): half of the images
    serve as anchors; each partner is drawn at random, for odd anchors from the same class, for
    even ones from the other classes.
    """

    revision = 1
    repeats = True

    def __init__(self, *, size: Annotated[int, Field(ge=2, multiple_of=2)]) -> None:
        self.size = size

    def epoch(self, labels: np.ndarray, generator: np.random.Generator) -> Iterator[np.ndarray]:
        """Index batches of one epoch over `labels` (n,), each of even length."""
        anchors = generator.permutation(len(labels))[: len(labels) // 2]
        partners = np.empty_like(anchors)
        by_class = {c: np.flatnonzero(labels == c) for c in np.unique(labels)}
        others = {c: np.flatnonzero(labels != c) for c in by_class}
        same = np.arange(len(anchors)) % 2 == 1
        for c, members in by_class.items():
            positive = np.flatnonzero(same & (labels[anchors] == c))
            negative = np.flatnonzero(~same & (labels[anchors] == c))
            # A shift of 1 .. m-1 within the class never pairs an image with itself.
            rank = np.searchsorted(members, anchors[positive])
            shift = generator.integers(1, max(len(members), 2), size=len(positive))
            partners[positive] = members[(rank + shift) % len(members)]
            partners[negative] = generator.choice(others[c], size=len(negative))
        pairs = np.stack([anchors, partners], axis=1)
        for start in range(0, len(pairs), self.size // 2):
            yield pairs[start : start + self.size // 2].reshape(-1)


class ClassBalanced:
    """Batches of `images` images from each of `classes` random classes, as many batches as make up
    the training set's size, or `per_epoch`. Each class is gone through in random order, again and
    again: those with few images are oversampled."""

    revision = 1
    repeats = True

    def __init__(
        self, *, classes: Annotated[int, Field(ge=2)], images: Size, per_epoch: Size | None = None
    ) -> None:
        self.classes, self.images, self.per_epoch = classes, images, per_epoch

    def epoch(self, labels: np.ndarray, generator: np.random.Generator) -> Iterator[np.ndarray]:
        """Index batches of one epoch over `labels` (n,). Raises ValueError when there are fewer
        classes than a batch needs."""
        members = [np.flatnonzero(labels == c) for c in np.unique(labels)]
        if len(members) < self.classes:
            raise ValueError(f"classes={self.classes}: there are {len(members)} classes")
        waiting = [members[0][:0] for _ in members]
        number = self.per_epoch or max(len(labels) // (self.classes * self.images), 1)
        for _ in range(number):
            batch = []
            for c in generator.permutation(len(members))[: self.classes]:
                while len(waiting[c]) < self.images:
                    waiting[c] = np.append(waiting[c], generator.permutation(members[c]))
                batch.append(waiting[c][: self.images])
                waiting[c] = waiting[c][self.images :]
            yield np.concatenate(batch)
