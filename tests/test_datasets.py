"""Every dataset as a user gets it: `hypersphere data get NAME`, then its images, labels, splits.

The archives are miniatures in the official layouts (miniatures.py), served from this machine.
What is wrong with a copy, and what is said then, is in test_datasets_bad.py; the rest of
`hypersphere data`, and one's own images, in test_inventory.py.
"""

import io
import json
import os
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from hypersphere import paths
from hypersphere.data.facts import DATASETS
from hypersphere.data.load import class_counts, class_names, load, load_files
from hypersphere.data.splits import support
from hypersphere.errors import UserError
from tests import miniatures
from tests.miniatures import (
    BIRDS,
    CLASSES,
    READABLE,
    WNIDS,
    assert_images,
    bird,
    pictures,
    png_folders,
    training,
)


def assert_files(found, members, expected):
    """expected: path below the data folder -> label; sorted by label and path, bytes as packed."""
    root = Path(os.environ["HYPERSPHERE_DATA"])
    got = [(p.relative_to(root).as_posix(), y) for p, y in zip(found.paths, found.labels.tolist())]
    assert got == sorted(expected.items(), key=lambda item: (item[1], item[0]))
    assert all(path.read_bytes() == members[name] for path, (name, _) in zip(found.paths, got))


def test_mnist(shelf):
    train = pictures([5, 4, 3], 0, height=5, width=5, channels=1)
    test = pictures([1, 2, 3], 1, height=5, width=5, channels=1)
    facts = {"classes": CLASSES, "num_classes": 3, "size": 5, "train": 12, "test": 6}
    shelf.publish("mnist", miniatures.mnist(train, test), **facts)
    outcome = shelf.get("mnist")
    assert outcome.out.startswith(f"mnist: complete under {shelf.data / 'MNIST/raw'}; every image")
    assert shelf.placed() == [
        f"MNIST/raw/{prefix}-{kind}-ubyte"
        for prefix in ("t10k", "train")
        for kind in ("images-idx3", "labels-idx1")
    ]
    assert_images(load("mnist"), train, test)
    assert class_counts("mnist") == (5, 4, 3) and class_names("mnist") == CLASSES
    state = json.loads(shelf.run("data", "status", "mnist", "--json").out)
    assert [row["state"] for row in state] == ["present"]
    assert shelf.site.url("good") in state[0]["source"]


def test_cifar10(shelf, cifar10):
    shelf.get("cifar10")
    assert_images(load("cifar10"), *cifar10)
    assert class_counts("cifar10") == (6, 5, 4)


def test_shuffled_pngs_are_the_same_dataset_as_the_official_pickles(
    shelf, cifar10, tmp_path, monkeypatch
):
    def drawn():
        miniatures.forget()
        found = load("cifar10")
        chosen = training("paper=nsl", "data=cifar10", "split.num_unseen=1", "seed=4")
        return found, chosen.split(), support(found.train_labels.numpy(), (0, 2), 3, 1, 0)

    shelf.get("cifar10")
    official, split, shots = drawn()
    monkeypatch.setenv("HYPERSPHERE_DATA", str(tmp_path / "other"))
    png_folders(tmp_path / "other", cifar10)
    shuffled, other_split, other_shots = drawn()
    assert shuffled.content == official.content and other_split == split
    assert np.array_equal(other_shots, shots)
    assert torch.equal(shuffled.train_images[shots], official.train_images[shots])
    assert_images(shuffled, *cifar10)
    monkeypatch.setenv("HYPERSPHERE_DATA", str(tmp_path / "changed"))
    changed = cifar10[0][0].copy()
    changed[3, 0, 0, 0] ^= 1
    png_folders(tmp_path / "changed", [(changed, cifar10[0][1]), cifar10[1]])
    assert drawn()[0].content != official.content


def test_cifar100_has_its_fine_labels(shelf):
    splits = [pictures([3, 2, 4], s, height=32, width=32) for s in (0, 1)]
    classes = DATASETS["cifar100"].classes[:3]
    shelf.publish(
        "cifar100",
        miniatures.cifar100(*splits, classes),
        classes=classes,
        num_classes=3,
        train=9,
        test=9,
    )
    shelf.get("cifar100")
    assert_images(load("cifar100"), *splits)
    assert class_names("cifar100") == classes and class_counts("cifar100") == (3, 2, 4)


