"""The placement of Hyperspherical Prototype Networks (Mettes et al. 2019), step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from hypersphere.prototypes.optimal import check_size, circle
from hypersphere.seeds import derive


def published(
    num_classes: int,
    dim: int,
    *,
    steps: int = 1000,
    lr: float = 0.1,
    falls: Sequence[int] = (),
    seed: int = 0,
) -> Tensor:
    """Prototypes (num_classes, dim) of unit length, by the published procedure: `steps` of gradient
    descent on the mean over classes of the largest cosine to another class (eq. 5), put back onto
    the sphere after each; in two dimensions equal slices of the circle (section 2.1).

    falls: steps after which the rate is a tenth of what it was.

    The paper says 1,000 steps with "the same settings" as of its networks, learning rate 0.01 and
    momentum 0.9; its released code has rate 0.1, rebuilds the optimiser each step (so momentum
    never acts), and takes 10,000. A rate of 0.1 without momentum comes to the same as the paper's
    two and gives its table 2 with 1,000 steps; 10,000 spread further than the table says, and with
    the networks' falls after 100 and 200 points stay closer than it says. In few dimensions 1,000
    steps are far from the end, and points that coincide stay so: `optimal` has neither fault.

    Raises ValueError for fewer than two classes or dimensions.
    """
    check_size(num_classes, dim)
    if dim == 2:
        return circle(num_classes)
    start = random_points(num_classes, dim, seed)
    return descend(start, separation_loss, steps, lr, falls).float()


def random_points(num_classes: int, dim: int, seed: int) -> Tensor:
    """(num_classes, dim) float64, uniform on the unit sphere."""
    draws = torch.Generator().manual_seed(derive("prototypes", seed) % 2**63)
    return F.normalize(torch.randn(num_classes, dim, generator=draws, dtype=torch.double), dim=1)


def separation_loss(points: Tensor) -> Tensor:
    """Mean over classes of the largest cosine to another class (eq. 5). points: unit rows."""
    itself = torch.eye(len(points), dtype=torch.bool)
    return (points @ points.T).masked_fill(itself, -2.0).max(1).values.mean()


def descend(
    start: Tensor,
    loss: Callable[[Tensor], Tensor],
    steps: int,
    lr: float,
    falls: Sequence[int] = (),
) -> Tensor:
    """`steps` of plain gradient descent on unit rows, each put back onto the sphere; the rate is a
    tenth of what it was after each of `falls`."""
    points = start
    with torch.enable_grad():
        for step in range(steps):
            if step in falls:
                lr /= 10
            points.requires_grad_()
            (gradient,) = torch.autograd.grad(loss(points), points)
            points = F.normalize(points.detach() - lr * gradient, dim=1)
    return points.detach()
