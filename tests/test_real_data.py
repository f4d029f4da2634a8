"""The real datasets, as far as they are at hand: HYPERSPHERE_DATA=... make test-all.

Numbers here are the publishers' or widely printed ones, not taken from our own table.
"""

import os
import pickle
import struct

import numpy as np
import pytest
import torch

from hypersphere.data.facts import DATASETS
from hypersphere.data.inventory import look
from hypersphere.data.layouts import read
from hypersphere.data.listing import available
from hypersphere.data.load import class_names, load, load_files
from hypersphere.data.splits import seen_unseen, support
from hypersphere.data.testsets import Corruption, evaluation_images

pytestmark = pytest.mark.slow

STATISTICS = {
    "mnist": ([0.1307], [0.3081]),
    "fashion_mnist": ([0.2860], [0.3530]),
    "cifar10": ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
    "cifar100": ([0.5071, 0.4865, 0.4409], [0.2673, 0.2564, 0.2762]),
}
MNIST_TRAIN = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
MNIST_TEST = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@pytest.fixture(autouse=True)
def nothing_stays_in_memory():
    yield
    load.cache_clear()
    load_files.cache_clear()


def need(name: str) -> str:
    """Skip, saying why, where a dataset is not at hand or only part of it is."""
    if "HYPERSPHERE_DATA" not in os.environ:
        pytest.skip(f"HYPERSPHERE_DATA is not set: {name} is not looked for")
    if why := available(name):
        pytest.skip(why)
    if (state := look(name)).state == "partial":
        pytest.skip(state.detail)
    return name


