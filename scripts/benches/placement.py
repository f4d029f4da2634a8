"""Prototypes: placing them, and the loss over all triplets."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F

from benches.measure import Variants
from hypersphere import prototypes
from hypersphere.prototypes import Separation, best_bound, separation


def placements(classes: int, dim: int) -> dict[str, Callable[[], Separation]]:
    """The published procedure beside the search (or the closed form); for a thousand classes the
    shorter search that it names."""
    shorter = {"stages": 10, "rounds": 20} if classes >= 1000 else {}
    return {
        "published, 1,000 steps": lambda: separation(prototypes.published(classes, dim)),
        "optimal": lambda: separation(prototypes.optimal(classes, dim, **shorter)),
    }


def placed(classes: int, dim: int) -> Variants:
    places = placements(classes, dim)
    return {name: lambda place=place: bool(place()) for name, place in places.items()}


def largest_cosines(classes: int, dim: int) -> dict[str, float]:
    """What each placement comes to, and the bound that none falls below."""
    found = {name: place().largest_cosine for name, place in placements(classes, dim).items()}
    return found | {"bound": best_bound(classes, dim)[0]}


def triplets(classes: int) -> Variants:
    """Eq. 6 over all triplets (970,200 of 100 classes): as a list, and as sums of powers."""
    g = torch.Generator().manual_seed(0)
    words = F.normalize(torch.randn(classes, 300, generator=g), dim=1)
    points = F.normalize(torch.randn(classes, 50, generator=g), dim=1).requires_grad_()
    similar, ranking = words @ words.T, prototypes.RankingLoss(words)
    i, j, k = torch.cartesian_prod(*[torch.arange(classes)] * 3).T
    keep = (i != j) & (j != k) & (i != k)
    i, j, k = i[keep], j[keep], k[keep]
    truth = (similar[i, j] >= similar[i, k]).float()

    def listed() -> int:
        cosines = points @ points.T
        loss = F.binary_cross_entropy_with_logits(cosines[i, j] - cosines[i, k], truth)
        torch.autograd.grad(loss, points)
        return 1

    def moments() -> int:
        for _ in range(10):
            torch.autograd.grad(ranking(points @ points.T), points)
        return 10

    return {"a list of triplets": listed, "sums of powers": moments}
