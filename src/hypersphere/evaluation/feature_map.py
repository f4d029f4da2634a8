"""How features of many dimensions lie, in two: the picture of their distribution
(arXiv 2011.08704, figures 3 and 5)."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from hypersphere import losses
from hypersphere.data.splits import Split
from hypersphere.evaluation.embeddings import Embeddings
from hypersphere.evaluation.novel import Findings
from hypersphere.heads import Head, class_means
from hypersphere.seeds import generator


def feature_map(
    head: Head,
    embeddings: Embeddings,
    split: Split,
    seed: int,
    *,
    points: Annotated[int, Field(ge=1)],
    unit: bool,
) -> Findings:
    """The test images of the trained classes on the two directions in which their features (scaled
    to unit length where `unit`) vary most: principal components, so that distances keep their
    meaning.

    Numbers: `angle/between`, mean angle between the mean directions of two classes, and
    `angle/within`, mean angle between a feature and the mean direction of its class, both in
    degrees and of all dimensions; `cosine/own`, mean cosine of a feature with the class vector of
    its class; `explained`, the share of the variance that the two directions hold. Artifact
    `scatter`: `embeddings` (points, 2) float16 of random test images, their `labels`, and where
    `unit` the class vectors as `targets` (classes, 2).
    """
    seen = torch.tensor(split.seen)
    tested = torch.isin(embeddings.test_labels, seen)
    z = embeddings.test[tested].double()
    labels = torch.searchsorted(seen, embeddings.test_labels[tested])
    trained = head.trained(embeddings.train, embeddings.train_labels, seen, True).double()
    directions = F.normalize(z, dim=1)
    means = class_means(directions, labels, torch.arange(len(seen)))
    apart = torch.ones(len(seen), len(seen)).triu(1).bool()
    middle = (directions if unit else z).mean(0)
    shown = (directions if unit else z) - middle
    # of the covariance: as many rows as dimensions, however many images
    variances, axes = torch.linalg.eigh(shown.T @ shown / len(shown))
    plane = _signed(axes.flip(1)[:, :2])
    some = torch.from_numpy(generator("scatter", seed).permutation(len(z))[:points])
    arrays = {
        "embeddings": (shown[some] @ plane).numpy().astype(np.float16),
        "labels": labels[some].numpy().astype(np.int16),
    }
    if unit:
        arrays["targets"] = ((F.normalize(trained, dim=1) - middle) @ plane).numpy()
    return {
        "angle/between": _degrees(losses.cosine(means, means)[apart]),
        "angle/within": _degrees((directions * F.normalize(means[labels], dim=1)).sum(1)),
        "cosine/own": losses.cosine(z, trained).gather(1, labels[:, None]).mean().item(),
        "explained": (variances[-2:].sum() / variances.sum()).item(),
        "scatter": arrays,
    }


def _signed(axes: Tensor) -> Tensor:
    """Axes (d, 2) whose largest coordinate is positive: an eigenvector has no sign of its own."""
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    return axes * largest.sign()


def _degrees(cosines: Tensor) -> float:
    return cosines.clamp(-1, 1).acos().rad2deg().mean().item()
