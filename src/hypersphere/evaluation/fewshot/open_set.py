"""Open-set recognition: are queries of classes never seen told from those of known ones?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from hypersphere.evaluation.fewshot.few_shot import class_vectors
from hypersphere.evaluation.fewshot.inputs import BLOCK, check_classes, labelled, parts


def open_set_scores(
    known: ArrayLike | Tensor, unknown: ArrayLike | Tensor, correct: ArrayLike | Tensor
) -> dict[str, float]:
    """Measures of a score that should be higher for queries of known classes.

    known: (k,) scores; correct: (k,) whether each of them was given its own class; unknown: (u,)
    scores. Fractions:

    * `auroc`: the chance that a known query scores above an unknown one; ties count half;
    * `fpr95`: unknown queries accepted at the highest threshold that accepts 95 % of the known;
    * `oscr`: area under the rate of known queries that are accepted and given their own class, over
      the share of unknown ones that are accepted (Dhamija et al. 2018); at most the accuracy.

    Raises ValueError for empty, unequally long, or not finite scores.
    """
    scores = {}
    for name, values in (("known", known), ("unknown", unknown)):
        scores[name] = _array(values).astype(np.float64)
        if scores[name].ndim != 1 or not len(scores[name]) or not np.isfinite(scores[name]).all():
            raise ValueError(f"{name}: needs finite scores of shape (n,), at least one")
    right = _array(correct)
    if right.shape != scores["known"].shape or right.dtype != bool:
        raise ValueError(f"correct: needs a bool per known score, got {right.dtype} {right.shape}")
    order = np.sort(scores["unknown"])
    # Of each known query, the share of unknown ones that it beats: AUROC is the mean of that over
    # all of them, OSCR over all of them with 0 for those that are taken for another class.
    below, up_to = (order.searchsorted(scores["known"], side) for side in ("left", "right"))
    beats = (below + up_to) / (2 * len(order))
    needed = int(np.ceil(0.95 * len(right) - 1e-9))
    threshold = np.sort(scores["known"])[len(right) - needed]
    return {
        "auroc": float(beats.mean()),
        "fpr95": float((order >= threshold).mean()),
        "oscr": float((beats * right).mean()),
    }


def _array(values: ArrayLike | Tensor) -> np.ndarray:
    if not isinstance(values, Tensor):
        return np.asarray(values)
    values = values.detach().cpu()
    return (values.double() if values.is_floating_point() else values).numpy()


@torch.no_grad()
def open_set(
    embeddings: ArrayLike | Tensor,
    labels: ArrayLike | Tensor,
    base: Sequence[Any],
    novel: Sequence[Any],
    *,
    seed: int = 0,
    test: ArrayLike | Tensor | None = None,
    test_labels: ArrayLike | Tensor | None = None,
    test_share: float = 0.5,
    base_vectors: ArrayLike | Tensor | None = None,
) -> dict[str, float]:
    """Novel classes as unknown ones, scored by the largest cosine to a base class vector.

    Arguments as in `evaluate`, the queries too. Nothing of the novel classes is learned: with
    `test` they need no embedding, and with `base_vectors` the base classes need none. Returns what
    `open_set_scores` gives, and `accuracy` of the base queries among the base classes. Raises
    ValueError naming what does not fit.
    """
    given = labelled(embeddings, labels)
    if not len(base) or not len(novel):
        raise ValueError("base and novel: each needs at least one class")
    classes = [*base, *novel]
    check_classes(classes, given.labels, "base and novel")
    learned = [] if base_vectors is not None else list(base)
    examples, queries, where, own = parts(
        given, classes, learned, test, test_labels, test_share, seed
    )
    vectors = class_vectors(examples.points, where, len(base), base_vectors)
    best = [(part @ vectors.T).max(1) for part in queries.points.split(BLOCK)]
    score = torch.cat([found.values for found in best]).numpy()
    right = torch.cat([found.indices for found in best]).numpy() == own
    known = own < len(base)
    found = open_set_scores(score[known], score[~known], right[known])
    return found | {"accuracy": float(right[known].mean())}
