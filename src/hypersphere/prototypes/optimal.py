"""Points as far apart as can be: closed forms where there are some, else a search.

What is optimal is the smallest largest cosine between two points (eq. 4 of Mettes et al. 2019; the
Tammes problem in three dimensions).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits
from torch import Tensor

from hypersphere.seeds import generator


def optimal(
    num_classes: int,
    dim: int,
    *,
    starts: int = 1,
    stages: int = 14,
    rounds: int = 60,
    seed: int = 0,
) -> Tensor:
    """Prototypes (num_classes, dim) of unit length with the smallest largest cosine we can find.

    Proved optimal: the circle in two dimensions, the simplex up to dim + 1 classes, the orthoplex
    up to 2 dim. Beyond that the best of `starts` random ones: (1 / b) log sum exp(b cos) is
    minimised by L-BFGS (`rounds` iterations) with b doubled from stage to stage, 4 at first, ever
    closer to the largest cosine itself; further starts begin with a larger b. For a thousand
    classes `stages=10, rounds=20` is enough. Raises ValueError for fewer than two classes or
    dimensions.
    """
    check_size(num_classes, dim)
    if dim == 2:
        return circle(num_classes)
    if num_classes <= dim + 1:
        return simplex(num_classes, dim)
    if num_classes <= 2 * dim:
        return orthoplex(num_classes, dim)
    with threadpool_limits(1, "blas"):  # these products are too small to be shared between threads
        found = [_search(num_classes, dim, stages, rounds, seed, start) for start in range(starts)]
    return torch.from_numpy(min(found, key=_largest_cosine)).float()


def circle(num_classes: int) -> Tensor:
    """(num_classes, 2) in equal slices of the unit circle, the first at angle 0."""
    angle = 2 * math.pi * torch.arange(num_classes) / num_classes
    return torch.stack([angle.cos(), angle.sin()], 1)


def simplex(num_classes: int, dim: int) -> Tensor:
    """(num_classes, dim) with all cosines -1 / (num_classes - 1), the largest angle there is for
    that many (Rankin 1955). Raises ValueError when dim < num_classes - 1."""
    check_size(num_classes, dim)
    if dim < num_classes - 1:
        raise ValueError(
            f"a simplex of {num_classes} points needs {num_classes - 1} dimensions, not {dim}"
        )
    cosine = -1 / (num_classes - 1)
    points = np.zeros((num_classes, dim))
    for i in range(num_classes - 1):  # unit length by axis i, then the right angle to all later
        points[i, i] = math.sqrt(1 - points[i, :i] @ points[i, :i])
        points[i + 1 :, i] = (cosine - points[i, :i] @ points[-1, :i]) / points[i, i]
    return torch.from_numpy(points).float()


def orthoplex(num_classes: int, dim: int) -> Tensor:
    """(num_classes, dim): the axes and their opposites, no two less than 90 degrees apart, which is
    the best for dim + 2 to 2 dim points (Rankin 1955). Raises ValueError beyond 2 dim."""
    check_size(num_classes, dim)
    if num_classes > 2 * dim:
        raise ValueError(f"an orthoplex in {dim} dimensions has {2 * dim} points")
    axes = torch.eye(dim)
    return torch.cat([axes, -axes])[:num_classes]


def check_size(num_classes: int, dim: int) -> None:
    """Raises ValueError for fewer than two classes or dimensions."""
    if num_classes < 2 or dim < 2:
        raise ValueError(f"{num_classes} prototypes in {dim} dimensions: needs two of both")


def _search(
    num_classes: int, dim: int, stages: int, rounds: int, seed: int, start: int
) -> np.ndarray:
    """One local optimum, unit rows in float64."""
    draws = generator("optimal prototypes", seed, start)
    x = draws.standard_normal((num_classes, dim))
    # A soft beginning leads all starts into one valley, often not the deepest.
    sharpness, last = 4.0 ** (1 + start % 4), 4.0 * 2.0 ** (stages - 1)
    while sharpness <= last:
        found = minimize(
            _soft_largest, x.ravel(), (num_classes, dim, sharpness), "L-BFGS-B", jac=True,
            options={"maxiter": rounds, "maxcor": 10, "gtol": 1e-10, "ftol": 1e-15},
        )  # fmt: skip
        x = found.x.reshape(num_classes, dim)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        sharpness *= 2
    return x


def _soft_largest(
    flat: np.ndarray, num_classes: int, dim: int, sharpness: float
) -> tuple[float, np.ndarray]:
    """(1 / b) log sum over pairs of exp(b cos), which tends to the largest cosine with b, and its
    gradient by the points, whose lengths do not matter."""
    x = flat.reshape(num_classes, dim)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    unit = x / length
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    largest = cosines.max()
    weights = np.exp(sharpness * (cosines - largest))
    total = weights.sum()
    gradient = (2 / total) * (weights @ unit)
    gradient -= (gradient * unit).sum(1, keepdims=True) * unit  # along the sphere only
    return largest + math.log(total / 2) / sharpness, (gradient / length).ravel()


def _largest_cosine(points: np.ndarray) -> float:
    cosines = points @ points.T
    np.fill_diagonal(cosines, -1)
    return float(cosines.max())
