"""Queries of a few-shot task: which of them are right, whatever gives the scores of new classes."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from hypersphere.evaluation.fewshot.inputs import BLOCK
from hypersphere.evaluation.fewshot.scores import Draws

SCORES = 2**22  # held at once: of many thousand classes, fewer queries than BLOCK


class Queries:
    """The queries, and what of them does not depend on a draw: their scores for base classes.

    A base query that another base class wins is wrong whatever the novel classes score: it is not
    asked again.
    """

    def __init__(self, points: Tensor, own: Tensor, vectors: Tensor, num_novel: int) -> None:
        self.num_base, self.num_novel = len(vectors), num_novel
        self.counts = own.bincount(minlength=self.num_base + num_novel)
        of_novel = own >= self.num_base
        self.novel, self.novel_own = points[of_novel], own[of_novel] - self.num_base
        self.base_best = torch.full((len(self.novel),), -math.inf)
        base, base_own = points[~of_novel], own[~of_novel]
        hit = torch.zeros(len(base), dtype=torch.bool)
        score = torch.empty(len(base))
        if self.num_base:
            for block in _blocks(self.novel, self.num_base):
                self.base_best[block] = (vectors @ self.novel[block].T).amax(0)
            for block in _blocks(base, self.num_base):
                right, mine = first_best((vectors @ base[block].T)[None], base_own[block])
                hit[block], score[block] = right[0], mine[0]
        self.base, self.base_own, self.base_score = base[hit], base_own[hit], score[hit]

    def hits(self, draws: Draws) -> Tensor:
        """(draws, 2, shots, classes): per class how many queries are right, joint and disjoint."""
        shape = (len(draws.scores), 2, draws.shots, len(self.counts))
        counts = torch.zeros(shape, dtype=torch.int64)
        vectors = draws.shots * self.num_novel
        for block in _blocks(self.novel, vectors):
            prepared, own = draws.prepare(self.novel[block]), self.novel_own[block]
            for of_draw, score in zip(counts, draws.scores, strict=True):
                hit, mine = first_best(score(prepared), own)
                joint = hit & (mine > self.base_best[block])
                for row, right in zip(of_draw, (joint, hit), strict=True):
                    row.index_add_(1, own + self.num_base, right.long())
        for block in _blocks(self.base, vectors):
            prepared, own = draws.prepare(self.base[block]), self.base_own[block]
            for of_draw, score in zip(counts, draws.scores, strict=True):
                joint = self.base_score[block] >= score(prepared).amax(1)
                of_draw[0].index_add_(1, own, joint.long())
        # Those asked were right among the base classes.
        counts[:, 1] += self.base_own.bincount(minlength=shape[-1])
        return counts

    def accuracies(self, hits: Tensor) -> dict[str, np.ndarray]:
        """hits: (joint and disjoint, shots, draws, classes) -> name -> (shots, draws)."""
        joint, disjoint = hits
        counts, b = self.counts.double(), self.num_base

        def accuracy(hits: Tensor, counts: Tensor) -> Tensor:
            return hits.sum(-1) / counts.sum()

        novel = disjoint[..., b:]
        found = {
            "disjoint/novel": accuracy(novel, counts[b:]),
            "disjoint/balanced": (novel / counts[b:]).mean(-1),
        }
        if b:
            base_accuracy = accuracy(joint[..., :b], counts[:b])
            novel_accuracy = accuracy(joint[..., b:], counts[b:])
            total = base_accuracy + novel_accuracy
            found = {
                "joint/all": accuracy(joint, counts),
                "joint/base": base_accuracy,
                "joint/novel": novel_accuracy,
                "joint/harmonic": 2 * base_accuracy * novel_accuracy / total.clamp(min=1e-300),
                "joint/balanced": (joint / counts).mean(-1),
                "disjoint/base": accuracy(disjoint[..., :b], counts[:b]),
            } | found
        return {name: value.numpy() for name, value in found.items()}


def first_best(scores: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """Whether argmax over the classes would give each query's own class, and its own score.

    scores: (s, classes, b), overwritten; own: (b,). Returns (s, b) bool and float. Of equal scores
    the first class wins. `amax` runs many times as fast as `argmax`, so ties, which are rare, are
    looked at apart.
    """
    index = own[None, None].expand(len(scores), 1, -1)
    mine = scores.gather(1, index)
    scores.scatter_(1, index, -math.inf)
    others = scores.amax(1)
    mine = mine[:, 0]
    hit, tied = mine > others, mine == others
    if bool(tied.any()):
        s, i = tied.nonzero(as_tuple=True)
        earlier = torch.arange(scores.shape[1]) < own[i][:, None]
        hit[s, i] = ~((scores[s, :, i] == mine[s, i][:, None]) & earlier).any(1)
    return hit, mine


def _blocks(queries: Tensor, vectors: int) -> list[slice]:
    """Parts of the queries, each with scores for so many vectors; one empty part of none."""
    size = min(BLOCK, max(SCORES // max(vectors, 1), 16))
    return [slice(i, i + size) for i in range(0, max(len(queries), 1), size)]
