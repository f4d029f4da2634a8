"""Densely connected networks for small images (Huang et al. 2017, section 3)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

Positive = Annotated[int, Field(gt=0)]


class DenseNet(nn.Module):
    """DenseNet-BC: a 3x3 convolution with 2 `growth` filters and stride 1, dense blocks with a
    transition between two of them that halves channels and image, batch normalisation, ReLU, global
    average pooling, and a linear layer with bias to `dim`.

    growth: channels that each layer adds; blocks: layers of each dense block; dim: null for the
    pooled features themselves. `growth=32, blocks=[6, 12, 24, 16]` is DenseNet-121, which for small
    images keeps their size up to the first transition (no stride and no pooling before; as in the
    released code of Mettes et al., arXiv 1901.10514). Convolutions have no bias; everything starts
    as torch has it. channels, size: of the input images. Raises ValueError when the transitions
    leave nothing of the image.
    """

    revision = 1

    def __init__(
        self,
        channels: int,
        size: int,
        *,
        growth: Positive,
        blocks: Annotated[list[Positive], Field(min_length=1)],
        dim: Positive | None,
    ) -> None:
        super().__init__()
        if size >> (len(blocks) - 1) == 0:
            raise ValueError(
                f"{len(blocks) - 1} transitions leave nothing of an image of {size} pixels"
            )
        width = 2 * growth
        self.stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.blocks = nn.Sequential()
        for number, layers in enumerate(blocks):
            if number:
                self.blocks.append(Transition(width, width // 2))
                width //= 2
            for _ in range(layers):
                self.blocks.append(DenseLayer(width, growth))
                width += growth
        self.norm = nn.BatchNorm2d(width)
        self.embedding = nn.Identity() if dim is None else nn.Linear(width, dim)
        self.dim = dim or width

    def forward(self, images: Tensor) -> Tensor:
        """images: (n, channels, size, size) -> embeddings (n, dim), not normalised."""
        maps = F.relu(self.norm(self.blocks(self.stem(images))), inplace=True)
        return self.embedding(maps.mean((2, 3)))


class DenseLayer(nn.Module):
    """Appends `growth` channels to its input: BN, ReLU, conv 1x1 to 4 `growth` (the bottleneck),
    BN, ReLU, conv 3x3."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.first_norm = nn.BatchNorm2d(channels)
        self.first = nn.Conv2d(channels, 4 * growth, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(4 * growth)
        self.second = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) -> (n, channels + growth, h, w)."""
        inner = self.first(F.relu(self.first_norm(x), inplace=True))
        inner = self.second(F.relu(self.second_norm(inner), inplace=True))
        return torch.cat([x, inner], 1)


class Transition(nn.Module):
    """BN, ReLU, conv 1x1, 2x2 average pooling."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.convolution = nn.Conv2d(channels, filters, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) -> (n, filters, h / 2, w / 2)."""
        return F.avg_pool2d(self.convolution(F.relu(self.norm(x), inplace=True)), 2)
