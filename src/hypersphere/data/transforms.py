"""Batched pixel transforms: from uint8 images to network input, on whatever device they lie."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

WHITE = torch.tensor(255.0)  # a number would be wrapped anew for each batch


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
        x = images.to(dtype=torch.float32, memory_format=torch.channels_last).div_(WHITE)
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


@dataclass(frozen=True)
class Crops:
    """Where each of b images is cropped, and whether it is mirrored.

    rows, columns: (b,) int64, 0 .. 2 * padding, the first row and column of the crop in the padded
    image (None: no crop); mirrored: (b,) bool (None: no flip).
    """

    rows: Tensor | None
    columns: Tensor | None
    mirrored: Tensor | None

    def part(self, of: slice) -> Crops:
        """Those of some of the images."""
        return Crops(*(None if each is None else each[of] for each in vars(self).values()))


def draw_crops(b: int, padding: int, flip: bool, generator: torch.Generator) -> Crops:
    """Random crops after zero `padding` (pixels) and horizontal flips, each image its own draw,
    made on the CPU from `generator`, so that they do not depend on the device."""
    rows = columns = mirrored = None
    if padding:
        rows, columns = torch.randint(0, 2 * padding + 1, (2, b), generator=generator)
    if flip:
        mirrored = torch.rand(b, generator=generator) < 0.5
    return Crops(rows, columns, mirrored)


def crop_and_flip(images: Tensor, chosen: Tensor, padding: int, crops: Crops) -> Tensor:
    """Crop after zero `padding` (pixels) and mirror, as drawn.

    images: (n, c, h, w) uint8, any device; chosen: (b,) positions among them, same device. Returns
    (b, c, h, w) uint8, channels_last.
    """
    pixels = images.permute(0, 2, 3, 1).contiguous()  # a view: they lie so already
    pixels = pixels.index_select(0, chosen)
    (b, height, width, channels), device = pixels.shape, images.device
    if crops.rows is not None and crops.columns is not None:
        rows, columns = crops.rows.to(device), crops.columns.to(device)
        wide = width + 2 * padding
        padded = pixels.new_zeros((b, height + 2 * padding, wide, channels))
        padded[:, padding:-padding, padding:-padding] = pixels
        # Every row of a crop is one run of bytes of the padded images. A view that holds the run
        # from each byte onwards makes the crop a selection of whole rows: 10 times as fast as
        # indexing pixels.
        flat, run = padded.view(-1), width * channels
        runs = flat.as_strided((flat.numel() - run + 1, run), (1, 1))
        row = torch.arange(b, device=device)[:, None] * padded.shape[1] + rows[:, None]
        row = row + torch.arange(height, device=device)
        start = (row * wide + columns[:, None]) * channels
        pixels = runs.index_select(0, start.flatten()).view(b, height, width, channels)
    if crops.mirrored is not None:
        mirror = _mirror if device.type == "cpu" else mirror_static
        pixels = mirror(pixels, crops.mirrored.to(device))
    return pixels.permute(0, 3, 1, 2)


def _mirror(pixels: Tensor, mirrored: Tensor) -> Tensor:
    """pixels: (b, h, w, c), mirrored: (b,) bool. Turns those alone: on a CPU 5 times as fast."""
    turned = mirrored.nonzero().flatten()
    source = torch.arange(len(pixels))
    source[turned] = len(pixels) + torch.arange(len(turned))
    return torch.cat([pixels, pixels.index_select(0, turned).flip(2)]).index_select(0, source)


def mirror_static(pixels: Tensor, mirrored: Tensor) -> Tensor:
    """The same without a size that depends on the draws, which no CUDA graph could hold."""
    return torch.where(mirrored[:, None, None, None], pixels.flip(2), pixels)
