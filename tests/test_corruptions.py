"""Corruptions: published constants, draws per image, blur and JPEG against slower references."""

import hashlib
import io

import numpy as np
import PIL.Image
import pytest
import torch
from scipy import ndimage

from hypersphere.data import corruptions
from hypersphere.data.corruptions import KINDS, STRENGTHS, corrupt, disk_kernel

NOISES = ("impulse_noise", "salt_and_pepper")
LEVELS = [(strength, severity) for strength in STRENGTHS for severity in range(1, 6)]


def random_images(n, channels=3, height=32, width=32):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (n, channels, height, width), dtype=np.uint8)
    return torch.from_numpy(pixels)


def grey(n, size=32, level=100):
    """Neither black nor white anywhere, so that every hit of the noise is seen."""
    return torch.full((n, 3, size, size), level, dtype=torch.uint8)


def digest(images):
    return hashlib.sha256(images.contiguous().numpy().tobytes()).hexdigest()[:16]


def formula_images():
    """Two 24 x 20 images made of integers only: one restless, one a smooth slope with a square."""
    c, y, x = np.ogrid[:3, :24, :20]
    restless = (7 * y * y + 13 * x * (c + 1) + 29 * x * y + 5 * x * x) % 256
    smooth = 9 * y + 2 * x + 4 * c
    smooth[:, 6:15, 4:12] = 255
    return torch.from_numpy(np.stack([restless, smooth]).astype(np.uint8))


# Constants


def test_constants():
    """As printed in make_imagenet_c.py, make_tinyimagenet_c.py and make_cifar_c.py."""
    assert {name: c.amount for name, c in STRENGTHS.items()} == {
        "imagenet": (0.03, 0.06, 0.09, 0.17, 0.27),
        "tiny_imagenet": (0.01, 0.02, 0.05, 0.08, 0.14),
        "cifar": (0.01, 0.02, 0.03, 0.05, 0.07),
    }
    assert {name: c.quality for name, c in STRENGTHS.items()} == {
        "imagenet": (25, 18, 15, 10, 7),
        "tiny_imagenet": (65, 58, 50, 40, 25),
        "cifar": (80, 65, 58, 50, 40),
    }
    assert {name: c.disk for name, c in STRENGTHS.items()} == {
        "imagenet": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        "tiny_imagenet": ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
        "cifar": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    }


# Every kind


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(3, 3, 32, 32), (3, 1, 28, 28), (2, 1, 8, 8), (2, 3, 17, 40)])
def test_shape_type_and_input_kept(kind, shape):
    images = random_images(*shape)
    before = images.clone()
    for strength, severity in LEVELS:
        result = corrupt(images, kind=kind, severity=severity, strength=strength, seed=0)
        assert result.shape == images.shape and result.dtype == torch.uint8
        assert result.is_contiguous()
        assert (result != images).any()
    assert torch.equal(images, before)


@pytest.mark.parametrize("kind", KINDS)
def test_same_pixels_in_any_chunks_order_and_memory_layout(kind, monkeypatch):
    images = random_images(13)
    how = {"kind": kind, "severity": 4, "strength": "imagenet", "seed": 5}
    whole = corrupt(images, **how)
    assert torch.equal(corrupt(images, **how), whole)
    parts = zip(images.split(4), torch.arange(13).split(4))
    assert torch.equal(torch.cat([corrupt(x, index=i, **how) for x, i in parts]), whole)
    chosen = torch.tensor([11, 0, 7])
    assert torch.equal(corrupt(images[chosen], index=chosen, **how), whole[chosen])
    layout = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(corrupt(layout, **how), whole)
    monkeypatch.setattr(corruptions, "BLOCK", 1)
    assert torch.equal(corrupt(images, **how), whole)


@pytest.mark.parametrize("kind", KINDS)
def test_no_images(kind):
    empty = torch.empty((0, 3, 32, 32), dtype=torch.uint8)
    result = corrupt(empty, kind=kind, severity=1, strength="cifar", seed=0)
    assert result.shape == empty.shape and result.dtype == torch.uint8


# Noise


def noise_on_grey(kind, strength="imagenet", severity=5, seed=0, n=64):
    return corrupt(grey(n), kind=kind, severity=severity, strength=strength, seed=seed)


def assert_share(count, n, probability):
    """Within five standard deviations of a binomial count."""
    bound = 5 * (n * probability * (1 - probability)) ** 0.5
    assert abs(int(count) - n * probability) < bound


