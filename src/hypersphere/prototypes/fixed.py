"""Prototypes that need no search: one-hot vectors, a raster, word vectors, a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hypersphere.data.semantics import project
from hypersphere.errors import UserError
from hypersphere.prototypes.optimal import check_size


def one_hot(num_classes: int, dim: int) -> Tensor:
    """(num_classes, dim) unit vectors along the axes, all at 90 degrees. Raises ValueError when
    there are fewer dimensions than classes."""
    check_size(num_classes, dim)
    if dim < num_classes:
        raise ValueError(f"one-hot vectors of {num_classes} classes need as many dimensions")
    return torch.eye(num_classes, dim)


def raster(num_classes: int, dim: int) -> Tensor:
    """Points (num_classes, 2) in rows of five with spacing 1, their middle at the origin; not of
    unit length. Raises ValueError for another number of dimensions than two."""
    if dim != 2:
        raise ValueError(f"targets=raster is for two dimensions, not {dim}; choose targets=sphere")
    number = torch.arange(num_classes)
    points = torch.stack([number % 5, number // 5], 1).float()
    return points - (points.amax(0) + points.amin(0)) / 2


def semantic(vectors: Tensor | np.ndarray, dim: int) -> Tensor:
    """(num_classes, dim) of unit length from word vectors (num_classes, d) of the class names, by
    centred PCA: the word2vec prototypes of Mettes et al. 2019, section 4.1. Raises ValueError for
    more dimensions than the vectors have or classes there are."""
    return torch.from_numpy(project(torch.as_tensor(vectors).detach().cpu().numpy(), dim))


def from_file(path: str | Path, num_classes: int, dim: int) -> Tensor:
    """(num_classes, dim) of unit length from a `.npy` file in label order, such as the prototypes
    released with Mettes et al. 2019 (whose word vectors are not of unit length: their directions
    count). Raises UserError naming the file for one that is missing, damaged, of another shape, or
    has a point at the origin."""
    path = Path(path).expanduser()
    try:
        points = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: no prototypes can be read from it ({why})") from None
    if points.shape != (num_classes, dim):
        raise UserError(
            f"{path}: has shape {points.shape}, {num_classes} classes in {dim} dimensions need"
            f" {(num_classes, dim)}"
        )
    points = torch.from_numpy(points.astype(np.float64))
    if not (torch.isfinite(points).all() and (points.norm(dim=1) > 0).all()):
        raise UserError(f"{path}: a prototype is at the origin, or not a number")
    return F.normalize(points, dim=1).float()
