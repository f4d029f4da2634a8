"""Choosing settings for novel classes without test images: the unseen classes' training images
take both parts (the measure is eq. 6 of arXiv 2102.03243)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from hypersphere.data.splits import Split, holdout
from hypersphere.evaluation.embeddings import Embeddings
from hypersphere.evaluation.novel import Findings
from hypersphere.heads import Head


def held_out_classes(
    head: Head,
    embeddings: Embeddings,
    split: Split,
    seed: int,
    *,
    share: Annotated[float, Field(gt=0, lt=1)],
) -> Findings:
    """Accuracy on training images of the unseen classes among those alone (eq. 6 of the paper).

    `share` of each unseen class's training images, drawn by `seed` and the same for every method,
    is classified; the others give the class vectors. Nothing of the test set is read, so settings
    may be chosen by these numbers. Keys `<weights>/disjoint/unseen`: class vectors `renormalized`
    to unit length, or the `raw` mean of eq. 4; a fraction of the classified images.

    Raises ValueError when the split has no unseen class, or one of a single image.
    """
    if not split.unseen:
        raise ValueError("there are no unseen classes: choose split=seen_unseen")
    unseen = torch.tensor(split.unseen)
    among = torch.isin(embeddings.train_labels, unseen)
    train, labels = embeddings.train[among], embeddings.train_labels[among]
    held = torch.from_numpy(holdout(labels.numpy(), share, seed))
    target = torch.searchsorted(unseen, labels[held])
    found: Findings = {}
    for weights, renormalize in (("renormalized", True), ("raw", False)):
        vectors = head.infer(train[~held], labels[~held], unseen, renormalize)
        predicted = head.scores(train[held], vectors).argmax(1)
        found[f"{weights}/disjoint/unseen"] = (predicted == target).double().mean().item()
    return found


held_out_classes.needs_unseen = True  # type: ignore[attr-defined]