@pytest.mark.parametrize("strength, severity", LEVELS)
def test_impulse_noise_hits_values(strength, severity):
    amount = STRENGTHS[strength].amount[severity - 1]
    result = noise_on_grey("impulse_noise", strength, severity)
    hit = result != 100
    assert_share(hit.sum(), hit.numel(), amount)
    assert set(result[hit].tolist()) == {0, 255}
    assert_share((result[hit] == 255).sum(), int(hit.sum()), 0.5)
    # Each channel on its own: two of them are hit together by chance only.
    pairs = hit[:, 0] & hit[:, 1]
    assert_share(pairs.sum(), pairs.numel(), amount**2)


@pytest.mark.parametrize("strength, severity", LEVELS)
def test_salt_and_pepper_hits_whole_pixels(strength, severity):
    result = noise_on_grey("salt_and_pepper", strength, severity)
    assert torch.equal(result[:, :1].expand_as(result), result)
    values = result[:, 0]
    hit = values != 100
    assert_share(hit.sum(), hit.numel(), STRENGTHS[strength].amount[severity - 1])
    assert set(values[hit].tolist()) == {0, 255}
    assert_share((values[hit] == 255).sum(), int(hit.sum()), 0.5)


@pytest.mark.parametrize("kind", NOISES)
def test_each_image_seed_and_kind_has_its_own_draw(kind):
    result = noise_on_grey(kind, n=4)
    assert len({digest(image) for image in result}) == 4
    assert (noise_on_grey(kind, seed=1, n=4) != result).any(dim=(1, 2, 3)).all()
    # What one seed hits, another hits no more often than chance.
    both = (noise_on_grey(kind, seed=1)[:, 0] != 100) & (noise_on_grey(kind)[:, 0] != 100)
    assert_share(both.sum(), both.numel(), 0.27**2)
    one, other = (noise_on_grey(k)[:, 0] != 100 for k in NOISES)
    assert_share((one & other).sum(), one.numel(), 0.27**2)


@pytest.mark.parametrize("kind", NOISES)
def test_smaller_amounts_are_nested_in_larger_ones(kind):
    images = random_images(8)
    by_amount = {}
    for strength, severity in LEVELS:
        amount = STRENGTHS[strength].amount[severity - 1]
        result = corrupt(images, kind=kind, severity=severity, strength=strength, seed=3)
        assert torch.equal(by_amount.setdefault(amount, result), result)
    results = [by_amount[amount] for amount in sorted(by_amount)]
    for small, large in zip(results, results[1:]):
        hit = small != images
        assert torch.equal(large[hit], small[hit])
        assert (large != images).sum() > hit.sum()


@pytest.mark.parametrize(
    "kind, expected",
    [("impulse_noise", "1e895bebed36dd4b"), ("salt_and_pepper", "35bc8a33249c8066")],
)
def test_draws_are_pinned(kind, expected):
    result = corrupt(
        formula_images(),
        kind=kind,
        severity=2,
        strength="cifar",
        seed=7,
        index=torch.tensor([3, 9999]),
    )
    assert digest(result) == expected


# JPEG


@pytest.mark.parametrize("strength, severity", LEVELS)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_is_what_pillow_writes_and_reads(strength, severity, mode):
    images = random_images(2, len(mode), 24, 20)
    result = corrupt(images, kind="jpeg_compression", severity=severity, strength=strength, seed=0)
    for image, corrupted in zip(images, result):
        before = PIL.Image.frombytes(mode, (20, 24), image.permute(1, 2, 0).numpy().tobytes())
        file = io.BytesIO()
        before.save(file, format="JPEG", quality=STRENGTHS[strength].quality[severity - 1])
        after = PIL.Image.open(io.BytesIO(file.getvalue()))
        assert after.mode == mode
        assert after.tobytes() == corrupted.permute(1, 2, 0).numpy().tobytes()


# Defocus blur


def mirrored(i, n):
    while not 0 <= i < n:
        i = -i if i < 0 else 2 * (n - 1) - i
    return i


def slow_kernel(radius, sigma):
    """In Python floats, entry by entry, from the disk's definition."""
    reach, half = (8, 1) if radius <= 8 else (radius, 2)
    n = 2 * reach + 1
    inside = {
        (y, x) for y in range(n) for x in range(n) if np.hypot(y - reach, x - reach) <= radius
    }
    offsets = range(-half, half + 1)
    bell = {o: np.exp(-(o**2) / (2 * sigma**2)) for o in offsets}
    kernel = np.zeros((n, n))
    for y in range(n):
        for x in range(n):
            kernel[y, x] = sum(
                bell[a] * bell[b]
                for a in offsets
                for b in offsets
                if (mirrored(y + a, n), mirrored(x + b, n)) in inside
            )
    return kernel / (len(inside) * sum(bell.values()) ** 2)


