"""Which class vectors are close to each other, which classes are confused, and how close images are
to the vector of the class they are given (arXiv 2011.08704, figures 2 and 4, table 4)."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch.nn import functional as F

from hypersphere import losses
from hypersphere.data.splits import Split
from hypersphere.evaluation.embeddings import Embeddings
from hypersphere.evaluation.novel import Findings
from hypersphere.heads import Head
from hypersphere.ranks import rank_correlation


def class_similarity(
    head: Head,
    embeddings: Embeddings,
    split: Split,
    seed: int,
    *,
    group: list[Annotated[int, Field(ge=0)]] | None = None,
) -> Findings:
    """Of the trained class vectors w and the test images z of their classes:

    * `accuracy`; `spearman`: rank correlation over all ordered pairs i != j of cos(w_i, w_j) with
      the number of images of class i that are called j; nan where either is the same for all;
    * `vectors/mean`, `vectors/largest`: of cos(w_i, w_j) over all pairs; where a `group` of classes
      is given (positions among the seen ones), also `vectors/within` it and `vectors/between` it
      and the others;
    * `cosine/predicted`: mean of cos(z, w) with the class that the head predicts;
      `cosine/predicted_correct`, of the images it classifies correctly; `cosine/own`, with their
      own class;
    * `ceiling`: mean over the classes of the largest cosine that a vector without negative
      coordinates can have with w: the length of the positive part of w / ||w||.

    Artifact `similarity`: `cosines` (k, k) float16 between the vectors, `confusions` (k, k) images
    of each class (row) by predicted class (column). Raises ValueError for a head without logits,
    or a group that is not some but not all of the classes.
    """
    if not head.classifies:
        raise ValueError("evaluations.class_similarity judges a head that classifies")
    seen = torch.tensor(split.seen)
    k = len(seen)
    tested = torch.isin(embeddings.test_labels, seen)
    z = embeddings.test[tested]
    labels = torch.searchsorted(seen, embeddings.test_labels[tested])
    trained = head.trained(embeddings.train, embeddings.train_labels, seen, True)
    predicted = head.classify(z)
    confusions = torch.bincount(labels * k + predicted, minlength=k * k).view(k, k)
    vectors = F.normalize(trained.double(), dim=1)
    cosines = losses.cosine(vectors, vectors)
    apart = ~torch.eye(k, dtype=torch.bool)
    pairs, counts = cosines[apart], confusions[apart]
    closeness = losses.cosine(z.double(), vectors)
    at_predicted = closeness.gather(1, predicted[:, None])[:, 0]
    correct = predicted == labels
    found: Findings = {
        "accuracy": correct.double().mean().item(),
        "spearman": rank_correlation(pairs.numpy(), counts.numpy()),
        "vectors/mean": pairs.mean().item(),
        "vectors/largest": pairs.max().item(),
        "cosine/predicted": at_predicted.mean().item(),
        "cosine/predicted_correct": at_predicted[correct].mean().item(),
        "cosine/own": closeness.gather(1, labels[:, None]).mean().item(),
        "ceiling": vectors.clamp(min=0).norm(dim=1).mean().item(),
    }
    if group is not None:
        inside = torch.zeros(k, dtype=torch.bool)
        if not group or max(group) >= k or len(set(group)) == k:
            raise ValueError(f"group={group}: needs positions of some, not all, of {k} classes")
        inside[group] = True
        both = inside[:, None] & inside & apart
        found["vectors/within"] = cosines[both].mean().item()
        found["vectors/between"] = cosines[inside][:, ~inside].mean().item()
    found["similarity"] = {
        "cosines": cosines.numpy().astype(np.float16),
        "confusions": confusions.numpy().astype(np.int32),
    }
    return found
