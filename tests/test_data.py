"""Reading, ordering and scaling images; what is said when a copy is not right."""

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from hypersphere.data.facts import DATASETS
from hypersphere.data.listing import available
from hypersphere.data.load import load
from hypersphere.data.order import pixel_content, pixel_order
from hypersphere.data.transforms import ToInput
from hypersphere.errors import UserError

CLASSES, SIZE = ("apple", "bear", "cat"), 5


def arrays(n, seed):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, SIZE, SIZE, 1), dtype=np.uint8)
    return images, np.arange(n) % len(CLASSES)


TRAIN, TEST = arrays(12, 0), arrays(6, 1)


def canonical_order(images, labels):
    order = pixel_order(images, labels)
    return images[order], labels[order]


def content_hash(*parts):
    return pixel_content(parts)


# Order and content


def test_canonical_order_ignores_the_order_it_is_given():
    images, labels = arrays(40, 2)
    expected = canonical_order(images, labels)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(40)
        shuffled = canonical_order(images[order], labels[order])
        assert np.array_equal(shuffled[0], expected[0]) and np.array_equal(shuffled[1], expected[1])
    assert list(expected[1]) == sorted(labels)
    # A permutation: every image keeps its label.
    before = {(image.tobytes(), y) for image, y in zip(images, labels, strict=True)}
    assert {(image.tobytes(), y) for image, y in zip(*expected, strict=True)} == before


def test_content_hash_sees_every_pixel_and_label():
    train, test = canonical_order(*TRAIN), canonical_order(*TEST)
    expected = content_hash(train, test)
    assert content_hash(canonical_order(*TRAIN), canonical_order(*TEST)) == expected
    seen = {expected}
    for part in (0, 1):
        for what in (0, 1):
            both = [[x.copy() for x in train], [x.copy() for x in test]]
            both[part][what].flat[-1] ^= 1
            seen.add(content_hash(*both))
    assert len(seen) == 5


def test_digits():
    data = load("digits")
    assert data.train_images.shape == (1442, 1, 8, 8) and data.train_images.dtype == torch.uint8
    assert data.test_images.shape == (355, 1, 8, 8)
    for train, test in zip(data.train_labels.bincount(), data.test_labels.bincount(), strict=True):
        assert int(test) == int(train + test) // 5  # every fifth image of each class
    assert data.train_images.max() == 255 and data.train_images.min() == 0
    pixels = data.train_images.float() / 255
    assert pixels.mean().item() == pytest.approx(DATASETS["digits"].mean[0], abs=5e-5)
    assert pixels.std().item() == pytest.approx(DATASETS["digits"].std[0], abs=1e-4)


# Miniature copies on disk


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty data folder; no dataset stays in memory from or for another test."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("HYPERSPHERE_DATA", str(folder))
    load.cache_clear()
    yield folder
    load.cache_clear()


@pytest.fixture
def mini(root, monkeypatch):
    """`mnist` shrunk to 12 + 6 images of three classes, its content known."""
    content = content_hash(canonical_order(*TRAIN), canonical_order(*TEST))
    facts = replace(
        DATASETS["mnist"],
        classes=CLASSES,
        num_classes=3,
        size=SIZE,
        train=12,
        test=6,
        content=content,
    )
    monkeypatch.setitem(DATASETS.added, "mnist", facts)
    return root


def write_idx(root: Path, train=TRAIN, test=TEST) -> Path:
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for prefix, (images, labels) in (("train", train), ("t10k", test)):
        header = struct.pack(">IIII", 0x803, len(images), SIZE, SIZE)
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = struct.pack(">II", 0x801, len(labels))
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(
            header + labels.astype(np.uint8).tobytes()
        )
    return raw


def write_folders(root: Path) -> Path:
    for split, (images, labels) in (("train", TRAIN), ("test", TEST)):
        for i, (image, y) in enumerate(zip(images, labels, strict=True)):
            folder = root / "mnist" / split / CLASSES[y]
            folder.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(image[..., 0]).save(folder / f"{99 - i:03}.png")
    return root / "mnist"


def assert_is_mini(data):
    for images, labels, part in (
        (data.train_images, data.train_labels, TRAIN),
        (data.test_images, data.test_labels, TEST),
    ):
        expected = canonical_order(*part)
        assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), expected[0])
        assert np.array_equal(labels.numpy(), expected[1])


def test_idx_files_in_another_order(mini):
    order = np.random.default_rng(0).permutation(12)
    write_idx(mini, train=(TRAIN[0][order], TRAIN[1][order]))
    assert available("mnist") is None
    assert_is_mini(load("mnist"))


def test_class_folders(mini):
    write_folders(mini)
    assert available("mnist") is None
    assert_is_mini(load("mnist"))


def test_labels_follow_the_datasets_class_order_not_the_alphabet(mini, monkeypatch):
    order = ("cat", "apple", "bear")
    facts = replace(DATASETS["mnist"], classes=order, num_classes=3, content="")
    monkeypatch.setitem(DATASETS.added, "mnist", facts)
    write_folders(mini)
    data = load("mnist")
    cat = {image.tobytes() for image, y in zip(*TRAIN, strict=True) if CLASSES[y] == "cat"}
    zero = data.train_images[data.train_labels == 0].permute(0, 2, 3, 1).numpy()
    assert {image.tobytes() for image in zero} == cat


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_missing_dataset(root, name):
    line = available(name)
    with pytest.raises(UserError) as error:
        load(name)
    assert str(error.value) == line
    assert "HYPERSPHERE_DATA" in line and f"`hypersphere data get {name}`" in line
    assert str(root) in line and "\n" not in line


