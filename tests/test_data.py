"""Reading, ordering, transforming and batching images; what is said when a copy is not right."""

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from hypersphere.data.batches import Pairs, Shuffled
from hypersphere.data.facts import DATASETS
from hypersphere.data.listing import available
from hypersphere.data.load import load
from hypersphere.data.order import pixel_content, pixel_order
from hypersphere.data.transforms import ToInput, crop_and_flip, draw_crops, mirror_static
from hypersphere.errors import UserError
from hypersphere.seeds import generator
from hypersphere.training import images as training_images
from hypersphere.training.images import Chunks, EpochBatches, SmallImages, share_of

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


def noise(n=64, channels=2, height=6, width=6):
    g = torch.Generator().manual_seed(0)
    return torch.randint(1, 256, (n, channels, height, width), generator=g, dtype=torch.uint8)


def cropped(images, chosen, padding, flip, seed):
    crops = draw_crops(len(chosen), padding, flip, torch.Generator().manual_seed(seed))
    return crop_and_flip(images, chosen, padding, crops)


def test_crop_and_flip_against_a_loop():
    images, padding = noise(), 2
    got = cropped(images, torch.arange(64), padding, True, seed=3)
    draws = torch.Generator().manual_seed(3)
    top, left = torch.randint(0, 2 * padding + 1, (2, len(images)), generator=draws)
    flip = torch.rand(len(images), generator=draws) < 0.5
    for i, image in enumerate(images.numpy()):
        padded = np.zeros((2, 10, 10), np.uint8)
        padded[:, 2:8, 2:8] = image
        crop = padded[:, top[i] : top[i] + 6, left[i] : left[i] + 6]
        expected = crop[:, :, ::-1] if flip[i] else crop
        assert np.array_equal(got[i].numpy(), expected)
    assert got.dtype == torch.uint8 and got.shape == images.shape
    assert got.is_contiguous(memory_format=torch.channels_last)


def test_every_image_has_its_own_draw():
    one = noise(1).expand(400, 2, 6, 6)
    got = cropped(one, torch.arange(400), 2, True, seed=0)
    # 5 x 5 places and two directions, none of which gives the same picture.
    kinds = {image.numpy().tobytes() for image in got}
    assert len(kinds) == 50
    flips = cropped(one, torch.arange(400), 0, True, seed=0)
    share = sum(torch.equal(image, one[0].flip(2)) for image in flips) / 400
    assert 0.4 < share < 0.6


