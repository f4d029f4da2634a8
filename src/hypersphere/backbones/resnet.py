"""Residual networks for small images (He et al. 2016, section 4.2), with the shortcuts that papers
differ in."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

Positive = Annotated[int, Field(gt=0)]


class CifarResNet(nn.Module):
    """Depth 6 n + 2: a 3x3 convolution, three stages of n basic blocks with `width`, 2 `width` and
    4 `width` filters (each stage but the first halves the image), global average pooling, and a
    linear layer with bias to `dim` (null: none, the 4 `width` pooled features themselves).

    depth: 20, 32, 44, ... shortcut: where a block changes the shape, a `conv3x3` or `conv1x1`
    convolution with batch normalisation. Hyperspherical Prototype Networks' ResNet-32 (arXiv
    1901.10514, released code) has 3x3 ones. Convolutions have no bias and start normal with
    variance 2 / (k k filters); the linear layer as torch has it. channels, size: of the input
    images. Raises ValueError when two halvings leave nothing of the image.
    """

    revision = 1

    def __init__(
        self,
        channels: int,
        size: int,
        *,
        depth: Annotated[int, Field(ge=8)],
        width: Positive,
        dim: Positive | None,
        shortcut: Literal["conv3x3", "conv1x1"],
    ) -> None:
        super().__init__()
        if size < 4:
            raise ValueError(f"two halvings leave nothing of an image of {size} pixels")
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        blocks: list[nn.Module] = []
        before = width
        for stage in range(3):
            filters = width * 2**stage
            for block in range((depth - 2) // 6):
                stride = 2 if stage and not block else 1
                blocks.append(BasicBlock(before, filters, stride, shortcut))
                before = filters
        self.blocks = nn.Sequential(*blocks)
        self.embedding = nn.Identity() if dim is None else nn.Linear(before, dim)
        self.dim = dim or before
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def check_together(*, depth: int, **_: object) -> None:
        if (depth - 2) % 6:
            raise ValueError(f"depth={depth}: needs 6 n + 2 (20, 32, 44, 56, ...)")

    def forward(self, images: Tensor) -> Tensor:
        """images: (n, channels, size, size) -> embeddings (n, dim), not normalised."""
        return self.embedding(self.blocks(self.stem(images)).mean((2, 3)))


class BasicBlock(nn.Module):
    """ReLU(BN(conv 3x3(ReLU(BN(conv 3x3 (x))))) + shortcut(x)); `relu=False` leaves out the outer
    one."""

    def __init__(
        self, channels: int, filters: int, stride: int, shortcut: str, relu: bool = True
    ) -> None:
        super().__init__()
        self.relu = relu
        self.first = nn.Conv2d(channels, filters, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(filters)
        self.second = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(filters)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != filters:
            kernel = 3 if shortcut == "conv3x3" else 1
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, filters, kernel, stride, padding=kernel // 2, bias=False),
                nn.BatchNorm2d(filters),
            )

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) -> (n, filters, h / stride, w / stride)."""
        inner = F.relu(self.first_norm(self.first(x)), inplace=True)
        out = self.second_norm(self.second(inner)) + self.shortcut(x)
        return F.relu(out, inplace=True) if self.relu else out
