"""What every measure asks of its input, with one message for each thing that can be wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional as F

from hypersphere.data.splits import holdout

BLOCK = 1024  # queries per matrix product: their scores stay in the processor's cache


@dataclass(frozen=True)
class Labelled:
    """Unit embeddings (n, dim) float32, their labels (n,), integers or texts, and their rows (n,)
    in what was given."""

    points: Tensor
    labels: np.ndarray
    rows: Tensor

    def take(self, chosen: np.ndarray) -> Labelled:
        """The rows at some positions, or where a mask is true."""
        index = torch.from_numpy(chosen)
        return Labelled(self.points[index], self.labels[chosen], self.rows[index])


def labelled(
    embeddings: ArrayLike | Tensor, labels: ArrayLike | Tensor, name: str = "embeddings"
) -> Labelled:
    """Check embeddings (n, dim) and labels (n,), and scale every embedding to unit length.

    Raises ValueError for other shapes, unequal lengths, labels that are neither integers nor texts,
    values that are not finite, and an embedding of length 0, which has no direction.
    """
    kind = "labels" if name == "embeddings" else f"{name}_labels"
    z = as_tensor(embeddings, name)
    y = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    if y.dtype.kind == "O" and all(isinstance(label, str) for label in y.flat):
        y = y.astype(str)  # a column of pandas
    if y.ndim != 1 or y.dtype.kind not in "iuUT":
        raise ValueError(
            f"{kind}: needs one integer or text per embedding, got {y.dtype} of shape {y.shape}"
        )
    if len(y) != len(z):
        raise ValueError(f"{kind}: {len(y)} of them for {len(z)} {name}")
    y = y.astype(np.int64) if y.dtype.kind in "iu" else y
    return Labelled(unit(z, name), y, torch.arange(len(y)))


def as_tensor(values: ArrayLike | Tensor, name: str) -> Tensor:
    """float32 (n, dim) with n, dim >= 1. Raises ValueError for anything else."""
    if isinstance(values, Tensor):
        z = values.detach().cpu()
    else:
        array = np.asarray(values)
        if array.dtype.kind not in "fiu":
            raise ValueError(f"{name}: needs numbers, got {array.dtype}")
        z = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    if z.ndim != 2 or 0 in z.shape:
        raise ValueError(f"{name}: needs shape (n, dim), got {tuple(z.shape)}")
    return z.float()


def unit(z: Tensor, name: str) -> Tensor:
    """Rows of unit length. Raises ValueError naming the first that is not finite, or 0."""
    largest = z.abs().amax(1, keepdim=True)  # shows what is wrong in one pass over all
    for wrong, why in (
        (~torch.isfinite(largest), "is not finite"),
        (largest == 0, "is all 0 and has no direction"),
    ):
        if bool(wrong.any()):
            first = int(wrong.nonzero()[0, 0])
            raise ValueError(f"{name}: row {first} {why} ({int(wrong.sum())} such rows)")
    # Divided by the largest value first: squares of tiny or huge numbers leave float32.
    return F.normalize(z / largest, dim=1)


def positions(labels: np.ndarray, classes: Sequence[Any]) -> np.ndarray:
    """Position (n,) of each label in `classes`, -1 for those of no such class."""
    order = np.argsort(np.asarray(classes), kind="stable")
    sorted_classes = np.asarray(classes)[order]
    found = np.searchsorted(sorted_classes, labels).clip(max=len(classes) - 1)
    return np.where(sorted_classes[found] == labels, order[found], -1)


def check_classes(classes: Sequence[Any], labels: np.ndarray, name: str) -> None:
    """Raises ValueError when a class is named twice, or has another type than the labels."""
    listed = np.asarray(classes)
    if len(np.unique(listed)) != len(listed):
        raise ValueError(f"{name}: a class is named twice")
    if (listed.dtype.kind in "iu") != (labels.dtype.kind in "iu"):
        raise ValueError(f"{name}: classes are {listed.dtype}, the labels {labels.dtype}")


def parts(
    given: Labelled,
    classes: Sequence[Any],
    learned: Sequence[Any],
    test: ArrayLike | Tensor | None,
    test_labels: ArrayLike | Tensor | None,
    test_share: float,
    seed: int,
) -> tuple[Labelled, Labelled, np.ndarray, np.ndarray]:
    """Examples, queries, and the positions of their labels in `classes`; others are left out.

    learned: those of the classes that need an example. Without `test`, `test_share` of each class's
    embeddings, drawn by `seed`, are the queries. Raises ValueError when test embeddings and labels
    do not come together, differ in dimensions, or a class has no query, or no example it needs.
    """
    if (test is None) != (test_labels is None):
        raise ValueError("test and test_labels: both or neither")
    given, where = _of_classes(given, classes)
    _every_class(where, classes, learned if test is not None else classes, "embedding")
    if test is not None and test_labels is not None:
        queries = labelled(test, test_labels, "test")
        if queries.points.shape[1] != given.points.shape[1]:
            raise ValueError(
                f"test: {queries.points.shape[1]} dimensions, the embeddings have"
                f" {given.points.shape[1]}"
            )
        queries, own = _of_classes(queries, classes)
    else:
        if not 0 < test_share < 1:
            raise ValueError(f"test_share={test_share}: must lie between 0 and 1")
        held = holdout(given.labels, test_share, seed)
        queries, own = given.take(held), where[held]
        given, where = given.take(~held), where[~held]
    _every_class(own, classes, classes, "test embedding")
    return given, queries, where, own


def _of_classes(given: Labelled, classes: Sequence[Any]) -> tuple[Labelled, np.ndarray]:
    """Those of the classes, and the positions of their labels in `classes`."""
    where = positions(given.labels, classes)
    kept = where >= 0
    return (given, where) if kept.all() else (given.take(kept), where[kept])


def numbers(given: Sequence[int] | int, name: str) -> list[int]:
    """Rising whole numbers from 1 up; one may come alone. Raises ValueError for anything else."""
    found = np.atleast_1d(np.asarray(given))
    if found.ndim != 1 or found.dtype.kind not in "iu" or not len(found):
        raise ValueError(f"{name}={given!r}: needs whole numbers")
    listed = found.tolist()
    if listed[0] < 1 or listed != sorted(set(listed)):
        raise ValueError(f"{name}={listed}: needs rising numbers from 1 up")
    return listed


def _every_class(
    where: np.ndarray, classes: Sequence[Any], wanted: Sequence[Any], what: str
) -> None:
    there, asked = np.bincount(where, minlength=len(classes)) > 0, set(wanted)
    missing = [i for i in np.flatnonzero(~there) if classes[i] in asked]
    if len(missing):
        names = ", ".join(str(classes[i]) for i in missing[:5])
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise ValueError(f"no {what} of class {names}{more}")