def test_draws_depend_on_the_generator_alone():
    images = noise()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    a = cropped(images, torch.arange(64), 2, True, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(a, cropped(images, torch.arange(64), 2, True, seed=5))
    assert not torch.equal(a, cropped(images, torch.arange(64), 2, True, seed=6))


def test_mirroring_without_a_size_that_depends_on_the_draws():
    images = noise().permute(0, 2, 3, 1)
    mirrored = torch.rand(64, generator=torch.Generator().manual_seed(0)) < 0.5
    got = mirror_static(images, mirrored)
    for image, before, turned in zip(got, images, mirrored, strict=True):
        assert torch.equal(image, before.flip(1) if turned else before)


def test_no_padding_no_flip_changes_nothing():
    images = noise()
    chosen = torch.tensor([5, 0, 5])
    assert torch.equal(cropped(images, chosen, 0, False, seed=0), images[chosen])


# Batches


@pytest.mark.parametrize(
    ("n", "size"), [(100, 32), (97, 32), (96, 32), (65, 32), (33, 32), (5, 8), (7, 1)]
)
def test_shuffled_covers_each_image_once(n, size):
    batches = list(Shuffled(size=size).epoch(np.zeros(n), generator("t", 0)))
    assert sorted(np.concatenate(batches)) == list(range(n))
    assert all(len(b) == size for b in batches[:-1])
    # No pair or triplet could be formed of one image: it joins the batch before.
    assert (n - 1) % size == 0 or len(batches) == -(-n // size)
    assert size == 1 or len(batches[-1]) > 1


def test_last_image_joins_the_batch_before():
    assert [len(b) for b in Shuffled(size=32).epoch(np.zeros(65), generator("t", 0))] == [32, 33]


@pytest.mark.parametrize("n", [200, 201])
def test_pairs_layout(n):
    labels = np.random.default_rng(0).integers(0, 5, n)
    batches = list(Pairs(size=16).epoch(labels, generator("t", 0)))
    assert all(len(b) % 2 == 0 for b in batches)
    assert all(len(b) == 16 for b in batches[:-1])
    flat = np.concatenate(batches)
    assert len(flat) == n - n % 2  # an epoch sees as many images as the training set has
    anchors, partners = flat[0::2], flat[1::2]
    assert len(set(anchors)) == n // 2
    same = labels[anchors] == labels[partners]
    assert same.sum() == n // 2 // 2
    for batch in batches[:-1]:
        assert (labels[batch[0::2]] == labels[batch[1::2]]).sum() == 4
    assert (anchors != partners).all()


def test_pairs_never_pair_an_image_with_itself():
    labels = np.array([0, 0, 1, 1, 2, 2, 3, 3])  # the only partner is the other one
    for epoch in range(50):
        for batch in Pairs(size=4).epoch(labels, generator("t", epoch)):
            assert (batch[0::2] != batch[1::2]).all()


def test_partners_are_uniform():
    # One class of five, one of five: each anchor meets all four class mates and all five others.
    labels = np.repeat([0, 1], 5)
    met = {i: set() for i in range(10)}
    for epoch in range(300):
        flat = np.concatenate(list(Pairs(size=4).epoch(labels, generator("t", epoch))))
        for a, p in zip(flat[0::2], flat[1::2], strict=True):
            met[a].add(int(p))
    assert all(others == set(range(10)) - {i} for i, others in met.items())


@pytest.mark.parametrize("sampler", [Shuffled(size=16), Pairs(size=16)], ids=["shuffled", "pairs"])
def test_batches_depend_on_their_generator_alone(sampler):
    labels = np.arange(100) % 5

    def draw(*parts):
        return np.concatenate(list(sampler.epoch(labels, generator("batches", *parts)))).tolist()

    np.random.seed(0)
    first = draw(0, 0)
    np.random.seed(1)
    assert draw(0, 0) == first
    assert len({tuple(draw(*parts)) for parts in ((0, 0), (0, 1), (1, 0), (1, 1))}) == 4


def test_epoch_batches_by_seed_and_epoch(small):
    data = load("digits")

    def draw(epoch, *overrides):
        batches = EpochBatches(small(*overrides), data.train_images, data.train_labels, epoch)
        images, labels = zip(*batches, strict=True)
        assert len(images) == len(batches)
        return torch.cat(images), torch.cat(labels)

    augmented = "data.augmentation={crop_padding: 1, flip: true}"
    for overrides in ((), (augmented,)):
        first, again = draw(0, *overrides), draw(0, *overrides)
        assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
        assert not torch.equal(first[1], draw(1, *overrides)[1])
        assert not torch.equal(first[1], draw(0, "seed=1", *overrides)[1])
    draws = [
        EpochBatches(small(augmented, *o), data.train_images, data.train_labels, epoch).draws
        for epoch, o in ((0, ()), (1, ()), (0, ("seed=1",)))
    ]
    assert len({generator.initial_seed() for generator in draws}) == 3
    plain, moved = draw(0), draw(0, augmented)
    assert torch.equal(plain[1], moved[1])  # augmentation leaves the order of batches alone
    assert not torch.equal(plain[0], moved[0])
    order = np.concatenate(EpochBatches(small(), data.train_images, data.train_labels, 0).batches)
    assert torch.equal(plain[0], data.train_images[order])


@pytest.mark.parametrize("gathered", [1, 5_000, 2**18])
@pytest.mark.parametrize("share", [(0, 1), (1, 3)])
def test_batches_gathered_together_are_those_gathered_one_by_one(
    small, monkeypatch, gathered, share
):
    monkeypatch.setattr(training_images, "GATHERED", gathered)
    data = load("digits")
    values = torch.arange(len(data.train_labels)) / 7
    batches = EpochBatches(small(), data.train_images, data.train_labels, 0, values, share)
    parts = list(batches)
    assert len(parts) == len(batches) and len(batches.batches[-1]) < len(batches.batches[0])
    for (found, *numbers), batch in zip(parts, batches.batches, strict=True):
        mine = batch[share_of(len(batch), share)]
        assert torch.equal(found, data.train_images[mine])
        assert found.stride() == data.train_images[:1].stride()
        assert torch.equal(numbers[0], data.train_labels[mine])
        assert torch.equal(numbers[1], values[mine])


def test_pixels_become_the_nearest_numbers_to_their_255ths():
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(ToInput()(every), every / 255)


def test_the_module_trains_on_seen_classes_alone(small):
    module = SmallImages(small("split.num_unseen=3"))
    module.setup()
    data, seen = load("digits"), module.training.split().seen
    for (images, labels), all_images, all_labels in (
        (module.train, data.train_images, data.train_labels),
        (module.test, data.test_images, data.test_labels),
    ):
        keep = [i for i, y in enumerate(all_labels.tolist()) if y in seen]
        assert torch.equal(images, all_images[keep])
        assert labels.tolist() == [seen.index(y) for y in all_labels[keep].tolist()]
    (tested,) = module.watched()  # nothing is held out
    chunks = list(tested)
    assert torch.equal(torch.cat([y for _, y in chunks]), module.test[1])
    assert len(Chunks(torch.zeros(1001, 1), torch.zeros(1001))) == 3
