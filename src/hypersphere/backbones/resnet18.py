"""Wide residual stages for small images: ResNet-18 and its pre-activation form as they are usually
trained on CIFAR, with features that keep some place."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from hypersphere.backbones.resnet import BasicBlock

Positive = Annotated[int, Field(gt=0)]
Filters = Annotated[list[Positive], Field(min_length=1)]


class _Stages(nn.Module):
    """A 3x3 stem of stride 1, one stage of `blocks` blocks per entry of `filters` (each stage but
    the first halves the image), average pooling of `pool` x `pool` pixels, flattened.

    Convolutions have no bias; everything starts as torch has it. channels, size: of the input
    images. Raises ValueError when the stages leave less of the image than is pooled.
    """

    revision = 1

    def __init__(
        self, channels: int, size: int, filters: list[int], blocks: int, pool: int
    ) -> None:
        super().__init__()
        side = size
        for _ in filters[1:]:
            side = (side + 1) // 2
        if side < pool:
            raise ValueError(
                f"{len(filters) - 1} halvings leave {side} of {size} pixels, less than pool={pool}"
            )
        self.pool, self.dim = pool, filters[-1] * (side // pool) ** 2
        self.stem = nn.Conv2d(channels, filters[0], 3, padding=1, bias=False)
        self.blocks = nn.Sequential()
        before = filters[0]
        for stage, width in enumerate(filters):
            for block in range(blocks):
                last = stage == len(filters) - 1 and block == blocks - 1
                self.blocks.append(self._block(before, width, 1 if block or not stage else 2, last))
                before = width

    def _block(self, channels: int, filters: int, stride: int, last: bool) -> nn.Module:
        raise NotImplementedError

    def _pooled(self, maps: Tensor) -> Tensor:
        # In float32 under autocast too: cosines are taken of these features.
        return F.avg_pool2d(maps.float(), self.pool).flatten(1)


class ResNet18(_Stages):
    """ResNet-18 (He et al. 2016a) for small images: `filters=[64, 128, 256, 512]`, two blocks each,
    `pool=4` give 512 features of 32 pixels, 2048 of 64 and 4608 of 96 (released code of arXiv
    2011.08704). Shortcuts are 1x1 convolutions with batch normalisation where the shape changes.

    last_relu: false leaves out the ReLU of the last block, so that features may be negative.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        *,
        filters: Filters,
        blocks: Positive,
        pool: Positive,
        last_relu: bool = True,
    ) -> None:
        self.last_relu = last_relu
        super().__init__(channels, size, filters, blocks, pool)
        self.norm = nn.BatchNorm2d(filters[0])

    def _block(self, channels: int, filters: int, stride: int, last: bool) -> nn.Module:
        return BasicBlock(channels, filters, stride, "conv1x1", self.last_relu or not last)

    def forward(self, images: Tensor) -> Tensor:
        """images: (n, channels, size, size) -> features (n, dim), not normalised."""
        maps = F.relu(self.norm(self.stem(images)), inplace=True)
        return self._pooled(self.blocks(maps))


class PreActResNet18(_Stages):
    """ResNet-18 with normalisation and ReLU before each convolution (He et al. 2016b), of the same
    sizes. Nothing follows the last block: no batch normalisation, no ReLU."""

    def __init__(
        self, channels: int, size: int, *, filters: Filters, blocks: Positive, pool: Positive
    ) -> None:
        super().__init__(channels, size, filters, blocks, pool)

    def _block(self, channels: int, filters: int, stride: int, last: bool) -> nn.Module:
        return PreActBlock(channels, filters, stride)

    def forward(self, images: Tensor) -> Tensor:
        """images: (n, channels, size, size) -> features (n, dim), not normalised."""
        return self._pooled(self.blocks(self.stem(images)))


class PreActBlock(nn.Module):
    """conv 3x3(ReLU(BN(conv 3x3(a)))) + shortcut with a = ReLU(BN(x)); the shortcut is x itself, or
    where the shape changes a 1x1 convolution of a."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.first_norm = nn.BatchNorm2d(channels)
        self.first = nn.Conv2d(channels, filters, 3, stride, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(filters)
        self.second = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        changes = stride != 1 or channels != filters
        self.shortcut = nn.Conv2d(channels, filters, 1, stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) -> (n, filters, h / stride, w / stride)."""
        active = F.relu(self.first_norm(x), inplace=True)
        inner = self.second(F.relu(self.second_norm(self.first(active)), inplace=True))
        return inner + (x if self.shortcut is None else self.shortcut(active))
