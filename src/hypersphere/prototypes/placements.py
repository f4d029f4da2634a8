"""Placements by name, for configurations: heads that are trained towards prototypes, and tables
that measure them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from hypersphere import paths
from hypersphere.errors import UserError
from hypersphere.prototypes.fixed import from_file, one_hot, semantic
from hypersphere.prototypes.optimal import optimal
from hypersphere.prototypes.privileged import order_kept, privileged
from hypersphere.prototypes.published import published
from hypersphere.prototypes.separation import separation

Kind = Literal["published", "optimal", "one_hot", "file", "semantic", "privileged"]
Count = Annotated[int, Field(ge=0)]
# In a run's identity the hash stands for the file, wherever it lies.
TOLD_BY = {"sha256": ("file", "data")}
# What a head is given whose points will be loaded: no search, no file.
UNPLACED: dict[str, Any] = {
    "placement": "published", "placement_seed": 0, "steps": 0, "file": "", "sha256": "", "data": "",
}  # fmt: skip


def place(
    kind: Kind,
    num_classes: int,
    dim: int,
    *,
    seed: int = 0,
    steps: int = 1000,
    falls: Sequence[int] = (),
    file: str = "",
    sha256: str = "",
    data: str = "",
    weight: float = 1.0,
) -> Tensor:
    """Prototypes (num_classes, dim) of unit length.

    `published` and `privileged` take `steps` from the random points number `seed`, `optimal` begins
    there too; falls: of the rate of `published`. `file` (of prototypes), `semantic` and
    `privileged` (of word vectors) read the `.npy` file of that name below the data folder, whose
    `sha256` must be the one given: by it a run knows what it rests on. Without a file the mean
    training images of dataset `data` stand for word vectors. weight: of the order in `privileged`.
    Raises UserError for another file than the one meant, ValueError for a size that the placement
    cannot have.
    """
    if kind == "published":
        return published(num_classes, dim, steps=steps, falls=falls, seed=seed)
    if kind == "optimal":
        return optimal(num_classes, dim, seed=seed)
    if kind == "one_hot":
        return one_hot(num_classes, dim)
    path = paths.data_dir() / file
    if kind == "file":
        points = from_file(path, num_classes, dim)
        _check_content(path, sha256)
        return points
    vectors = _words(file, sha256, data, num_classes)
    if kind == "semantic":
        return semantic(vectors, dim)
    return privileged(vectors, dim, steps=steps, seed=seed, weight=weight)


def measured(
    *,
    kind: Kind,
    num_classes: Annotated[int, Field(ge=2)],
    dim: Annotated[int, Field(ge=2)],
    seed: Count = 0,
    steps: Count = 1000,
    falls: list[Count] = [],  # noqa: B006  (its neutral value; nobody changes it)
    file: str = "",
    sha256: str = "",
    data: str = "",
    weight: float = 1.0,
    words: str = "",
    words_sha256: str = "",
    words_data: str = "",
) -> dict[str, float]:
    """Separation (prototypes/separation.py) of a placement (see `place`), for tables that need no
    training. data: also the name of what brings the file. words, words_sha256, words_data: word
    vectors as `place` takes them, of which `order` tells how well their order is kept."""
    points = place(
        kind, num_classes, dim, seed=seed, steps=steps, falls=falls, file=file, sha256=sha256,
        data=data, weight=weight,
    )  # fmt: skip
    found = separation(points)
    numbers = {name: value for name, value in asdict(found).items() if name != "known"}
    if words or words_data:
        vectors = _words(words, words_sha256, words_data, num_classes)
        numbers["order"] = order_kept(points, vectors)
    return {**numbers, "gap": found.gap}


measured.told_by = TOLD_BY | {"words_sha256": ("words", "words_data")}  # type: ignore[attr-defined]


def _words(file: str, sha256: str, data: str, num_classes: int) -> Tensor:
    """Word vectors (num_classes, d), or what stands for them."""
    if not file:
        return _mean_images(data)
    return _vectors(paths.data_dir() / file, sha256, num_classes)


def _mean_images(data: str) -> Tensor:
    from hypersphere.data.load import load
    from hypersphere.heads.base import class_means

    images = load(data)
    pixels, labels = images.train_images.flatten(1).float(), images.train_labels
    return class_means(pixels, labels, labels.unique())


def _vectors(path: Path, sha256: str, num_classes: int) -> Tensor:
    """Word vectors as they are: their dimensions are the file's own."""
    from hypersphere.data.semantics import read_vectors

    found = read_vectors(path, [str(label) for label in range(num_classes)])
    _check_content(path, sha256)
    return torch.from_numpy(found.vectors)


def _check_content(path: Path, sha256: str) -> None:
    if (found := hashlib.sha256(path.read_bytes()).hexdigest()) != sha256:
        why = f"whose sha256 is {sha256[:12]}..." if sha256 else f"which must state sha256: {found}"
        raise UserError(f"{path}: is not the file of this run ({why})")
