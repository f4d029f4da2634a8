"""How far apart prototypes are, and how far they could be at best."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import comb, eval_gegenbauer, roots_jacobi
from torch import Tensor
from torch.nn import functional as F

# Largest cosine of the best packings known in three dimensions, as nearest angle in degrees
# (the Tammes problem; N. J. A. Sloane's tables of spherical codes; 7 to 14 and 24 are proved).
_TAMMES = {
    7: 77.8695421, 8: 74.8584922, 9: 70.5287794, 10: 66.1468220, 11: 63.4349488, 12: 63.4349488,
    13: 57.1367031, 14: 55.6705700, 15: 53.6578501, 16: 52.2443957, 17: 51.0903285, 18: 49.5566548,
    19: 47.6919141, 20: 47.4310362, 24: 43.6907671,
}  # fmt: skip


@dataclass(frozen=True)
class Separation:
    """Cosine distances 1 - cos over all pairs of classes.

    smallest, mean, largest: as table 2 of Mettes et al. 2019 has them. largest_cosine: of the
    closest pair, 1 - smallest. bound: what no placement of so many points can fall below (or the
    best known one, where `known`: "bound", "best known" or "attained").
    """

    smallest: float
    mean: float
    largest: float
    largest_cosine: float
    bound: float
    known: str

    @property
    def gap(self) -> float:
        """How far the largest cosine lies above the bound."""
        return self.largest_cosine - self.bound


def separation(points: Tensor | np.ndarray) -> Separation:
    """Separation of points (num_classes, dim), such as a head's `class_vectors`; their lengths do
    not matter. Raises ValueError for fewer than two, or fewer than two dimensions."""
    unit = F.normalize(torch.as_tensor(points).detach().cpu().double(), dim=1)
    count, dim = unit.shape
    if count < 2 or dim < 2:
        raise ValueError(f"{count} prototypes in {dim} dimensions: a distance needs two of each")
    rows, columns = np.triu_indices(count, 1)
    cosines = (unit @ unit.T).numpy()[rows, columns].clip(-1, 1)
    distances = 1 - cosines
    bound, known = best_bound(count, dim)
    return Separation(
        float(distances.min()), float(distances.mean()), float(distances.max()),
        float(cosines.max()), bound, known,
    )  # fmt: skip


def best_bound(num_classes: int, dim: int) -> tuple[float, str]:
    """The smallest possible largest cosine of so many points on the sphere, and what is known:

    * `attained`: the circle in two dimensions; -1 / (num_classes - 1) up to dim + 1 points
      (simplex), 0 up to 2 dim (orthoplex; Rankin 1955);
    * `best known`: in three dimensions the tables of Sloane for up to 20 points and for 24;
    * `bound`: no placement falls below it, though none may reach it: Fejes Toth (1943) in three
      dimensions, else Levenshtein (1979).
    """
    if dim == 2:
        return math.cos(2 * math.pi / num_classes), "attained"
    if num_classes <= dim + 1:
        return -1 / (num_classes - 1), "attained"
    if num_classes <= 2 * dim:
        return 0.0, "attained"
    if dim == 3 and num_classes in _TAMMES:
        return math.cos(math.radians(_TAMMES[num_classes])), "best known"
    if dim == 3:
        return _fejes_toth(num_classes), "bound"
    return _levenshtein(num_classes, dim), "bound"


def _fejes_toth(num_classes: int) -> float:
    corner = math.pi * num_classes / (6 * (num_classes - 2))
    squared = 4 - 1 / math.sin(corner) ** 2  # of the closest pair's distance
    return 1 - squared / 2


def _levenshtein(num_classes: int, dim: int) -> float:
    """The largest cosine s at which Levenshtein's bound allows exactly so many points.

    The bound is a chain of functions, each valid between zeros of Jacobi polynomials.
    """
    low, degree = -1.0, 1
    while True:
        k = (degree + 1) // 2
        b = (dim - 3) / 2 + (degree % 2 == 0)
        high = float(roots_jacobi(k, (dim - 1) / 2, b)[0].max())
        inside, outside = low + 1e-9, high - 1e-12  # the functions are not defined at all zeros
        if _levenshtein_number(outside, dim, degree) >= num_classes:
            if _levenshtein_number(inside, dim, degree) >= num_classes:
                return low
            arguments = (dim, degree, num_classes)
            found = brentq(_levenshtein_number, inside, outside, arguments, xtol=1e-12)
            return float(found)
        low, degree = high, degree + 1


def _levenshtein_number(s: float, dim: int, degree: int, less: int = 0) -> float:
    """Most points whose cosines are at most s, by the function of this degree (Levenshtein 1979;
    Conway and Sloane 1999, chapter 9), minus `less`."""

    def gegenbauer(k: int) -> float:  # 1 at 1
        alpha = dim / 2 - 1
        return float(eval_gegenbauer(k, alpha, s) / eval_gegenbauer(k, alpha, 1.0))

    if degree % 2:
        k = (degree + 1) // 2
        before, here = gegenbauer(k - 1), gegenbauer(k)
        inner = (2 * k + dim - 3) / (dim - 1) - (before - here) / ((1 - s) * here)
        return float(comb(k + dim - 3, k - 1) * inner) - less
    k = degree // 2
    here, after = gegenbauer(k), gegenbauer(k + 1)
    inner = (2 * k + dim - 1) / (dim - 1) - (1 + s) * (here - after) / ((1 - s) * (here + after))
    return float(comb(k + dim - 2, k) * inner) - less
