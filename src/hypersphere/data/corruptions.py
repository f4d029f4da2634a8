"""Corrupted test images: impulse noise, JPEG compression and defocus blur at severities 1 to 5.

The definitions are those of Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to
Common Corruptions and Perturbations" (ICLR 2019, arXiv:1903.12261, section 4.1), with the
constants of the three scripts its authors released. They are written anew here because of the
packages that carry them, imgaug fails with today's NumPy and imagecorruptions works only in part.

Two habits of the released code are kept on purpose, since they change the pixels: grey levels are
cut off, not rounded, after a blur; and the disks of radius 8 and 10 weigh 1.3 % and 1.1 % too
much, because they touch the edge of the grid on which they are smoothed (so these two blurs also
brighten).
"""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from typing import NamedTuple

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from hypersphere.errors import did_you_mean
from hypersphere.seeds import generator

KINDS = ("impulse_noise", "salt_and_pepper", "jpeg_compression", "defocus_blur")


class Constants(NamedTuple):
    """One value per severity, 1 to 5."""

    amount: tuple[float, ...]  # probability that a value (or a pixel) is hit by the noise
    quality: tuple[int, ...]  # JPEG quality, 1 to 95
    disk: tuple[tuple[float, float], ...]  # radius and smoothing sigma of the blur, both in pixels


