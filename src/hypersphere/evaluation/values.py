"""How well a number of each image is predicted, and its class where the head has both."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from hypersphere.data.splits import Split
from hypersphere.evaluation.embeddings import Embeddings, compact
from hypersphere.evaluation.novel import Findings
from hypersphere.heads import ValueHead
from hypersphere.ranks import rank_correlation
from hypersphere.seeds import generator


def values(
    head: ValueHead,
    embeddings: Embeddings,
    split: Split,
    seed: int,
    *,
    points: Annotated[int, Field(ge=1)],
) -> Findings:
    """Of the test images of the trained classes:

    * `mae`: mean absolute error of the predicted number, in its own unit;
    * `constant`: the same of the best constant prediction, the median of the training images';
    * `spearman`: rank correlation of the predicted with the true number; nan where all predictions
      are the same;
    * `accuracy`: of the class, where the head has classes.

    For embeddings in two or three dimensions the artifact `scatter` holds `points` random images:
    `embeddings` (n, dim) float16 (float32 where they are too long for it), `labels` (n,), `values`
    (n,) and, where the head has classes, their `targets` (classes, dim). Raises
    ValueError for a head that learns no number.
    """
    if not isinstance(head, ValueHead) or embeddings.test_values is None:
        raise ValueError("evaluations.values judges a head that learns a number of each image")
    seen = torch.tensor(split.seen)
    tested = torch.isin(embeddings.test_labels, seen).nonzero().flatten()
    z, truth = embeddings.test[tested], embeddings.test_values[tested]
    labels = torch.searchsorted(seen, embeddings.test_labels[tested])
    trained = torch.isin(embeddings.train_labels, seen)
    predicted = head.predict(z)
    median = embeddings.train_values[trained].median()
    found: Findings = {
        "mae": _mean_error(predicted, truth),
        "constant": _mean_error(median, truth),
        "spearman": rank_correlation(predicted.numpy(), truth.numpy()),
    }
    if head.classifies:
        found["accuracy"] = (head.classify(z) == labels).double().mean().item()
    if z.shape[1] in (2, 3):
        some = torch.from_numpy(generator("scatter", seed).permutation(len(z))[:points])
        arrays = compact(z[some], labels[some])
        arrays["values"] = truth[some].numpy().astype(np.float32)
        if head.classifies:
            arrays["targets"] = head.trained(z, labels, seen, True).numpy()
        found["scatter"] = arrays
    return found


def _mean_error(predicted: torch.Tensor, truth: torch.Tensor) -> float:
    return (predicted - truth).double().abs().mean().item()
