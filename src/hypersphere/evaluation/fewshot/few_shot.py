"""Few-shot classification beside known classes: every draw and number of shots in a few matrix
products over embeddings that were computed once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional as F

from hypersphere.data.splits import first_shots
from hypersphere.evaluation.fewshot.inputs import (
    BLOCK,
    as_tensor,
    check_classes,
    labelled,
    parts,
    unit,
)


@dataclass(frozen=True)
class FewShot:
    """What `evaluate` found: `values[name][i, j]` with `shots[i]` examples per class in draw j.

    Names are `joint/all`, `joint/base`, `joint/novel` (accuracy among all classes: of all queries,
    of those of base classes, of novel ones), `joint/harmonic` (harmonic mean of the two),
    `joint/balanced` (mean recall of all classes), `disjoint/novel` and `disjoint/balanced` (novel
    queries among novel classes) and `disjoint/base` (base queries among base classes, the same for
    every draw). Without base classes there are the disjoint novel ones alone. All are fractions.

    recalls: `joint` and `disjoint` -> (shots, draws, classes), of each class, base before novel.
    examples: (draws, novel, most shots), positions among the embeddings given to `evaluate` of the
    examples of each novel class, in the order in which more shots take them; -1 where there are no
    more.
    """

    shots: tuple[int, ...]
    values: dict[str, np.ndarray]
    recalls: dict[str, np.ndarray]
    examples: np.ndarray

    def mean(self, name: str) -> np.ndarray:
        """(shots,): mean over the draws."""
        return self.values[name].mean(1)

    def std(self, name: str) -> np.ndarray:
        """(shots,): standard deviation over the draws (n - 1), nan for a single draw."""
        values = self.values[name]
        return values.std(1, ddof=1) if values.shape[1] > 1 else np.full(len(values), math.nan)

    def summary(self) -> dict[str, dict[str, dict[str, Any]]]:
        """name -> shots -> mean, std (None for a single draw) and the draws, for JSON."""
        return {
            name: {
                str(n): {
                    "mean": float(mean),
                    "std": None if math.isnan(std) else float(std),
                    "draws": row.tolist(),
                }
                for n, mean, std, row in zip(
                    self.shots, self.mean(name), self.std(name), values, strict=True
                )
            }
            for name, values in self.values.items()
        }


@torch.no_grad()
def evaluate(
    embeddings: ArrayLike | Tensor,
    labels: ArrayLike | Tensor,
    base: Sequence[Any],
    novel: Sequence[Any],
    shots: Sequence[int] = (1, 2, 5, 10, 20),
    draws: int = 5,
    *,
    seed: int = 0,
    test: ArrayLike | Tensor | None = None,
    test_labels: ArrayLike | Tensor | None = None,
    test_share: float = 0.5,
    base_vectors: ArrayLike | Tensor | None = None,
    rule: Literal["mean", "nearest"] = "mean",
    or_fewer: bool = False,
) -> FewShot:
    """Classify by the largest cosine to a class vector, with `shots` random examples of each novel
    class (imprinted weights, Qi et al. 2018, section 4.2).

    embeddings: (n, dim), any length; labels: (n,) integers or texts. base, novel: the classes, as
    the labels have them; embeddings of other classes are left out. test, test_labels: the queries;
    without them `test_share` of each class (drawn by `seed`) is held out. base_vectors: (base, dim)
    of a trained classifier; without them means of the base classes' unit embeddings. rule: of
    novel classes, the `mean` of the unit embeddings of the examples, or the `nearest` example.
    or_fewer: a novel class with fewer examples gives all it has.

    Draws are nested, 1 shot inside 5, and depend on labels, `seed` and class alone, so methods and
    networks share them. All is float32 (bfloat16 moves accuracies by up to .004); memory grows with
    n and with the vectors of one draw, not with draws or queries. Of equal scores the first class
    wins, base before novel.

    Raises ValueError naming what does not fit: shapes, values, classes, too few examples.
    """
    given = labelled(embeddings, labels)
    base, novel = list(base), list(novel)
    classes = [*base, *novel]
    if not novel:
        raise ValueError("novel: names no class")
    check_classes(classes, given.labels, "base and novel")
    if not shots or min(shots) < 1 or list(shots) != sorted(set(shots)):
        raise ValueError(f"shots={list(shots)}: needs rising numbers from 1 up")
    if draws < 1:
        raise ValueError(f"draws={draws}: needs at least 1")
    if rule not in ("mean", "nearest"):
        raise ValueError(f"rule={rule!r}: mean or nearest")
    examples, queries, where, own = parts(given, classes, test, test_labels, test_share, seed)
    vectors = class_vectors(examples.points, where, len(base), base_vectors)
    task = _Queries(queries.points, torch.from_numpy(own), vectors, len(novel))
    members = _members(where, classes, len(base))
    if not or_fewer:
        check_examples(members, novel, max(shots))
    hits, taken = [], []
    for draw in range(draws):
        chosen = _chosen(members, novel, max(shots), seed, draw)
        # A class with fewer examples is filled up with zeros, which change no sum's direction.
        few = examples.points[chosen.clamp(min=0)] * (chosen >= 0)[..., None]
        if rule == "mean":
            sums = few.double().cumsum(1)[:, [n - 1 for n in shots]]
            score = _by_mean(F.normalize(sums, dim=2).float().transpose(0, 1))
        else:
            score = _by_nearest(few, chosen >= 0, shots)
        hits.append(torch.stack(task.hits(score)))
        taken.append(torch.where(chosen < 0, chosen, examples.rows[chosen]))
    found = torch.stack(hits).permute(1, 2, 0, 3).double()
    recalls = dict(zip(("joint", "disjoint"), (found / task.counts).numpy(), strict=True))
    return FewShot(tuple(shots), task.accuracies(found), recalls, torch.stack(taken).numpy())


@torch.no_grad()
def accuracies_of(
    novel_vectors: Tensor,
    embeddings: ArrayLike | Tensor,
    labels: ArrayLike | Tensor,
    base: Sequence[Any],
    novel: Sequence[Any],
    *,
    test: ArrayLike | Tensor,
    test_labels: ArrayLike | Tensor,
    base_vectors: ArrayLike | Tensor | None = None,
) -> dict[str, np.ndarray]:
    """The numbers of `FewShot.values`, each (sets,), with given class vectors of the novel classes.

    novel_vectors: (sets, novel, dim), of any length; the rest as in `evaluate`.
    """
    given, classes = labelled(embeddings, labels), [*base, *novel]
    check_classes(classes, given.labels, "base and novel")
    examples, queries, where, own = parts(given, classes, test, test_labels, 0.5, 0)
    vectors = class_vectors(examples.points, where, len(base), base_vectors)
    task = _Queries(queries.points, torch.from_numpy(own), vectors, len(novel))
    hits = torch.stack(task.hits(_by_mean(F.normalize(novel_vectors.float(), dim=2))))
    return {k: v[:, 0] for k, v in task.accuracies(hits[:, :, None].double()).items()}


def class_vectors(
    points: Tensor, where: np.ndarray, number: int, given: ArrayLike | Tensor | None
) -> Tensor:
    """(number, dim) unit vectors of the first `number` classes: the `given` ones, or means of their
    unit embeddings `points`. Raises ValueError when the given ones are of another shape."""
    if given is None:
        own = torch.from_numpy(where)
        first = own < number
        sums = points.new_zeros((number, points.shape[1]), dtype=torch.double)
        sums.index_add_(0, own[first], points[first].double())
        return F.normalize(sums, dim=1).float()
    vectors = unit(as_tensor(given, "base_vectors"), "base_vectors")
    if vectors.shape != (number, points.shape[1]):
        raise ValueError(
            f"base_vectors: needs shape {(number, points.shape[1])}, got {tuple(vectors.shape)}"
        )
    return vectors


def _members(where: np.ndarray, classes: list[Any], first: int) -> list[np.ndarray]:
    """Positions of the examples of each novel class (those from `first` on)."""
    ends = np.bincount(where, minlength=len(classes)).cumsum()
    return np.split(np.argsort(where, kind="stable"), ends[:-1])[first:]


def check_examples(members: Sequence[np.ndarray], novel: Sequence[Any], most: int) -> None:
    """Raises ValueError naming the first novel class with fewer than `most` examples."""
    for c, own in zip(novel, members, strict=True):
        if len(own) < most:
            raise ValueError(
                f"novel class {c} has {len(own)} examples, {most} shots are asked (or_fewer=True"
                " takes what there is)"
            )


def _chosen(members: list[np.ndarray], novel: list[Any], most: int, seed: int, draw: int) -> Tensor:
    """(novel, most): positions of the examples in the order in which more shots take them, -1 where
    a class has no more."""
    found = np.full((len(novel), most), -1)
    for row, c, own in zip(found, novel, members, strict=True):
        drawn = first_shots(own, c, most, seed, draw)
        row[: len(drawn)] = drawn
    return torch.from_numpy(found)


class _by_mean:
    """Scores (shots, novel, b) of b queries: cosines with the mean of the examples."""

    def __init__(self, vectors: Tensor) -> None:
        self.number = vectors.shape[:2]
        self.vectors = vectors.flatten(0, 1)  # of (shots, novel, dim)

    def __call__(self, queries: Tensor) -> Tensor:
        return (self.vectors @ queries.T).view(*self.number, len(queries))


class _by_nearest:
    """Scores (shots, novel, b) of b queries: the largest cosine with an example."""

    def __init__(self, few: Tensor, real: Tensor, shots: Sequence[int]) -> None:
        self.few, self.real, self.ends = few, real, list(shots)

    def __call__(self, queries: Tensor) -> Tensor:
        cosines = (self.few.flatten(0, 1) @ queries.T).view(*self.few.shape[:2], len(queries))
        cosines.masked_fill_(~self.real[..., None], -math.inf)
        best, start = [], 0
        for end in self.ends:
            nearest = cosines[:, start:end].amax(1)
            best.append(torch.maximum(best[-1], nearest) if best else nearest)
            start = end
        return torch.stack(best)


class _Queries:
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
            for block in _blocks(self.novel):
                self.base_best[block] = (vectors @ self.novel[block].T).amax(0)
            for block in _blocks(base):
                right, mine = first_best((vectors @ base[block].T)[None], base_own[block])
                hit[block], score[block] = right[0], mine[0]
        self.base, self.base_own, self.base_score = base[hit], base_own[hit], score[hit]

    def hits(self, score: _by_mean | _by_nearest) -> tuple[Tensor, Tensor]:
        """Per class how many queries are right (shots, classes), joint and disjoint."""
        joint_novel, disjoint_novel = self._novel_hits(score)
        joint_base = self._base_hits(score)
        disjoint_base = torch.ones_like(joint_base)
        return self._count(joint_base, joint_novel), self._count(disjoint_base, disjoint_novel)

    def _count(self, base: Tensor, novel: Tensor) -> Tensor:
        """(shots, b) hits of base queries and of novel ones -> (shots, classes)."""
        counts = torch.zeros(len(novel), len(self.counts), dtype=torch.int64)
        counts.index_add_(1, self.base_own, base.long())
        return counts.index_add_(1, self.novel_own + self.num_base, novel.long())

    def _novel_hits(self, score: _by_mean | _by_nearest) -> tuple[Tensor, Tensor]:
        joint, disjoint = [], []
        for block in _blocks(self.novel):
            hit, mine = first_best(score(self.novel[block]), self.novel_own[block])
            disjoint.append(hit)
            joint.append(hit & (mine > self.base_best[block]))
        return torch.cat(joint, 1), torch.cat(disjoint, 1)

    def _base_hits(self, score: _by_mean | _by_nearest) -> Tensor:
        hits = [
            self.base_score[block] >= score(self.base[block]).amax(1)
            for block in _blocks(self.base)
        ]
        return torch.cat(hits, 1)

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


def _blocks(queries: Tensor) -> list[slice]:
    """Parts of the queries; one empty part of none."""
    return [slice(i, i + BLOCK) for i in range(0, max(len(queries), 1), BLOCK)]