# Source: github.com/hendrycks/robustness, folder ImageNet-C/create_c, the file named on each line.
STRENGTHS = {
    "imagenet": Constants(  # make_imagenet_c.py; also what imgaug's imgcorruptlike uses
        amount=(0.03, 0.06, 0.09, 0.17, 0.27),
        quality=(25, 18, 15, 10, 7),
        disk=((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    ),
    "tiny_imagenet": Constants(  # make_tinyimagenet_c.py
        amount=(0.01, 0.02, 0.05, 0.08, 0.14),
        quality=(65, 58, 50, 40, 25),
        disk=((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
    ),
    "cifar": Constants(  # make_cifar_c.py
        amount=(0.01, 0.02, 0.03, 0.05, 0.07),
        quality=(80, 65, 58, 50, 40),
        disk=((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    ),
}

# Values (of float64) blurred at once: 32 MiB, so that memory does not grow with the dataset.
BLOCK = 2**22


def corrupt(
    images: Tensor,
    *,
    kind: str,
    severity: int,
    strength: str,
    seed: int,
    index: Tensor | None = None,
) -> Tensor:
    """A corrupted copy of `images`, (n, c, h, w) uint8 on the CPU with c = 1 or 3.

    kind: `impulse_noise` (each channel of a pixel hit on its own, as in the released code),
    `salt_and_pepper` (the same amount, but whole pixels turn white or black: what the heading
    of the fixed-vectors paper's corruption table calls it), `jpeg_compression`, `defocus_blur`.
    severity: 1 to 5. strength: `imagenet`, `tiny_imagenet` or `cifar`, the table of constants.

    Only the noises are random: each image has a draw of its own from `kind`, `seed` and its
    position in the full dataset (`index`, n integers; 0 to n - 1 where not given), so that a
    subset, or the images in other chunks, get the same pixels. The draw knows neither severity
    nor strength: what a smaller amount hits, a larger one hits too, with the same value.

    Raises ValueError for an unknown word or severity and for images or an index of wrong form.
    """
    _check_word("kind", kind, KINDS)
    _check_word("strength", strength, STRENGTHS)
    if not isinstance(severity, int) or not 1 <= severity <= 5:
        raise ValueError(f"severity={severity!r} is not an integer from 1 to 5")
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        form = f"{images.dtype} {tuple(images.shape)}"
        raise ValueError(f"images must be uint8 (n, 1 or 3, height, width), not {form}")
    if images.device.type != "cpu":
        raise ValueError(f"images must lie on the CPU, not on {images.device}")
    n = len(images)
    index = torch.arange(n) if index is None else index
    if index.shape != (n,) or index.is_floating_point() or index.dtype == torch.bool:
        raise ValueError(f"index must be {n} integers, not {index.dtype} {tuple(index.shape)}")
    if not images.numel():
        return images.clone()
    amount, quality, disk = (values[severity - 1] for values in STRENGTHS[strength])
    if kind == "jpeg_compression":
        return _jpeg(images, quality)
    if kind == "defocus_blur":
        return _defocus(images, disk_kernel(*disk))
    return _noise(images, amount, kind, seed, index)


def _check_word(name: str, word: str, known: Iterable[str]) -> None:
    if word not in known:
        raise ValueError(
            f"{name}={word!r} is none of {', '.join(known)}{did_you_mean(str(word), known)}"
        )


def _noise(images: Tensor, amount: float, kind: str, seed: int, index: Tensor) -> Tensor:
    """Salt (255) or pepper (0), half each, with probability `amount` for every value or pixel.

    The rule of `skimage.util.random_noise(mode="s&p", salt_vs_pepper=0.5)`.
    """
    channels, height, width = images.shape[1:]
    shape = (2, channels if kind == "impulse_noise" else 1, height, width)
    corrupted = images.numpy().copy()
    for image, position in zip(corrupted, index.tolist(), strict=True):
        hit, value = generator("corruption", kind, seed, position).random(shape, dtype=np.float32)
        extreme = np.where(value < 0.5, np.uint8(255), np.uint8(0))
        np.copyto(image, extreme, where=hit < amount)
    return torch.from_numpy(corrupted)


def _jpeg(images: Tensor, quality: int) -> Tensor:
    """Saved as JPEG and read again by Pillow, one channel in mode L, three in mode RGB.

    Pillow's default chroma subsampling; the pixels may depend on the JPEG library it was built on.
    """
    corrupted = np.empty(images.permute(0, 2, 3, 1).shape, dtype=np.uint8)
    for source, target in zip(images.permute(0, 2, 3, 1).numpy(), corrupted, strict=True):
        pixels = np.ascontiguousarray(source[..., 0] if source.shape[-1] == 1 else source)
        with BytesIO() as file:
            PIL.Image.fromarray(pixels).save(file, "JPEG", quality=quality)
            with PIL.Image.open(file) as image:
                target[:] = np.asarray(image).reshape(target.shape)
    return torch.from_numpy(corrupted).permute(0, 3, 1, 2).contiguous()


def disk_kernel(radius: float, sigma: float) -> np.ndarray:
    """(k, k) float32 weights of a disk of `radius`, smoothed by a Gaussian of `sigma` (pixels).

    The grid is 17 wide up to radius 8, the smoothing 3 wide (5 above), with the grid mirrored at
    its edge: sizes and edge rule of the released code. In float32 like there, operation by
    operation: with equal weights a blurred value often falls exactly on a grey level, and then
    the rounding of the weights alone decides to which side it is cut off.
    """
    reach, half = (8, 1) if radius <= 8 else (int(radius), 2)
    at = np.arange(-reach, reach + 1)
    kernel = (at[:, None] ** 2 + at**2 <= radius**2).astype(np.float32)
    kernel /= kernel.sum()
    bell = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2)
    bell = (bell / bell.sum()).astype(np.float32)
    for _ in range(2):  # along one axis, then along the other
        rows = np.pad(kernel, ((half, half), (0, 0)), mode="reflect")
        shifted = [rows[i : i + len(at)] for i in range(2 * half + 1)]
        kernel = bell[half] * shifted[half]
        for i in range(half):  # opposite neighbours together, so that the sum stays symmetric
            kernel += bell[i] * (shifted[i] + shifted[-1 - i])
        kernel = kernel.T
    return np.ascontiguousarray(kernel)


def _mirrored(size: int, reach: int) -> Tensor:
    """Indices of `size` pixels and `reach` more on both sides, mirrored at the outermost pixel.

    Mirrored again where `reach` is longer than the image, which torch's own padding refuses.
    """
    period = max(2 * (size - 1), 1)
    at = torch.arange(-reach, size + reach).remainder(period)
    return torch.minimum(at, period - at)


def _defocus(images: Tensor, kernel: np.ndarray) -> Tensor:
    """Filtered by the kernel, channel by channel, in [0, 1]; clipped; cut off to whole levels.

    By Fourier transform in float64: its error (1e-16) is far below that of the float32 weights,
    so that no pixel depends on how images are batched. (conv2d takes minutes for 10,000 CIFAR
    images in float64, and in float32 puts up to 2.5 % of the pixels one level off.)
    """
    channels, height, width = images.shape[1:]
    reach = len(kernel) // 2
    rows, columns = _mirrored(height, reach), _mirrored(width, reach)
    size = (len(rows), len(columns))
    response = torch.fft.rfft2(torch.from_numpy(kernel).double(), s=size)
    corrupted = torch.empty(images.shape, dtype=torch.uint8)
    step = max(1, BLOCK // (channels * size[0] * size[1]))
    for start in range(0, len(images), step):
        block = images[start : start + step][..., rows[:, None], columns].double() / 255
        # The kernel starts at the origin, not centred on it: results lie `2 * reach` further on.
        blurred = torch.fft.irfft2(torch.fft.rfft2(block) * response, s=size)
        blurred = blurred[..., 2 * reach :, 2 * reach :]
        corrupted[start : start + step] = blurred.clamp_(0, 1).mul_(255).to(torch.uint8)
    return corrupted