@pytest.mark.parametrize("name", STATISTICS)
def test_counts_balance_shapes_and_statistics(name):
    data, facts = load(need(name)), DATASETS[name]  # load compares the content
    side, channels = (28, 1) if "mnist" in name else (32, 3)
    number = 60_000 if "mnist" in name else 50_000
    assert data.train_images.shape == (number, channels, side, side)
    assert data.test_images.shape == (10_000, channels, side, side)
    train, test = data.train_labels.bincount().tolist(), data.test_labels.bincount().tolist()
    classes = 100 if name == "cifar100" else 10
    if name == "mnist":
        assert (train, test) == (MNIST_TRAIN, MNIST_TEST)
    else:
        assert train == [number // classes] * classes and test == [10_000 // classes] * classes
    for c, (mean, std) in enumerate(zip(*STATISTICS[name], strict=True)):
        # Exact, from the histogram of the 256 grey levels.
        counts = sum(
            part.flatten().bincount(minlength=256).double()
            for part in data.train_images[:, c].split(5000)
        )
        level = torch.arange(256, dtype=torch.float64) / 255
        found = (counts * level).sum() / counts.sum()
        spread = ((counts * (level - found) ** 2).sum() / counts.sum()).sqrt()
        assert found.item() == pytest.approx(mean, abs=5e-4)
        assert spread.item() == pytest.approx(std, abs=5e-4)
    assert facts.mean == pytest.approx(STATISTICS[name][0], abs=1e-9)


def test_the_same_splits_from_shuffled_idx_files(tmp_path, monkeypatch):
    """Fashion-MNIST written anew in another order: the same images at the same places."""
    data = load(need("fashion_mnist"))
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, images, labels in (
        ("train", data.train_images, data.train_labels),
        ("t10k", data.test_images, data.test_labels),
    ):
        order = np.random.default_rng(1).permutation(len(labels))
        pixels, y = images[order, 0].numpy(), labels[order].numpy().astype(np.uint8)
        head = struct.pack(">IIII", 0x803, len(y), 28, 28)
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
        head = struct.pack(">II", 0x801, len(y))
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(head + y.tobytes())
    same_from(tmp_path, monkeypatch, "fashion_mnist", data)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_same_splits_from_the_official_pickles(name, tmp_path, monkeypatch):
    """CIFAR, at hand as class folders in some order, written as the official archive has it in
    another: the same images at the same places."""
    data = load(need(name))
    order = np.random.default_rng(2).permutation(50_000)
    train = (data.train_images[order], data.train_labels[order])
    test = (data.test_images, data.test_labels)
    ten = name == "cifar10"
    folder = tmp_path / ("cifar-10-batches-py" if ten else "cifar-100-python")
    folder.mkdir()
    parts = {"test_batch" if ten else "test": test}
    if ten:
        parts |= {
            f"data_batch_{i + 1}": tuple(t[10_000 * i : 10_000 * (i + 1)] for t in train)
            for i in range(5)
        }
    else:
        parts["train"] = train
    for file, (images, labels) in parts.items():
        pixels = images.contiguous().numpy().reshape(len(labels), 3072)
        content = {"data": pixels, "labels" if ten else "fine_labels": labels.tolist()}
        (folder / file).write_bytes(pickle.dumps(content))
    names = list(DATASETS[name].classes)
    meta = {"label_names" if ten else "fine_label_names": names}
    (folder / ("batches.meta" if ten else "meta")).write_bytes(pickle.dumps(meta))
    same_from(tmp_path, monkeypatch, name, data)


def same_from(folder, monkeypatch, name, data):
    monkeypatch.setenv("HYPERSPHERE_DATA", str(folder))
    load.cache_clear()
    again = load(name)
    assert again.content == data.content and again.train_images is not data.train_images
    for field in ("train_images", "train_labels", "test_images", "test_labels"):
        assert torch.equal(getattr(again, field), getattr(data, field))
    classes = DATASETS[name].num_classes
    unseen = seen_unseen(classes, num_unseen=5, permutation=3).unseen
    draws = [support(d.train_labels.numpy(), unseen, 5, 0, 0) for d in (data, again)]
    assert np.array_equal(*draws)
    assert torch.equal(data.train_images[draws[0]], again.train_images[draws[1]])


def test_tiny_imagenet_in_its_official_layout():
    """All 200 classes where they are, else those that are: 500 + 50 images each."""
    if "HYPERSPHERE_DATA" not in os.environ or (why := available("tiny_imagenet")):
        pytest.skip("HYPERSPHERE_DATA is not set" if "HYPERSPHERE_DATA" not in os.environ else why)
    listing = read("tiny_imagenet")
    here = np.unique(listing.train.labels)
    assert len(here) in (10, 200)
    assert np.bincount(listing.train.labels)[here].tolist() == [500] * len(here)
    assert np.bincount(listing.test.labels)[here].tolist() == [50] * len(here)
    folder = listing.train.files[0].parents[2]
    assert {listing.classes[c] for c in here} == set(
        (folder.parent / "wnids.txt").read_text().split()
    )
    names = dict(
        line.split("\t") for line in (folder.parent / "words.txt").read_text().splitlines()
    )
    assert all(listing.names[c] == names[listing.classes[c]] for c in here)
    for file, label in zip(listing.train.files, listing.train.labels, strict=True):
        assert file.name.startswith(listing.classes[label])


def test_all_of_tiny_imagenet():
    data = load(need("tiny_imagenet"))
    assert data.train_images.shape == (100_000, 3, 64, 64)
    assert data.train_labels.bincount().tolist() == [500] * 200
    assert data.test_labels.bincount().tolist() == [50] * 200
    assert class_names("tiny_imagenet")[0] == "goldfish, Carassius auratus"


def test_the_first_50_classes_of_cub():
    found = load_files(need("cub_50"))
    assert (len(found.train.paths), len(found.test.paths)) == (1500, 1389)
    # the lists' own counts, read here without our reader
    folder = found.train.paths[0].parents[2]
    of = {n: int(c) - 1 for n, c in pairs(folder / "image_class_labels.txt") if int(c) <= 50}
    split = dict(pairs(folder / "train_test_split.txt"))
    for part, wanted in ((found.train, "1"), (found.test, "0")):
        counts = np.bincount([c for n, c in of.items() if split[n] == wanted], minlength=50)
        assert part.labels.bincount(minlength=50).tolist() == counts.tolist()
    assert (np.bincount([c for n, c in of.items() if split[n] == "1"]) == 30).all()
    assert found.classes[0] == "001.Black_footed_Albatross"
    for path, label in zip(found.test.paths, found.test.labels.tolist(), strict=True):
        assert path.parent.name == found.classes[label]


def pairs(path):
    return [line.split() for line in path.read_text().splitlines()]


def test_corrupted_cifar():
    clean, labels = evaluation_images(need("cifar10"))
    noise = Corruption(kind="impulse_noise", severity=5, strength="imagenet")
    images, same = evaluation_images("cifar10", noise)
    assert torch.equal(labels, same) and images.shape == clean.shape
    hit = (images != clean).float().mean().item()
    extreme = ((clean == 0) | (clean == 255)).float().mean().item()
    # Of 27 % hit values some were black or white before and stay so by chance.
    assert hit == pytest.approx(0.27 * (1 - extreme / 2), abs=0.003)
