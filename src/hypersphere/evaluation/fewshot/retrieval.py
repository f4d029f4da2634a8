"""Image retrieval: recall@k and MAP@R by cosine."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from hypersphere.evaluation.fewshot.inputs import labelled, numbers, positions

SCORES = 2**25  # cosines held at once: 128 MiB


@torch.no_grad()
def retrieval(
    embeddings: ArrayLike | Tensor,
    labels: ArrayLike | Tensor,
    gallery: ArrayLike | Tensor | None = None,
    gallery_labels: ArrayLike | Tensor | None = None,
    *,
    at: Sequence[int] | int = (1,),
) -> dict[str, float]:
    """How well the nearest images of the gallery have the query's class.

    embeddings: (n, dim), labels: (n,), the queries. gallery, gallery_labels: what is searched;
    without them the queries themselves, each leaving out itself.

    * `recall@k` for each k of `at`: queries with at least one match among the k nearest;
    * `map@r`: mean of the precisions at the ranks of the matches among the R nearest, divided by
      R, the number of matches that the query has (Musgrave et al. 2020, section 3.2);
    * `queries`, `without_match`: how many counted, and how many were left out since no image of the
      gallery has their class.

    Cosines of any sign count (some libraries take a score <= 0 for no match). Raises ValueError
    when a gallery comes without labels, has other dimensions, or no query has a match.
    """
    queries = labelled(embeddings, labels)
    if (gallery is None) != (gallery_labels is None):
        raise ValueError("gallery and gallery_labels: both or neither")
    itself = gallery is None
    if gallery is None or gallery_labels is None:
        searched = queries
    else:
        searched = labelled(gallery, gallery_labels, "gallery")
        if searched.points.shape[1] != queries.points.shape[1]:
            raise ValueError(
                f"gallery: {searched.points.shape[1]} dimensions, the embeddings have"
                f" {queries.points.shape[1]}"
            )
    at = numbers(at, "at")
    classes, own = np.unique(searched.labels, return_inverse=True)
    asked = positions(queries.labels, classes)
    matches = np.bincount(own)[asked] * (asked >= 0) - itself
    counted = np.flatnonzero(matches > 0)
    if not len(counted):
        raise ValueError("no query has an image of its class in the gallery")
    wanted, target = torch.from_numpy(matches), torch.from_numpy(asked)
    members = torch.from_numpy(own)
    nearest = min(max(int(matches.max()), *at), len(searched.points) - itself)
    ranks = torch.arange(1, nearest + 1)
    hits, precision = torch.zeros(len(at), dtype=torch.double), torch.zeros((), dtype=torch.double)
    size = max(SCORES // len(searched.points), 1)
    for block in torch.from_numpy(counted).split(size):
        cosines = queries.points[block] @ searched.points.T
        if itself:
            cosines[torch.arange(len(block)), block] = -math.inf
        same = members[cosines.topk(nearest).indices] == target[block][:, None]
        hits += torch.stack([same[:, :k].any(1).double().sum() for k in at])
        r = wanted[block][:, None]
        among = (same & (ranks <= r)).double()
        precision += ((among.cumsum(1) / ranks * among).sum(1) / r[:, 0]).sum()
    number = len(counted)
    found = {f"recall@{k}": (hits[i] / number).item() for i, k in enumerate(at)}
    return found | {
        "map@r": (precision / number).item(),
        "queries": float(number),
        "without_match": float(len(queries.points) - number),
    }
