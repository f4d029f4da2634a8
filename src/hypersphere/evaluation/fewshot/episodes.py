"""Episodes of the few-shot literature: N-way K-shot accuracy with a 95 % interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.special import stdtrit
from torch import Tensor
from torch.nn import functional as F

from hypersphere.evaluation.fewshot.inputs import check_classes, labelled
from hypersphere.seeds import generator

CHUNK = 2**24  # numbers of embeddings gathered at once: 64 MiB


@dataclass(frozen=True)
class Episodes:
    """accuracies: (episodes,), a fraction of the queries of each. interval: half the width of the
    95 % interval of their mean (Student's t)."""

    accuracies: np.ndarray

    @property
    def mean(self) -> float:
        return float(self.accuracies.mean())

    @property
    def interval(self) -> float:
        n = len(self.accuracies)
        return float(stdtrit(n - 1, 0.975) * self.accuracies.std(ddof=1) / n**0.5)


@torch.no_grad()
def episodes(
    embeddings: ArrayLike | Tensor,
    labels: ArrayLike | Tensor,
    classes: Sequence[Any] | None = None,
    *,
    ways: int = 5,
    shots: int = 1,
    queries: int = 15,
    number: int = 600,
    seed: int = 0,
) -> Episodes:
    """Nearest class mean by cosine in random episodes (Vinyals et al. 2016; 600 of 15 queries per
    class are the usual number).

    embeddings: (n, dim); labels: (n,) integers or texts; classes: drawn from, all by default. Each
    episode draws `ways` classes and of each `shots` examples and `queries` other images, all
    without replacement; class vectors are the unit means of unit embeddings (imprinted weights).

    Raises ValueError when there are fewer classes than `ways`, or a class has fewer than
    `shots + queries` images.
    """
    given = labelled(embeddings, labels)
    found = np.unique(given.labels)
    names = found.tolist() if classes is None else list(classes)
    for name, value, least in (
        ("ways", ways, 2), ("shots", shots, 1), ("queries", queries, 1), ("number", number, 2),
    ):  # fmt: skip
        if value < least:
            raise ValueError(f"{name}={value}: needs at least {least}")
    check_classes(names, given.labels, "classes")
    if len(names) < ways:
        raise ValueError(f"ways={ways}: there are {len(names)} classes")
    members = [np.flatnonzero(given.labels == c) for c in names]
    for c, own in zip(names, members, strict=True):
        if len(own) < shots + queries:
            raise ValueError(
                f"class {c} has {len(own)} images, shots + queries = {shots + queries} are needed"
            )
    draws = generator("episodes", seed)
    at_once = max(CHUNK // (ways * (shots + queries) * given.points.shape[1]), 1)
    accuracies = []
    for start in range(0, number, at_once):
        drawn = [_draw(members, ways, shots + queries, draws)
                 for _ in range(start, min(start + at_once, number))]  # fmt: skip
        z = given.points[torch.from_numpy(np.stack(drawn))]  # (episodes, ways, images, dim)
        vectors = F.normalize(z[:, :, :shots].sum(2), dim=2)
        asked = z[:, :, shots:].flatten(1, 2)
        predicted = (asked @ vectors.transpose(1, 2)).argmax(2)
        right = predicted == torch.arange(ways).repeat_interleave(queries)
        accuracies.append(right.double().mean(1))
    return Episodes(torch.cat(accuracies).numpy())


def _draw(
    members: list[np.ndarray], ways: int, images: int, draws: np.random.Generator
) -> np.ndarray:
    """(ways, images): positions of one episode."""
    chosen = draws.choice(len(members), ways, replace=False)
    return np.stack([draws.choice(members[c], images, replace=False) for c in chosen])
