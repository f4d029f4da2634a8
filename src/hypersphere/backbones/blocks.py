"""Small convolutional networks: a stack of equal blocks, each halving the image, then one linear
layer without activation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

Positive = Annotated[int, Field(gt=0)]
Pair = Annotated[list[Positive], Field(min_length=2, max_length=2)]


class _Stack(nn.Module):
    """Blocks of the paper's ablation (appendix B.1 of arXiv 2102.03243), then flatten and a linear
    embedding.

    The paper leaves open: 'same' padding, ReLU, no batch normalisation (none is mentioned), the
    embedding of `dim`, and Keras' default initialisation (Glorot uniform, zero bias), since its
    experiments ran in Keras.

    channels, size: of the input images. Raises ValueError when the image is too small for the
    number of blocks.
    """

    revision = 1

    def __init__(self, channels: int, size: int, blocks: list[list[nn.Module]], dim: int) -> None:
        super().__init__()
        side = size >> len(blocks)
        if side == 0:
            raise ValueError(f"{len(blocks)} blocks halve an image of {size} pixels to nothing")
        self.blocks = nn.Sequential(*[layer for block in blocks for layer in block])
        self.embedding = nn.Linear(channels * side * side, dim)
        self.dim = dim
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """images: (n, channels, size, size) -> embeddings (n, dim), not normalised."""
        return self.embedding(self.blocks(images).flatten(1))


class VGG(_Stack):
    """VGG blocks: two 3x3 convolutions and a 2x2 max-pooling each.

    filters: of each block, one number for both convolutions or a pair of them.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        *,
        filters: Annotated[list[Positive | Pair], Field(min_length=1)],
        dim: Positive,
    ) -> None:
        blocks: list[list[nn.Module]] = []
        for width in filters:
            first, second = width if isinstance(width, list) else (width, width)
            blocks.append(
                [
                    nn.Conv2d(channels, first, 3, padding=1),
                    nn.ReLU(inplace=True),
                    nn.Conv2d(first, second, 3, padding=1),
                    nn.ReLU(inplace=True),
                    nn.MaxPool2d(2),
                ]
            )
            channels = second
        super().__init__(channels, size, blocks, dim)


class _OneModule(_Stack):
    """A module and a 2x2 max-pooling per entry of `filters`.

    The pooling is ours: without it the three kinds of blocks would not have equal depth.
    """

    module: Callable[[int, int], nn.Module]

    def __init__(
        self,
        channels: int,
        size: int,
        *,
        filters: Annotated[list[Positive], Field(min_length=1)],
        dim: Positive,
    ) -> None:
        widths = zip([channels, *filters], filters, strict=False)
        blocks = [[self.module(before, width), nn.MaxPool2d(2)] for before, width in widths]
        super().__init__(filters[-1], size, blocks, dim)


class Inception(nn.Module):
    """GoogLeNet's module with `width` filters in all, in the proportions of its module 3a:
    1/4 of 1x1, 1/2 of 3x3 after 3/8 of 1x1, 1/8 of 5x5 after 1/16 of 1x1, 1/8 after max-pooling.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(channels, width // 4, 1)
        self.reduce_three = nn.Conv2d(channels, 3 * width // 8, 1)
        self.three = nn.Conv2d(3 * width // 8, width // 2, 3, padding=1)
        self.reduce_five = nn.Conv2d(channels, width // 16, 1)
        self.five = nn.Conv2d(width // 16, width // 8, 5, padding=2)
        self.pooled = nn.Conv2d(channels, width // 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) -> (n, width, h, w)."""
        branches = (
            self.one(x),
            self.three(F.relu(self.reduce_three(x))),
            self.five(F.relu(self.reduce_five(x))),
            self.pooled(F.max_pool2d(x, 3, stride=1, padding=1)),
        )
        return F.relu(torch.cat(branches, 1))


class Residual(nn.Module):
    """ReLU(conv 3x3 (x) + shortcut(x)); the shortcut is the identity where channels stay equal."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.three = nn.Conv2d(channels, width, 3, padding=1)
        self.shortcut = nn.Conv2d(channels, width, 1) if channels != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) -> (n, width, h, w)."""
        return F.relu(self.three(x) + self.shortcut(x))


class InceptionBlocks(_OneModule):
    """One GoogLeNet module and a 2x2 max-pooling per entry of `filters` (multiples of 16)."""

    module = Inception

    @staticmethod
    def check_together(*, filters: list[int], **_: object) -> None:
        if uneven := [width for width in filters if width % 16]:
            raise ValueError(f"filters {uneven} are no multiples of 16, by which branches divide")


class ResidualBlocks(_OneModule):
    """One 3x3 convolution with a residual connection and a 2x2 max-pooling per entry of
    `filters`."""

    module = Residual


class MLP(nn.Module):
    """Fully connected layers with ReLU on the flattened image, then a linear embedding.

    Initialised as Keras does (Glorot uniform, zero bias). channels, size: of the input images.
    """

    revision = 1

    def __init__(
        self,
        channels: int,
        size: int,
        *,
        hidden: Annotated[list[Positive], Field(min_length=1)],
        dim: Positive,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        width = channels * size * size
        for out in hidden:
            layers += [nn.Linear(width, out), nn.ReLU(inplace=True)]
            width = out
        self.layers = nn.Sequential(*layers, nn.Linear(width, dim))
        self.dim = dim
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """images: (n, channels, size, size) -> embeddings (n, dim), not normalised."""
        return self.layers(images)
