"""Images turned by an angle that is a target of its own (Mettes et al. 2019, figure 5)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from hypersphere.seeds import generator

REVISION = 1


def rotate(images: Tensor, split: str, lowest: float, highest: float) -> tuple[Tensor, Tensor]:
    """Turn each image counter-clockwise about its centre by an angle drawn once and for all.

    images: (n, c, h, h) uint8. Returns the images, bilinear with zeros outside, and the angles
    (n,) float32 in degrees, uniform in lowest .. highest, by position in the split.
    """
    draw = generator("rotation", split).uniform(lowest, highest, len(images))
    angles = torch.from_numpy(draw)
    turn = torch.deg2rad(angles)
    zero = torch.zeros_like(turn)
    # affine_grid maps places of the output to places of the input: the inverse turn. With y
    # pointing down, that is a counter-clockwise turn of what one sees.
    rows = [[turn.cos(), -turn.sin(), zero], [turn.sin(), turn.cos(), zero]]
    matrices = torch.stack([torch.stack(row, 1) for row in rows], 1)
    parts = [images[:0]]
    # In float64 the rounding to grey levels does not depend on the machine.
    for some, matrix in zip(images.split(2000), matrices.split(2000), strict=True):
        if not len(some):
            continue
        grid = affine_grid(matrix, list(some.shape), align_corners=False)
        parts.append(grid_sample(some.double(), grid, align_corners=False).round().to(torch.uint8))
    turned = torch.cat(parts)
    return turned.contiguous(memory_format=torch.channels_last), angles.float()


def content(of: str, options: Mapping[str, Any]) -> str:
    """The hash that stands for the turned images: what they are made from, and how."""
    text = json.dumps([of, dict(options), REVISION], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
