"""A placement and its separation in one call, for tables that need no training."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from hypersphere import paths
from hypersphere.data.load import load
from hypersphere.errors import UserError
from hypersphere.heads.base import class_means
from hypersphere.prototypes.fixed import from_file, one_hot, semantic
from hypersphere.prototypes.optimal import optimal
from hypersphere.prototypes.published import published
from hypersphere.prototypes.separation import separation


def measured(
    *,
    kind: Literal["published", "optimal", "one_hot", "file", "class_means"],
    num_classes: Annotated[int, Field(ge=2)],
    dim: Annotated[int, Field(ge=2)],
    seed: Annotated[int, Field(ge=0)] = 0,
    steps: Annotated[int, Field(ge=0)] = 1000,
    file: str = "",
    sha256: str = "",
    data: str = "",
) -> dict[str, float]:
    """Separation (prototypes/separation.py) of `num_classes` prototypes in `dim` dimensions.

    `published` (with `steps`) and `optimal` begin at random from `seed`. `file`: below the data
    folder, with its `sha256`, by which a run knows what it rests on; `data` names what brings it.
    `class_means`: the mean training images of dataset `data` stand for word vectors of its class
    names. Raises UserError for another file than the one meant.
    """
    points = _points(kind, num_classes, dim, seed, steps, file, sha256, data)
    found = separation(points)
    numbers = {name: value for name, value in asdict(found).items() if name != "known"}
    return {**numbers, "gap": found.gap}


def _points(
    kind: str, num_classes: int, dim: int, seed: int, steps: int, file: str, sha256: str, data: str
) -> Tensor:
    if kind == "published":
        return published(num_classes, dim, steps=steps, seed=seed)
    if kind == "optimal":
        return optimal(num_classes, dim, seed=seed)
    if kind == "one_hot":
        return one_hot(num_classes, dim)
    if kind == "class_means":
        images = load(data)
        pixels, labels = images.train_images.flatten(1).float(), images.train_labels
        return semantic(class_means(pixels, labels, labels.unique()), dim)
    path = paths.data_dir() / file
    points = from_file(path, num_classes, dim)
    if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise UserError(f"{path}: is not the file of this run (sha256 {sha256[:12]}...)")
    return points
