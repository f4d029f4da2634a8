"""Class points placed before any training: on the unit sphere, or on a raster in the plane."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from hypersphere.seeds import derive


def separated(
    num_classes: int, dim: int, *, steps: int = 1000, lr: float = 0.1, seed: int = 0
) -> Tensor:
    """Prototypes (num_classes, dim) of unit length, spread by the published procedure of
    Hyperspherical Prototype Networks (Mettes et al. 2019, eq. 3 and section 3.1): `steps` of
    gradient descent on the mean over classes of the largest cosine to another class, put back onto
    the sphere after each. In two dimensions equal slices of the circle.

    Raises ValueError for fewer than two classes or dimensions.
    """
    if num_classes < 2 or dim < 2:
        raise ValueError(f"{num_classes} prototypes in {dim} dimensions: needs two of both")
    if dim == 2:
        angle = 2 * math.pi * torch.arange(num_classes) / num_classes
        return torch.stack([angle.cos(), angle.sin()], 1)
    draws = torch.Generator().manual_seed(derive("prototypes", seed) % 2**63)
    points = F.normalize(torch.randn(num_classes, dim, generator=draws, dtype=torch.double), dim=1)
    itself = torch.eye(num_classes, dtype=torch.bool)
    with torch.enable_grad():
        for _ in range(steps):
            points.requires_grad_()
            closest = (points @ points.T).masked_fill(itself, -2.0).max(1).values
            (gradient,) = torch.autograd.grad(closest.mean(), points)
            points = F.normalize(points.detach() - lr * gradient, dim=1)
    return points.float()


def raster(num_classes: int, dim: int) -> Tensor:
    """Points (num_classes, 2) in rows of five with spacing 1, their middle at the origin.

    Raises ValueError for another number of dimensions than two.
    """
    if dim != 2:
        raise ValueError(f"targets=raster is for two dimensions, not {dim}; choose targets=sphere")
    number = torch.arange(num_classes)
    points = torch.stack([number % 5, number // 5], 1).float()
    return points - (points.amax(0) + points.amin(0)) / 2
