"""Prototypes whose neighbours are ordered as their class names' word vectors are."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.polynomial import chebyshev
from torch import Tensor
from torch.nn import functional as F

from hypersphere.prototypes.optimal import check_size
from hypersphere.prototypes.published import descend, random_points, separation_loss
from hypersphere.ranks import rank_correlation

TERMS = 14  # of the expansion: the loss is right to 1e-9 or so


def privileged(
    vectors: Tensor,
    dim: int,
    *,
    steps: int = 1000,
    lr: float = 0.1,
    seed: int = 0,
    weight: float = 1.0,
) -> Tensor:
    """Prototypes (num_classes, dim) of unit length that are spread and keep the order of
    similarities of word vectors (num_classes, d): the published procedure on the sum of the losses
    of eqs. 5 and 6 of Mettes et al. 2019, the latter times `weight` (1 in the paper, which leaves
    little of that order; see `order_kept`). Two dimensions are searched too (the circle has no
    order). Raises ValueError for fewer than three classes or two dimensions."""
    ranking = RankingLoss(vectors)
    check_size(len(vectors), dim)
    start = random_points(len(vectors), dim, seed)

    def loss(points: Tensor) -> Tensor:
        return separation_loss(points) + weight * ranking(points @ points.T)

    return descend(start, loss, steps, lr).float()


def order_kept(points: Tensor | np.ndarray, vectors: Tensor | np.ndarray) -> float:
    """How well prototypes (num_classes, dim) keep the order of similarities of word vectors
    (num_classes, d): Spearman's rank correlation of the cosines of all pairs, 1 for the same order,
    0 for none. Raises ValueError for different numbers of classes, or fewer than three."""
    if len(points) != len(vectors) or len(points) < 3:
        raise ValueError(f"{len(points)} prototypes and {len(vectors)} word vectors: no order")
    above = tuple(torch.triu_indices(len(points), len(points), 1))
    each = (torch.as_tensor(given).detach().cpu().double() for given in (points, vectors))
    units = (F.normalize(given, dim=1) for given in each)
    cosines = [(unit @ unit.T)[above].numpy() for unit in units]
    return rank_correlation(*cosines)


class RankingLoss:
    """Eq. 6 of Mettes et al. 2019 (after RankNet): the mean, over all ordered triplets of different
    classes (i, j, k), of the cross-entropy between S = sigmoid(c_ij - c_ik) and the truth
    [w_ij >= w_ik], c and w being the cosines of prototypes and of word vectors.

    No triplet is formed. With o = c_ij - c_ik the cross-entropy is log 2 cosh(o / 2) minus or plus
    o / 2. The second part is linear in c, with weights that count ranks, worked out once. The first
    does not depend on the words and is smooth, so that a short expansion in powers of both cosines
    turns its sum over pairs into products of sums: memory and time grow with the square of the
    number of classes, not the cube.
    """

    def __init__(self, vectors: Tensor) -> None:
        """vectors: (num_classes, d). Raises ValueError for fewer than three classes."""
        count = len(vectors)
        if count < 3:
            raise ValueError(f"{count} classes: an order of similarities needs three")
        unit = F.normalize(torch.as_tensor(vectors).double(), dim=1)
        others = ~torch.eye(count, dtype=torch.bool)
        self.triplets = count * (count - 1) * (count - 2)
        # Two names with one word vector are equally similar to a third, whatever rounding says.
        words = (unit @ unit.T).round(decimals=12)
        weights = []
        for i in range(count):  # a row at a time: bounded memory
            own = words[i]
            ahead = (own[:, None] > own[None]).double() - (own[:, None] < own[None]).double()
            both = others[i][:, None] & others[i][None]
            weights.append((ahead * both).sum(1))
        # A tie counts as "at least" from both sides: its two linear parts cancel.
        self.weights = torch.stack(weights) / self.triplets
        self.expansion = torch.from_numpy(_expansion(TERMS))

    def __call__(self, cosines: Tensor) -> Tensor:
        """The loss of cosines (num_classes, num_classes) between prototypes, in their precision;
        worked out in float64."""
        return _Ranking.apply(cosines, self)


class _Ranking(torch.autograd.Function):
    """The loss and, while its powers are at hand, the gradient: a handful of passes over them."""

    @staticmethod
    def forward(ctx: Any, cosines: Tensor, loss: RankingLoss) -> Tensor:
        count, terms = len(cosines), len(loss.expansion)
        x = cosines.to(torch.float64, copy=True).clamp_(-1, 1)
        linear = torch.dot(loss.weights.view(-1), x.view(-1))
        x.fill_diagonal_(0)  # i = j is no pair: its powers add nothing
        powers = x.expand(terms - 1, count, count).cumprod(0)  # of 1, 2, ...
        sums = x.new_full((count, terms), count - 1.0)
        sums[:, 1:] = powers.sum(2).T
        folded = sums @ loss.expansion
        even = torch.dot(folded.view(-1), sums.view(-1))
        itself = count * (count - 1) * np.log(2)  # pairs j = k, which are no triplets
        slopes = folded[:, 1:] * (torch.arange(1, terms, dtype=x.dtype) * 2 / loss.triplets)
        gradient = torch.einsum("ti,tij->ij", slopes[:, 1:].T, powers[:-1])
        gradient += slopes[:, :1]
        gradient.fill_diagonal_(0)
        gradient -= loss.weights
        ctx.save_for_backward(gradient.to(cosines.dtype))
        return ((even - itself) / loss.triplets - linear).to(cosines.dtype)

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return above * ctx.saved_tensors[0], None


def _expansion(terms: int) -> np.ndarray:
    """(terms, terms) coefficients of log 2 cosh((x - y) / 2) on [-1, 1]^2 in products of powers of
    x and y, by Chebyshev interpolation."""
    nodes = chebyshev.chebpts1(2 * terms)
    difference = nodes[:, None] - nodes[None]
    values = np.log(2 * np.cosh(difference / 2))
    basis = chebyshev.chebvander(nodes, terms - 1)
    scale = np.full(terms, 2.0)
    scale[0] = 1.0
    project = (basis * scale).T / len(nodes)
    products = project @ values @ project.T
    powers = np.zeros((terms, terms))  # of T_0, T_1, ...
    for degree in range(terms):
        powers[degree, : degree + 1] = chebyshev.cheb2poly(np.eye(terms)[degree])[: degree + 1]
    return powers.T @ products @ powers