def test_cifar10_1_is_a_test_set(shelf):
    test = pictures([2, 3, 4], 0)
    facts = {"classes": CLASSES, "num_classes": 3, "size": 8, "test": 9}
    shelf.publish("cifar10_1", miniatures.cifar10_1(*test), **facts)
    assert DATASETS["cifar10_1"].downloads[0].checksum.startswith("git:")
    shelf.get("cifar10_1")
    assert shelf.placed() == [f"CIFAR-10.1/cifar10.1_v6_{key}.npy" for key in ("data", "labels")]
    assert_images(load("cifar10_1"), (test[0][:0], test[1][:0]), test)
    with pytest.raises(UserError, match="data.name=cifar10_1: has no training images"):
        training("paper=nsl", "data=cifar10_1")


def corruptions(shelf, **changes):
    images, labels = pictures([2, 2, 2], 0)
    facts = {"classes": CLASSES, "num_classes": 3, "size": 8, "test": 6} | changes
    shelf.publish("cifar10_c", miniatures.cifar10_c(["fog", "snow"], images, labels), **facts)
    return images, labels


def test_cifar10_c_has_five_severities_of_every_corruption(shelf):
    images, _ = corruptions(shelf)
    outcome = shelf.get("cifar10_c")
    assert outcome.out.startswith(f"cifar10_c: complete under {shelf.data / 'CIFAR-10-C'}; ")
    assert shelf.placed() == [f"CIFAR-10-C/{key}.npy" for key in ("fog", "labels", "snow")]
    assert np.load(shelf.data / "CIFAR-10-C/fog.npy").shape == (30, 8, 8, 3)
    (row,) = json.loads(shelf.run("data", "status", "cifar10_c", "--json").out)
    assert row["state"] == "present" and shelf.site.url("good") in row["source"]
    with pytest.raises(UserError, match="one test set per corruption and severity"):
        load("cifar10_c")


def test_cifar10_c_is_complete_with_a_sentence(shelf):
    corruptions(shelf)
    assert not shelf.get("cifar10_c").out.strip().endswith(";")


def test_stl10_is_the_right_way_up(shelf):
    splits = [pictures([2, 2, 1], s, height=96, width=96) for s in (0, 1)]
    facts = {"classes": CLASSES, "num_classes": 3, "train": 5, "test": 5}
    shelf.publish("stl10", miniatures.stl10(*splits, CLASSES), **facts)
    shelf.get("stl10")
    assert_images(load("stl10"), *splits)
    assert class_counts("stl10") == (2, 2, 1)


def decoded(content):
    with PIL.Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def test_tiny_imagenet(shelf, tiny):
    shelf.get("tiny_imagenet")
    found = load("tiny_imagenet")
    root = "tiny-imagenet-200"
    train = [f"{root}/train/{w}/images/{w}_{i}.JPEG" for w in WNIDS for i in (0, 1)]
    test = [f"{root}/val/images/val_{number}.JPEG" for number in (3, 2, 1)]
    for images, labels, names, expected in (
        (found.train_images, found.train_labels, train, [0, 0, 1, 1, 2, 2]),
        (found.test_images, found.test_labels, test, [0, 1, 2]),
    ):
        assert labels.tolist() == expected
        pixels = np.stack([decoded(tiny[name]) for name in names])
        assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), pixels)
    assert class_names("tiny_imagenet") == READABLE
    said = shelf.run("data", "show", "tiny_imagenet", "--classes")
    assert said.out.splitlines() == list(READABLE)


