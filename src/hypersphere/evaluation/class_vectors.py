"""Trained class vectors beside inferred ones on the closed set, and where they point
(arXiv 2102.03243, figures 2 and 8)."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from hypersphere.data.splits import Split, support
from hypersphere.evaluation.embeddings import Embeddings
from hypersphere.evaluation.novel import Findings
from hypersphere.heads import Head
from hypersphere.seeds import generator

POINTS = 2000  # of a scatter plot: what fits into an artifact


def class_vectors(
    head: Head,
    embeddings: Embeddings,
    split: Split,
    seed: int,
    *,
    draws: Annotated[int, Field(ge=1)],
) -> Findings:
    """How well the test images of the trained classes are told apart by class vectors of each kind.

    Kinds: `trained`; `prototype`, the unit mean of all training images of a class, and
    `prototype_raw`, the mean as it is (eq. 4); `anchor`, one random training image per class (one
    number per draw). Keys `<kind>/f1` (mean over
    the classes of the F1 score; a class never predicted has 0) and `<kind>/accuracy`;
    `cosine_to_mean/<class>`: cosine between a trained vector and the mean unit training embedding
    of its class, and `cosine_to_mean/smallest`. For embeddings in two or three dimensions the
    artifact `scatter` holds POINTS random training embeddings (n, dim) with their `labels` (n,) and
    the trained `class_vectors` (classes, dim), labels by position among the seen classes.
    """
    train, labels = embeddings.train, embeddings.train_labels
    seen = torch.tensor(split.seen)
    tested = torch.isin(embeddings.test_labels, seen)
    test = embeddings.test[tested]
    target = torch.searchsorted(seen, embeddings.test_labels[tested])
    trained = head.trained(train, labels, seen, True)
    found: dict[str, float | list[float] | dict[str, np.ndarray]] = {}

    def record(kind: str, drawn: list[Tensor]) -> None:
        each = [
            _scored(head.scores(test, vectors).argmax(1), target, len(seen)) for vectors in drawn
        ]
        for name in ("f1", "accuracy"):
            values = [numbers[name] for numbers in each]
            found[f"{kind}/{name}"] = values if kind == "anchor" else values[0]

    record("trained", [trained])
    record("prototype", [head.infer(train, labels, seen, True)])
    record("prototype_raw", [head.infer(train, labels, seen, False)])
    anchors = [
        torch.from_numpy(support(labels.numpy(), split.seen, 1, seed, draw))
        for draw in range(draws)
    ]
    record("anchor", [head.infer(train[a], labels[a], seen, True) for a in anchors])
    means = head.infer(train, labels, seen, False).double()
    cosines = F.cosine_similarity(trained.double(), means).tolist()
    found |= {f"cosine_to_mean/{c}": cos for c, cos in zip(split.seen, cosines, strict=True)}
    found["cosine_to_mean/smallest"] = min(cosines)
    if trained.shape[1] in (2, 3):
        among = torch.isin(labels, seen).nonzero().flatten()
        order = generator("scatter", seed).permutation(len(among))[:POINTS]
        some = among[torch.from_numpy(order)]
        found["scatter"] = {
            "embeddings": train[some].numpy().astype(np.float32),
            "labels": torch.searchsorted(seen, labels[some]).numpy().astype(np.int16),
            "class_vectors": trained.numpy(),
        }
    return found


def _scored(predicted: Tensor, target: Tensor, classes: int) -> dict[str, float]:
    confusion = torch.bincount(target * classes + predicted, minlength=classes**2)
    confusion = confusion.view(classes, classes).double()
    correct = confusion.diagonal()
    # 2 TP / (2 TP + FP + FN); the denominator counts a class's images and its predictions.
    f1 = 2 * correct / (confusion.sum(0) + confusion.sum(1)).clamp_min(1)
    return {"f1": f1.mean().item(), "accuracy": (correct.sum() / confusion.sum()).item()}
