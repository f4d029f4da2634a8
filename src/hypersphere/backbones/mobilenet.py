"""Networks of inverted residuals for small images (Sandler et al. 2018)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from hypersphere.backbones.depthwise import Depthwise

Positive = Annotated[int, Field(gt=0)]
Stage = Annotated[list[Positive], Field(min_length=4, max_length=4)]


class MobileNetV2(nn.Module):
    """MobileNetV2 for small images: a 3x3 convolution of stride 1 with `stem` filters, stages of
    inverted residuals, a 1x1 convolution to `features`, each with batch normalisation and ReLU,
    average pooling of `pool` x `pool` pixels, flattened.

    stages: expansion, filters, blocks and stride of the first block, of each stage. As it is
    usually trained on CIFAR (conf/backbone/cifar_mobilenet_v2.yaml) stem and second stage keep the
    image's size, ReLU has no bound of 6, and a block of stride 1 that changes the width has a
    shortcut all the same. Convolutions have no bias; everything starts as torch has it. channels,
    size: of the input images. Raises ValueError when the stages leave less of the image than is
    pooled.
    """

    revision = 1

    def __init__(
        self,
        channels: int,
        size: int,
        *,
        stem: Positive,
        stages: Annotated[list[Stage], Field(min_length=1)],
        features: Positive,
        pool: Positive,
    ) -> None:
        super().__init__()
        self.stem = _normalised(channels, stem, 3)
        self.blocks = nn.Sequential()
        before, side = stem, size
        for expansion, filters, blocks, stride in stages:
            for block in range(blocks):
                step = 1 if block else stride
                self.blocks.append(InvertedResidual(before, filters, expansion, step))
                before, side = filters, -(-side // step)
        if side < pool:
            raise ValueError(f"the stages leave {side} of {size} pixels, less than pool={pool}")
        self.last = _normalised(before, features, 1)
        self.pool, self.dim = pool, features * (side // pool) ** 2

    def forward(self, images: Tensor) -> Tensor:
        """images: (n, channels, size, size) -> features (n, dim), not negative, not normalised."""
        maps = self.blocks(F.relu(self.stem(images), inplace=True))
        maps = F.relu(self.last(maps), inplace=True)
        # In float32 under autocast too: cosines are taken of these features.
        return F.avg_pool2d(maps.float(), self.pool).flatten(1)


class InvertedResidual(nn.Module):
    """ReLU(BN(1x1 to `expansion` times the channels)), ReLU(BN(3x3 of each channel)), BN(1x1), plus
    the shortcut where the stride is 1."""

    def __init__(self, channels: int, filters: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = expansion * channels
        self.expand = _normalised(channels, inner, 1)
        self.depthwise = nn.Sequential(Depthwise(inner, 3, stride, 1), nn.BatchNorm2d(inner))
        self.project = _normalised(inner, filters, 1)
        self.shortcut: nn.Module | None = None
        if stride == 1:
            same = channels == filters
            self.shortcut = nn.Identity() if same else _normalised(channels, filters, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) -> (n, filters, h / stride, w / stride)."""
        inner = F.relu(self.expand(x), inplace=True)
        out = self.project(F.relu(self.depthwise(inner), inplace=True))
        return out if self.shortcut is None else out + self.shortcut(x)


def _normalised(channels: int, filters: int, kernel: int) -> nn.Sequential:
    """A convolution without bias that keeps the image's size, and its batch normalisation."""
    convolution = nn.Conv2d(channels, filters, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(filters))