@pytest.mark.parametrize("inner", ["", "images/"], ids=["flat", "images"])
@pytest.mark.parametrize("kept", [False, True], ids=["without annotations", "with annotations"])
def test_a_rearranged_tiny_imagenet_is_the_same_dataset(
    shelf, tiny, tmp_path, monkeypatch, inner, kept
):
    shelf.get("tiny_imagenet")
    official = load("tiny_imagenet")
    rearranged = {k: v for k, v in tiny.items() if "/val/" not in k}
    for c, wnid in enumerate(WNIDS):
        file = f"val_{3 - c}.JPEG"
        content = tiny[f"tiny-imagenet-200/val/images/{file}"]
        rearranged[f"tiny-imagenet-200/val/{wnid}/{inner}{file}"] = content
    if kept:
        table = "tiny-imagenet-200/val/val_annotations.txt"
        rearranged[table] = tiny[table]
    monkeypatch.setenv("HYPERSPHERE_DATA", str(tmp_path / "other"))
    miniatures.write(tmp_path / "other", rearranged)
    miniatures.forget()
    found = load("tiny_imagenet")
    assert torch.equal(found.test_images, official.test_images)
    assert torch.equal(found.test_labels, official.test_labels)
    assert found.content == official.content


def test_cub(shelf, cub):
    outcome = shelf.get("cub")
    assert "attributes.txt came along but is no part of it" in outcome.err
    found = load_files("cub")
    assert_files(found.train, cub, {bird(c, i): c for c in range(4) for i in (0, 2)})
    assert_files(found.test, cub, {bird(c, 1): c for c in range(4)})
    assert len({PIL.Image.open(path).size for path in found.train.paths}) > 4
    assert found.classes == BIRDS and class_counts("cub") == (2, 2, 2, 2)
    novel = training("paper=nsl", "data=cub", "split=base_novel", "split.num_base=3").split()
    assert (novel.seen, novel.unseen) == ((0, 1, 2), (3,))


def test_the_first_classes_of_cub(shelf, cub):
    outcome = shelf.get("cub_50")
    assert "cub_50 is made from cub, which is got now" in outcome.err
    found = load_files("cub_50")
    assert_files(found.train, cub, {bird(c, i): c for c in range(2) for i in (0, 2)})
    assert_files(found.test, cub, {bird(c, 1): c for c in range(2)})
    assert class_names("cub_50") == BIRDS[:2]


def test_a_copy_of_the_first_classes_alone_will_do(shelf, cub):
    miniatures.write(shelf.data, miniatures.cub(BIRDS[:2]))
    assert len(load_files("cub_50").train.paths) == 4
    assert shelf.run("data", "check", "cub_50").status == 0
    checked = shelf.run("data", "check", "cub")
    assert checked.status == 1 and "found 4 + 2 images of 2 classes" in checked.out


SPECIES = {"1355": 6, "1356": 2, "144": 4, "99": 3, "2000": 2}
LATIN = {"1355": "Lactuca virosa", "144": "Pelargonium", "99": "Sedum", "2000": "Acacia"}


@pytest.fixture
def plantnet(shelf):
    members = miniatures.plantnet(SPECIES, LATIN)
    archive = {"plantnet_300K.zip": miniatures.zipped(members)}
    shelf.publish("plantnet300k", archive, num_classes=5, train=17, test=5)
    shelf.describe(
        "plantnet182_substitute",
        options={"of": "plantnet300k", "by_count": {"total": 3, "at_least": {6: 1, 3: 2}}},
        num_classes=3,
    )
    return members


def test_plantnet300k(shelf, plantnet):
    outcome = shelf.get("plantnet300k")
    assert "no checksum is published, so it could not be verified" in outcome.err
    found, order = load_files("plantnet300k"), sorted(SPECIES)  # as text: "99" is the last
    assert found.classes == tuple(order) == ("1355", "1356", "144", "2000", "99")
    assert found.names == ("Lactuca virosa", "1356", "Pelargonium", "Acacia", "Sedum")
    for part, split, counts in (
        (found.train, "train", SPECIES),
        (found.test, "test", dict.fromkeys(SPECIES, 1)),
    ):
        expected = {
            f"plantnet_300K/images/{split}/{s}/{split}{i}.jpg": order.index(s)
            for s, n in counts.items()
            for i in range(n)
        }
        assert_files(part, plantnet, expected)
    assert class_counts("plantnet300k") == (6, 2, 4, 2, 3)
    said = shelf.run("data", "show", "plantnet300k", "--classes").out.splitlines()
    assert said == list(found.names)


