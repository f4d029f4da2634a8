"""Scores of queries for new classes, of many draws of their examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

# Adding a row of cosines to another costs about as much as this many products of a matrix product.
ADDING = 32

Score = Callable[[Tensor], Tensor]  # of what `prepare` gives -> (shots, novel, b)


@dataclass(frozen=True)
class Draws:
    """Some draws over the same queries. prepare: unit queries (b, dim) -> what all draws share of
    them; scores: of each draw, from that its scores (shots, novel, b); shots: how many numbers of
    shots there are."""

    shots: int
    scores: list[Score]
    prepare: Callable[[Tensor], Tensor] = lambda queries: queries


def by_vectors(vectors: Tensor) -> Score:
    """Cosines with unit class vectors (shots, novel, dim)."""
    number, flat = vectors.shape[:2], vectors.flatten(0, 1)
    return lambda queries: (flat @ queries.T).view(*number, len(queries))


def by_mean(points: Tensor, chosen: Tensor, shots: Sequence[int]) -> Draws:
    """Cosines with the mean of the examples.

    points: (n, dim) unit embeddings; chosen: (draws, novel, most) positions among them in the order
    in which more shots take them, -1 where a class has no more.

    A cosine with a mean is a sum of cosines with its examples, divided by the length of their sum.
    With many draws of many dimensions the examples repeat: then their cosines are computed once,
    and a draw only adds up its own.
    """
    draws, novel, most = chosen.shape
    used, place = torch.unique(chosen, return_inverse=True)
    sums = [_sums(points, of_draw, shots) for of_draw in chosen]
    each = draws * len(shots) * novel * points.shape[1]
    shared = len(used) * points.shape[1] + ADDING * chosen.numel()
    if each <= shared:
        return Draws(len(shots), [by_vectors(F.normalize(s, dim=2).float()) for s in sums])
    table = points[used.clamp(min=0)]
    scores = [
        _adding(*some, shots, total) for *some, total in zip(place, chosen >= 0, sums, strict=True)
    ]
    return Draws(len(shots), scores, lambda queries: table @ queries.T)


def _sums(points: Tensor, chosen: Tensor, shots: Sequence[int]) -> Tensor:
    """(shots, novel, dim) float64: sums of the first examples of each class, as many as `shots`
    says or as there are. chosen: (novel, most)."""
    running = points.new_zeros((len(chosen), points.shape[1]), dtype=torch.double)
    sums = running.new_empty((len(shots), *running.shape))
    for i, example in enumerate(chosen.T):
        # One after the other, as cumsum would, which takes four times as long.
        if bool((example < 0).any()):
            real = example >= 0
            running[real] += points[example[real]]
        else:
            running += points.index_select(0, example)
        if i + 1 in shots:
            sums[shots.index(i + 1)] = running
    return sums


def _adding(place: Tensor, real: Tensor, shots: Sequence[int], sums: Tensor) -> Score:
    """A draw of examples at `place` (novel, most) of a table of cosines (examples, b); those that
    are not `real` count nothing. sums: what the class vectors are the directions of."""
    parts, ends, start = [], [], 0
    for end in shots:  # the examples that each number of shots has beyond the one before it
        more = real[:, start:end]
        parts.append(place[:, start:end][more])
        ends.append(more.sum(1))
        start = end
    order = torch.cat(parts)
    counts = torch.cat(ends)
    first = counts.cumsum(0) - counts
    length = sums.norm(dim=2, keepdim=True).clamp(min=1e-12)
    factor = (1 / length).float()

    def score(table: Tensor) -> Tensor:
        added = F.embedding_bag(order, table, first, mode="sum").view(len(shots), len(place), -1)
        for fewer, found in zip(added, added[1:], strict=False):
            found += fewer
        return added.mul_(factor)

    return score


def by_nearest(points: Tensor, chosen: Tensor, shots: Sequence[int]) -> Draws:
    """The largest cosine with an example; arguments as of `by_mean`."""
    return Draws(len(shots), [_nearest(points, of_draw, list(shots)) for of_draw in chosen])


def _nearest(points: Tensor, chosen: Tensor, shots: list[int]) -> Score:
    few, missing = points[chosen.clamp(min=0)], (chosen < 0)[..., None]

    def score(queries: Tensor) -> Tensor:
        cosines = (few.flatten(0, 1) @ queries.T).view(*few.shape[:2], len(queries))
        cosines.masked_fill_(missing, -math.inf)
        best: list[Tensor] = []
        for start, end in zip([0, *shots], shots, strict=False):
            nearest = cosines[:, start:end].amax(1)
            best.append(torch.maximum(best[-1], nearest) if best else nearest)
        return torch.stack(best)

    return score