def message(name="mnist") -> str:
    with pytest.raises(UserError) as error:
        load(name)
    assert "\n" not in str(error.value)
    return str(error.value)


def cut_images(raw: Path) -> None:
    file = raw / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-30])


def cut_header(raw: Path) -> None:
    (raw / "t10k-labels-idx1-ubyte").write_bytes(b"\0\0\x08")


def empty_file(raw: Path) -> None:
    (raw / "train-labels-idx1-ubyte").write_bytes(b"")


def one_file_missing(raw: Path) -> None:
    (raw / "train-labels-idx1-ubyte").unlink()


def not_idx(raw: Path) -> None:
    (raw / "train-images-idx3-ubyte").write_bytes(b"<html>404 not found</html>")


def unknown_type(raw: Path) -> None:
    file = raw / "train-images-idx3-ubyte"
    file.write_bytes(b"\0\0\x0a\x03" + file.read_bytes()[4:])


@pytest.mark.parametrize(
    "damage",
    [
        cut_images,
        cut_header,
        empty_file,
        one_file_missing,
        not_idx,
        unknown_type,
    ],
    ids=lambda damage: damage.__name__,
)
def test_damaged_idx(mini, damage: Callable[[Path], None]):
    damage(write_idx(mini))
    line = message()
    assert line.startswith("mnist: ") and str(mini) in line
    assert "hypersphere data get mnist" in line


def test_more_labels_than_images(mini):
    write_idx(mini, train=(TRAIN[0][:10], TRAIN[1]))
    line = message()
    assert "mnist" in line and str(mini) in line and "get" in line


def test_fewer_images_than_published(mini):
    write_idx(mini, train=(TRAIN[0][:10], TRAIN[1][:10]))
    assert message() == (
        f"mnist: found 10 + 6 images of 3 classes, expected 12 + 6 of 3; the copy under {mini} is"
        " not whole: copy it again, or run `hypersphere data get mnist --replace`"
    )


@pytest.mark.parametrize("what", ["pixel", "label", "split"])
def test_other_content_than_published(mini, what):
    images, labels = TRAIN[0].copy(), TRAIN[1].copy()
    test = TEST
    if what == "pixel":
        images[3, 2, 2, 0] ^= 1
    elif what == "label":
        labels[3] = (labels[3] + 1) % 3
    else:  # one image changes places with one of the test set
        test = (TEST[0].copy(), TEST[1])
        images[0], test[0][0] = TEST[0][0], TRAIN[0][0]
    write_idx(mini, train=(images, labels), test=test)
    line = message()
    assert line.startswith("mnist: ") and "differ from the published" in line
    assert DATASETS["mnist"].content[:12] in line and "get it again" in line


def test_unknown_class_folder(mini):
    folder = write_folders(mini)
    (folder / "train" / "cat").rename(folder / "train" / "dog")
    line = message()
    assert str(folder / "train") in line and "['dog']" in line and "['cat']" in line


def cut_png(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:50])


def text_as_png(file: Path) -> None:
    file.write_text("not a picture")


def other_size(file: Path) -> None:
    PIL.Image.new("L", (SIZE + 1, SIZE)).save(file)


def flipped_bits(file: Path) -> None:
    data = bytearray(file.read_bytes())
    at = data.index(b"IDAT") + 6
    data[at : at + 4] = bytes(b ^ 0xFF for b in data[at : at + 4])
    file.write_bytes(bytes(data))


@pytest.mark.parametrize(
    "damage", [cut_png, text_as_png, other_size, flipped_bits], ids=lambda d: d.__name__
)
def test_a_damaged_png_is_named_with_a_remedy(mini, damage):
    folder = write_folders(mini)
    file = folder / "train" / "bear" / "098.png"
    damage(file)
    line = message()
    assert f"{file}: cannot be read" in line and "copy the dataset again" in line


# Transforms


def test_to_input_scales_to_the_unit_interval():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    x = ToInput()(images)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x.flatten(), torch.arange(256) / 255)
    assert x.min() == 0 and x.max() == 1
    assert images.flatten()[255] == 255  # the images in memory stay as they are
    assert ToInput()(images.expand(2, 3, 16, 16)).is_contiguous(memory_format=torch.channels_last)


def test_to_input_normalises_by_channel():
    images = torch.randint(0, 256, (4, 3, 6, 6), dtype=torch.uint8)
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    x = ToInput(None, mean, std)(images)
    for c in range(3):
        torch.testing.assert_close(x[:, c], (images[:, c] / 255 - mean[c]) / std[c])


def test_to_input_enlarges_before_normalising():
    images = torch.randint(0, 256, (2, 1, 4, 4), dtype=torch.uint8)
    x = ToInput(8, (0.5,), (0.25,))(images)
    assert x.shape == (2, 1, 8, 8)
    # Bilinear with half-pixel centres: output 1 lies a quarter between inputs 0 and 1.
    row = images[0, 0, 0].double() / 255
    expected = (row[0] * 0.75 + row[1] * 0.25 - 0.5) / 0.25
    assert x[0, 0, 0, 1].item() == pytest.approx(expected.item(), abs=1e-5)
    assert torch.equal(ToInput(4)(images), ToInput()(images))