def test_the_plantnet_substitute_has_the_counts_that_are_asked_for(shelf, plantnet):
    shelf.get("plantnet182_substitute")
    found = load_files("plantnet182_substitute")
    counts = class_counts("plantnet182_substitute")
    assert found.classes[0] == "1355" and counts[0] == 6  # the only species of six
    assert sorted(counts)[:2] in ([2, 3], [2, 4])
    assert {path.parent.name for path in found.train.paths} == set(found.classes)
    assert [int(n) for n in found.test.labels.bincount()] == [1, 1, 1]
    whole = load_files("plantnet300k")
    assert found.names == tuple(whole.names[whole.classes.index(c)] for c in found.classes)


def test_a_split_by_counts(shelf, plantnet):
    words = ["paper=nsl", "data=plantnet300k", "split=by_count", "evaluations=none"]
    shelf.get("plantnet300k")
    split = training(*words, "split.at_least=3").split()
    assert (split.seen, split.unseen) == ((0, 2, 4), (1, 3))
    with pytest.raises(UserError) as error:
        training(*words, "split.at_least=6")
    assert str(error.value) == (
        "split (plantnet300k): at_least=6: 1 of 5 classes have so many training images"
        " (the largest has 6)"
    )


def test_plantnet182_is_copied_by_hand(shelf):
    members = {
        name.replace("images/", ""): content
        for name, content in miniatures.plantnet(SPECIES, {}, root="plantnet182").items()
    }
    miniatures.write(shelf.data, members)
    shelf.describe("plantnet182", num_classes=5)
    found = load_files("plantnet182")
    assert len(found.train.paths) == 17 and len(found.test.paths) == 5
    assert found.names == found.classes == tuple(sorted(SPECIES))
    assert shelf.run("data", "check", "plantnet182").status == 0


PAINTINGS = (
    [(310, "Dutch", 1642), (12, "Flemish", 1611), (7, "Dutch", 1665.5), (88, "Italian", 1503)],
    [(5, "Italian", -450), (40, "Dutch", 1889), (41, "Spanish", 1937)],
)


def test_omniart_is_copied_by_hand(shelf):
    members = miniatures.omniart(*PAINTINGS)
    miniatures.write(shelf.data, members)
    shelf.describe("omniart", num_classes=4, train=4, test=3)
    found = load_files("omniart")
    assert found.classes == ("Dutch", "Flemish", "Italian", "Spanish")  # Spanish: test only
    for part, split, lines in zip((found.train, found.test), ("train", "test"), PAINTINGS):
        expected = {f"omniart/{split}/{n}.jpg": found.classes.index(s) for n, s, _ in lines}
        assert_files(part, members, expected)
        years = {f"{n}.jpg": year for n, _, year in lines}
        assert part.targets["year"].dtype == torch.float32
        assert part.targets["year"].tolist() == [years[path.name] for path in part.paths]
    assert class_counts("omniart") == (2, 1, 1, 0)
    assert shelf.run("data", "check", "omniart").status == 0


LIVING = {3: ("Aves", "Turdus merula"), 0: ("Plantae", "Acer rubrum"), 1: ("Aves", "Pica pica")}


def test_inaturalist2017(shelf):
    files = miniatures.inaturalist(LIVING, [0, 3, 1, 0, 3, 3], [1, 0, 3])
    facts = {"num_classes": 3, "train": 6, "test": 3}
    shelf.publish("inaturalist2017", files, **facts)
    shelf.get("inaturalist2017")
    found = load_files("inaturalist2017")
    assert found.names == ("Acer rubrum", "Pica pica", "Turdus merula")  # by their ids
    assert found.train.labels.tolist() == [0, 0, 1, 2, 2, 2]
    assert found.test.labels.tolist() == [0, 1, 2]
    root = shelf.data / "inaturalist2017/train_val_images"
    assert [p.relative_to(root).as_posix() for p in found.train.paths[:3]] == [
        "Plantae/Acer rubrum/train0.jpg",
        "Plantae/Acer rubrum/train3.jpg",
        "Aves/Pica pica/train2.jpg",
    ]
    assert found.test.paths[2].read_bytes() == miniatures.jpeg(2, 3)
    assert class_counts("inaturalist2017") == (2, 1, 3)


def test_the_readme_names_every_dataset():
    """A table that nobody has to keep in step."""
    text = (paths.root() / "README.md").read_text()
    assert [name for name in DATASETS if f"`{name}`" not in text] == []
