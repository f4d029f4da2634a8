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
    as_tensor,
    check_classes,
    labelled,
    numbers,
    parts,
    unit,
)
from hypersphere.evaluation.fewshot.queries import Queries
from hypersphere.evaluation.fewshot.scores import Draws, by_mean, by_nearest, by_vectors

VECTORS = 2**24  # numbers of class vectors held at once: 64 MiB


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
    shots: Sequence[int] | int = (1, 2, 5, 10, 20),
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
    of a trained classifier; without them means of the base classes' unit embeddings (with them and
    `test` these classes need none). rule: of
    novel classes, the `mean` of the unit embeddings of the examples, or the `nearest` example.
    or_fewer: a novel class with fewer examples gives all it has.

    Draws are nested, 1 shot inside 5, and depend on labels, `seed` and class alone, so methods and
    networks share them. All is float32 (bfloat16 moves accuracies by up to .004); memory grows with
    n and with the vectors of one draw, not with queries, and with draws by the positions of their
    examples alone. Of equal scores the first class wins, base before novel.

    Raises ValueError naming what does not fit: shapes, values, classes, too few examples.
    """
    given = labelled(embeddings, labels)
    base, novel = list(base), list(novel)
    classes = [*base, *novel]
    if not novel:
        raise ValueError("novel: names no class")
    check_classes(classes, given.labels, "base and novel")
    shots = numbers(shots, "shots")
    if draws < 1:
        raise ValueError(f"draws={draws}: needs at least 1")
    if rule not in ("mean", "nearest"):
        raise ValueError(f"rule={rule!r}: mean or nearest")
    learned = novel if base_vectors is not None else classes
    examples, queries, where, own = parts(
        given, classes, learned, test, test_labels, test_share, seed
    )
    vectors = class_vectors(examples.points, where, len(base), base_vectors)
    task = Queries(queries.points, torch.from_numpy(own), vectors, len(novel))
    members = _members(where, classes, len(base))
    if not or_fewer:
        check_examples(members, novel, max(shots))
    chosen = torch.stack([_chosen(members, novel, max(shots), seed, i) for i in range(draws)])
    scores = by_mean if rule == "mean" else by_nearest
    hits = torch.cat([
        task.hits(scores(examples.points, some, shots))
        for some in chosen.split(_at_once(rule, len(novel), shots, examples.points.shape[1]))
    ])  # fmt: skip
    found = hits.permute(1, 2, 0, 3).double()
    taken = torch.where(chosen < 0, chosen, examples.rows[chosen])
    recalls = dict(zip(("joint", "disjoint"), (found / task.counts).numpy(), strict=True))
    return FewShot(tuple(shots), task.accuracies(found), recalls, taken.numpy())


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
    learned = [] if base_vectors is not None else list(base)
    examples, queries, where, own = parts(given, classes, learned, test, test_labels, 0.5, 0)
    vectors = class_vectors(examples.points, where, len(base), base_vectors)
    task = Queries(queries.points, torch.from_numpy(own), vectors, len(novel))
    sets = by_vectors(F.normalize(novel_vectors.float(), dim=2))
    (hits,) = task.hits(Draws(len(novel_vectors), [sets]))
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


def _at_once(rule: str, novel: int, shots: Sequence[int], dim: int) -> int:
    """Draws whose class vectors are held at once, at least one."""
    each = novel * dim * (2 * len(shots) if rule == "mean" else max(shots))
    return max(VECTORS // each, 1)