@pytest.mark.parametrize("strength, severity", LEVELS)
def test_kernel(strength, severity):
    radius, sigma = STRENGTHS[strength].disk[severity - 1]
    kernel = disk_kernel(radius, sigma)
    assert kernel.dtype == np.float32
    np.testing.assert_allclose(kernel, slow_kernel(radius, sigma), rtol=0, atol=1e-7)
    assert np.array_equal(kernel, kernel[::-1]) and np.array_equal(kernel, kernel[:, ::-1])
    # The two widest disks touch the edge of their grid, and smoothing it mirrored adds weight.
    expected = {8: 1.0129755, 10: 1.0107858}.get(radius, 1)
    assert kernel.sum(dtype=np.float64) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("strength, severity", LEVELS)
@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (1, 1, 8, 8), (1, 1, 9, 30)])
def test_defocus_is_the_slow_filter_cut_off(strength, severity, shape):
    images = random_images(*shape)
    result = corrupt(images, kind="defocus_blur", severity=severity, strength=strength, seed=0)
    kernel = slow_kernel(*STRENGTHS[strength].disk[severity - 1])
    for image, blurred in zip(images.flatten(0, 1).numpy(), result.flatten(0, 1).numpy()):
        exact = ndimage.correlate(image.astype(float), kernel, mode="mirror").clip(0, 255)
        remainder = exact - blurred  # in [0, 1) but for the rounding of float32 weights
        assert remainder.min() > -1e-4 and remainder.max() < 1 + 1e-4
        assert remainder.mean() == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("strength, severity", LEVELS)
def test_defocus_of_one_level_is_that_level(strength, severity):
    gain = slow_kernel(*STRENGTHS[strength].disk[severity - 1]).sum()
    for level in (0, 1, 100, 254, 255):
        images = grey(1, 16, level)
        result = corrupt(images, kind="defocus_blur", severity=severity, strength=strength, seed=0)
        assert result.min() == result.max()  # no pattern from rounding
        expected = min(int(level * gain + 1e-4), 255)
        assert int(result.max()) in (expected, max(expected - 1, 0))


@pytest.mark.parametrize(
    "strength, severity, expected",
    [
        ("imagenet", 1, "b26f69d66f1b714f"),
        ("imagenet", 4, "fa50570ac08dd834"),
        ("tiny_imagenet", 1, "aa293257504dcf52"),
        ("cifar", 4, "bd42ee5adfd99c90"),
    ],
)
def test_defocus_pixels_are_pinned(strength, severity, expected):
    images = formula_images()
    kernel = disk_kernel(*STRENGTHS[strength].disk[severity - 1]).astype(float)
    exact = ndimage.correlate(images.double().numpy(), kernel[None, None], mode="mirror")
    # No value so near a whole level that another order of summation could change the pixel.
    nearest = np.abs(exact - exact.round())[(exact > 1e-9) & (exact < 255)]
    assert nearest.min() > 1e-9
    result = corrupt(images, kind="defocus_blur", severity=severity, strength=strength, seed=0)
    assert digest(result) == expected


# Errors


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"kind": "defocus_blurr"},
            "kind='defocus_blurr' is none of .*did you mean 'defocus_blur'",
        ),
        ({"kind": "zzz"}, "kind='zzz' is none of impulse_noise, [a-z_, ]*defocus_blur$"),
        ({"strength": "tinyimagenet"}, "strength='tinyimagenet'.*did you mean 'tiny_imagenet'"),
        ({"severity": 0}, "severity=0 is not an integer from 1 to 5"),
        ({"severity": 6}, "severity=6"),
        ({"severity": 1.0}, "severity=1.0"),
        (
            {"images": grey(2).float()},
            r"images must be uint8.*not torch.float32 \(2, 3, 32, 32\)",
        ),
        ({"images": grey(2)[:, :2]}, r"1 or 3.*\(2, 2, 32, 32\)"),
        ({"images": grey(2)[0]}, r"\(3, 32, 32\)"),
        ({"images": grey(2).to("meta")}, "on the CPU, not on meta"),
        ({"index": torch.arange(3)}, r"index must be 2 integers, not torch.int64 \(3,\)"),
        ({"index": torch.rand(2)}, "index must be 2 integers, not torch.float32"),
    ],
)
def test_errors_in_one_line(change, message):
    how = {
        "images": grey(2),
        "kind": "impulse_noise",
        "severity": 1,
        "strength": "cifar",
        "seed": 0,
    }
    how |= change
    with pytest.raises(ValueError, match=message) as error:
        corrupt(how.pop("images"), **how)
    assert "\n" not in str(error.value)
