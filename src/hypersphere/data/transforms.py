"""Batched pixel transforms: from uint8 images to network input, on whatever device they lie."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ToInput(nn.Module):
    """uint8 (n, c, h, w) -> float32 (n, c, size, size), channels_last.

    Pixels are scaled to [0, 1]; then enlarged to `size` (bilinear) and normalised by channel
    `mean` and `std` where those are given.
    """

    def __init__(
        self,
        size: int | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__()
        self.size = size
        shape = (1, -1, 1, 1)
        statistics = (None if v is None else torch.tensor(v).view(shape) for v in (mean, std))
        for name, value in zip(("mean", "std"), statistics, strict=True):
            self.register_buffer(name, value, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        x = images.to(dtype=torch.float32, memory_format=torch.channels_last).div_(255)
        if self.size is not None and self.size != x.shape[-1]:
            x = nn.functional.interpolate(x, size=(self.size, self.size), mode="bilinear")
        if self.mean is not None:
            x = x.sub_(self.mean).div_(self.std)
        return x


def crop_and_flip(images: Tensor, padding: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Random crop after zero `padding` (pixels) and horizontal flip, each image its own draw.

    images: (n, c, h, w) uint8, any device; the draws are made on the CPU from `generator`, so
    that they do not depend on the device. Returns the same shape.
    """
    n, _, height, width = images.shape
    if padding:
        top, left = torch.randint(0, 2 * padding + 1, (2, n), generator=generator)
        rows = (top[:, None] + torch.arange(height)).to(images.device)
        columns = (left[:, None] + torch.arange(width)).to(images.device)
        padded = nn.functional.pad(images, (padding,) * 4)
        index = torch.arange(n, device=images.device)[:, None, None]
        images = padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]]
        images = images.permute(0, 3, 1, 2)
    if flip:
        chosen = (torch.rand(n, generator=generator) < 0.5).to(images.device)
        images = torch.where(chosen[:, None, None, None], images.flip(3), images)
    return images
