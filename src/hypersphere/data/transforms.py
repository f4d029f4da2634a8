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
        for name, value in (("mean", mean), ("std", std)):
            statistic = None if value is None else torch.tensor(value)
            self.register_buffer(name, statistic, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        x = images.to(dtype=torch.float32, memory_format=torch.channels_last).div_(255)
        if self.size is not None and self.size != x.shape[-1]:
            x = nn.functional.interpolate(x, size=(self.size, self.size), mode="bilinear")
        if self.mean is not None:
            # As rows of (h w c): adding a vector of that length to each is vectorised, adding
            # one of the few channels to each pixel is not (5 times as slow on a CPU).
            rows = x.permute(0, 2, 3, 1).reshape(len(x), -1)
            repeats = rows.shape[1] // len(self.mean)
            rows.sub_(self.mean.repeat(repeats)).div_(self.std.repeat(repeats))
            x = rows.view(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)
        return x


def crop_and_flip(
    images: Tensor, chosen: Tensor, padding: int, flip: bool, generator: torch.Generator
) -> Tensor:
    """Random crop after zero `padding` (pixels) and horizontal flip, each image its own draw.

    images: (n, c, h, w) uint8, any device; chosen: (b,) positions among them, same device. The
    draws are made on the CPU from `generator`, so that they do not depend on the device. Returns
    (b, c, h, w) uint8, channels_last.
    """
    pixels = images.permute(0, 2, 3, 1).contiguous()  # a view: they lie so already
    pixels = pixels.index_select(0, chosen)
    (b, height, width, channels), device = pixels.shape, images.device
    if padding:
        draws = torch.randint(0, 2 * padding + 1, (2, b), generator=generator).to(device)
        wide = width + 2 * padding
        padded = pixels.new_zeros((b, height + 2 * padding, wide, channels))
        padded[:, padding:-padding, padding:-padding] = pixels
        # Every row of a crop is one run of bytes of the padded images. A view that holds the run
        # from each byte onwards makes the crop a selection of whole rows: 10 times as fast as
        # indexing pixels.
        flat, run = padded.view(-1), width * channels
        runs = flat.as_strided((flat.numel() - run + 1, run), (1, 1))
        row = torch.arange(b, device=device)[:, None] * padded.shape[1] + draws[0][:, None]
        row = row + torch.arange(height, device=device)
        start = (row * wide + draws[1][:, None]) * channels
        pixels = runs.index_select(0, start.flatten()).view(b, height, width, channels)
    if flip:
        turned = (torch.rand(b, generator=generator) < 0.5).nonzero().flatten()
        source = torch.arange(b)
        source[turned] = b + torch.arange(len(turned))
        mirrored = pixels.index_select(0, turned.to(device)).flip(2)
        pixels = torch.cat([pixels, mirrored]).index_select(0, source.to(device))
    return pixels.permute(0, 3, 1, 2)
