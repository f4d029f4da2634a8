"""Losses over pairs and triplets of a batch on the sphere, beside pytorch-metric-learning's, which
normalises by itself."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pytorch_metric_learning import losses as pml
from pytorch_metric_learning.distances import LpDistance
from torch import Tensor
from torch.nn import functional as F

from benches.measure import Variants
from hypersphere import losses

Loss = Callable[[Tensor, Tensor], Tensor]


def triplet(batch: int) -> Variants:
    """Every triplet of a batch of ten classes, mean over those above zero."""
    theirs = pml.TripletMarginLoss(margin=0.3, distance=LpDistance(power=2))
    return _compared(
        batch, theirs, lambda z, y: losses.triplet(F.normalize(z), y, 0.3, True, "all")
    )


def contrastive(batch: int) -> Variants:
    """Every pair. Theirs has no square on the negative side: what it costs is compared here, the
    values in tests/test_losses.py."""
    theirs = pml.ContrastiveLoss(0, 1.1, distance=LpDistance(power=2))
    return _compared(
        batch, theirs, lambda z, y: losses.contrastive(F.normalize(z), y, 1.1, "all"), equal=False
    )


def _compared(batch: int, theirs: Loss, ours: Loss, equal: bool = True) -> Variants:
    g = torch.Generator().manual_seed(0)
    points = torch.randn(batch, 64, generator=g).requires_grad_()
    labels = torch.arange(batch) % 10
    exact = points.detach().double()
    if equal and not torch.isclose(theirs(exact, labels), ours(exact, labels), rtol=1e-6, atol=0):
        raise SystemExit(f"{theirs} and ours differ")

    def stepper(loss: Loss) -> Callable[[], int]:
        def run() -> int:
            for _ in range(50):
                torch.autograd.grad(loss(points, labels), points)
            return 50

        return run

    return {"pytorch-metric-learning": stepper(theirs), "ours": stepper(ours)}
