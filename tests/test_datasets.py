"""Every dataset as a user gets it: `hypersphere data get NAME`, then its images, labels, splits.

The archives are miniatures in the official layouts (miniatures.py), served from this machine.
What is wrong with a copy, and what is said then, is in test_datasets_bad.py.
"""

import hashlib
import io
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from hypersphere.config import compose, split_config
from hypersphere.data import notes, transfer
from hypersphere.data.facts import DATASETS
from hypersphere.data.layouts import read
from hypersphere.data.load import class_counts, class_names, load, load_files
from hypersphere.data.splits import (
    base_novel,
    by_count,
    choose_by_count,
    holdout,
    imbalanced,
    imbalanced_counts,
    seen_unseen,
    support,
)
from hypersphere.errors import UserError
from tests import miniatures
from tests.miniatures import Shelf, Site, canonical, class_folders, encoded, picture, pictures

CLASSES = ("apple", "bear", "cat")
GOLDEN = Path(__file__).parent / "golden" / "draws.json"


@pytest.fixture
def shelf(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HYPERSPHERE_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("HYPERSPHERE_MIRROR", raising=False)
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(variable, "127.0.0.1")
    monkeypatch.setattr(transfer, "BACKOFF", 0.01)
    site = Site()
    miniatures.forget()
    yield Shelf(site, tmp_path / "data", monkeypatch, capsys)
    miniatures.forget()
    site.close()


def assert_images(data, train, test):
    """The images and labels of both splits, in canonical order."""
    for images, labels, part in (
        (data.train_images, data.train_labels, train),
        (data.test_images, data.test_labels, test),
    ):
        expected = canonical(*part)
        assert images.dtype == torch.uint8 and labels.dtype == torch.int64
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), expected[0])
        assert labels.tolist() == expected[1].tolist()


def assert_files(found, members, expected):
    """expected: path below the data folder -> label; sorted by label and path, bytes as packed."""
    root = Path(os.environ["HYPERSPHERE_DATA"])
    got = [(p.relative_to(root).as_posix(), y) for p, y in zip(found.paths, found.labels.tolist())]
    assert got == sorted(expected.items(), key=lambda item: (item[1], item[0]))
    assert all(path.read_bytes() == members[name] for path, (name, _) in zip(found.paths, got))


def training(*overrides):
    return split_config(compose([*overrides]))[0]


# Each dataset


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


@pytest.fixture
def cifar10(shelf):
    """A published cifar10, and both of its splits."""
    splits = [pictures([6, 5, 4], s, height=32, width=32) for s in (0, 1)]
    facts = {"classes": CLASSES, "num_classes": 3, "train": 15, "test": 15}
    shelf.publish("cifar10", miniatures.cifar10(*splits, CLASSES), **facts)
    return splits


def png_folders(data, splits, name="cifar10"):
    """Both splits as class folders, shuffled and renamed."""
    for split, (images, labels) in zip(("train", "test"), splits):
        order = np.random.default_rng(len(split)).permutation(len(labels))
        members = class_folders(CLASSES, images, labels, order)
        miniatures.write(data / name / split, members)
    return data / name


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


WNIDS, READABLE = ("n02", "n01", "n03"), ("goldfish", "bullfrog, frog", "tailed frog")


@pytest.fixture
def tiny(shelf):
    """A published tiny_imagenet, and what its archive holds."""
    members = miniatures.tiny_imagenet(WNIDS)
    shelf.publish(
        "tiny_imagenet",
        {"tiny-imagenet-200.zip": miniatures.zipped(members)},
        classes=WNIDS,
        names=READABLE,
        num_classes=3,
        size=8,
        train=6,
        test=3,
    )
    return members


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


BIRDS = ("001.Albatross", "002.Auk", "003.Finch", "004.Gull")


@pytest.fixture
def cub(shelf):
    """A published cub of four classes, of which cub_50 has two, and what its archive holds."""
    members = miniatures.cub(BIRDS)
    archive = {"CUB_200_2011.tgz": miniatures.tar(members)}
    shelf.publish("cub", archive, classes=BIRDS, num_classes=4, train=8, test=4)
    part = {"of": "cub", "first": 2}
    shelf.describe("cub_50", options=part, num_classes=2, train=4, test=2)
    return members


def bird(c, i):
    return f"CUB_200_2011/images/{BIRDS[c]}/{BIRDS[c][4:]}_{90 - i:04}.jpg"


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


# One's own


def own_folders(root, test=True, **shape):
    """Class folders of 4, 3 and 5 pictures (and 1, 2 and 1 to test)."""
    for split, counts in (("train", [4, 3, 5]), ("test", [1, 2, 1]) if test else ("", [])):
        if counts:
            images, labels = pictures(counts, len(split), **shape)
            inner = split if test else ""
            miniatures.write(root / inner, class_folders(CLASSES, images, labels))
    return root


def test_own_small_pictures_are_held_in_memory(shelf, tmp_path):
    folder = own_folders(tmp_path / "mine")
    outcome = shelf.run("data", "add", "fruit", folder)
    assert outcome.out == (
        "fruit: 3 classes, 12 + 4 images, held in memory, 8 x 8; use it as data=fruit\n"
    )
    facts, found = DATASETS["fruit"], load("fruit")
    assert facts.classes == CLASSES and class_counts("fruit") == (4, 3, 5)
    assert found.train_labels.tolist() == [0] * 4 + [1] * 3 + [2] * 5
    expected = [PIL.Image.open(p) for p in sorted((folder / "train" / "bear").iterdir())]
    assert np.array_equal(
        found.train_images[4:7].permute(0, 2, 3, 1).numpy(), [np.asarray(i) for i in expected]
    )
    pixels = found.train_images.double() / 255
    assert facts.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=1e-4)
    assert facts.std == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist(), abs=1e-4)
    assert facts.content == found.content
    chosen = training("paper=nsl", "data=fruit", "split.num_unseen=1", "data.normalize=true")
    assert sorted(chosen.split().seen + chosen.split().unseen) == [0, 1, 2]
    assert shelf.run("data", "check", "fruit").status == 0
    assert "fruit" in shelf.run("data", "status").out
    # a changed picture is another dataset than the one that was added
    next((folder / "train/bear").iterdir()).write_bytes(encoded(picture(5, 5, 5)))
    checked = shelf.run("data", "check", "fruit")
    assert checked.status == 1 and "are not those that were added" in checked.out


def test_own_grey_pictures_have_one_channel(shelf, tmp_path):
    shelf.run("data", "add", "grey", own_folders(tmp_path / "mine", channels=1))
    assert DATASETS["grey"].channels == 1 and len(DATASETS["grey"].mean) == 1
    assert load("grey").test_images.shape == (4, 1, 8, 8)


def test_own_pictures_of_many_sizes_stream_from_their_files(shelf, tmp_path):
    folder = own_folders(tmp_path / "mine")
    (folder / "train" / "bear" / "large.jpg").write_bytes(
        encoded(picture(1, height=9, width=20), "JPEG")
    )
    outcome = shelf.run("data", "add", "mixed", folder)
    assert outcome.out.startswith("mixed: 3 classes, 13 + 4 images, streamed from files;")
    found = load_files("mixed")
    assert found.classes == CLASSES and found.content == DATASETS["mixed"].content
    assert DATASETS["mixed"].size is None and class_counts("mixed") == (4, 4, 5)
    chosen = training("paper=nsl", "data=mixed", "split.num_unseen=1")
    assert chosen.dataset.num_classes == 3 and chosen.data.views is not None


def test_a_share_of_each_class_tests(shelf, tmp_path):
    folder = own_folders(tmp_path / "mine", test=False)
    outcome = shelf.run("data", "add", "shared", folder, "--test-share", "0.4")
    assert "3 classes, 7 + 5 images" in outcome.out  # 2 of 4, 1 of 3, 2 of 5
    found = load("shared")
    assert found.test_labels.tolist() == [0, 0, 1, 2, 2]
    every = {i.tobytes() for part in (found.train_images, found.test_images) for i in part.numpy()}
    assert len(every) == 12
    again = shelf.run("data", "add", "shared2", folder, "--test-share", "0.4")
    assert again.status == 0 and torch.equal(load("shared2").test_images, found.test_images)


# The command line


def test_a_broken_download_goes_on_where_it_was(shelf, cifar10):
    shelf.site.cuts["good"] = 20_000
    line = shelf.run("data", "get", "cifar10").line
    assert "503" in line and "hypersphere data get cifar10 --from FOLDER" in line
    assert shelf.placed() == []
    assert shelf.run("data", "status", "cifar10").out.split()[:2] == ["cifar10", "missing"]
    shelf.site.cuts.clear()
    shelf.site.requests.clear()
    shelf.get("cifar10")
    assert shelf.site.requests == [("good/cifar-10-python.tar.gz", "bytes=20000-")]
    assert_images(load("cifar10"), *cifar10)
    assert not (shelf.data / ".downloads").exists()


def test_a_forged_mirror_is_passed_over(shelf, cifar10):
    file = "cifar-10-python.tar.gz"
    shelf.site.files[f"forged/{file}"] = bytes(len(shelf.site.files[file]))
    hosts = ("forged", "good")
    shelf.publish("cifar10", {file: shelf.site.files[file]}, hosts)
    outcome = shelf.get("cifar10")
    assert f"{shelf.site.url('forged')}/{file}: checksum md5:" in outcome.err
    assert [asked for asked, _ in shelf.site.requests] == [f"{host}/{file}" for host in hosts]
    (row,) = json.loads(shelf.run("data", "status", "cifar10", "--json").out)
    assert shelf.site.url("good") in row["source"] and "forged" not in row["source"]


def test_staging_from_a_folder(shelf, cifar10, tmp_path):
    shown = shelf.run("data", "show", "cifar10").out
    file = "cifar-10-python.tar.gz"
    for said in (DATASETS["cifar10"].citation, "licence: none stated", file, "--from FOLDER",
                 DATASETS["cifar10"].downloads[0].checksum, f"{shelf.site.url('good')}/{file}",
                 "3 classes, 15 + 15 images, 32 x 32",
                 str(shelf.data / "cifar-10-batches-py")):  # fmt: skip
        assert said in shown
    stick = tmp_path / "stick"
    miniatures.write(stick, {file: shelf.site.files.pop(file)})
    shelf.get("cifar10", "--from", stick)
    assert shelf.site.requests == []
    assert_images(load("cifar10"), *cifar10)
    assert [path.name for path in stick.iterdir()] == [file]


def test_a_copy_that_is_here_is_left_alone_unless_replaced(shelf, cifar10):
    shelf.get("cifar10")
    asked = len(shelf.site.requests)
    outcome = shelf.get("cifar10")
    assert outcome.out.startswith("cifar10: is here already") and len(shelf.site.requests) == asked
    (shelf.data / "cifar-10-batches-py" / "test_batch").unlink()
    (row,) = json.loads(shelf.run("data", "status", "cifar10", "--json").out)
    assert row["state"] == "partial" and "test_batch is missing" in row["detail"]
    assert "--replace" in shelf.run("data", "get", "cifar10").line
    shelf.get("cifar10", "--replace")
    assert_images(load("cifar10"), *cifar10)


def test_status_of_everything(shelf, cifar10):
    png_folders(shelf.data, cifar10)
    rows = {r["name"]: r for r in json.loads(shelf.run("data", "status", "--json").out)}
    assert set(DATASETS) < set(rows) and "hpn_prototypes" in rows
    assert rows["cifar10"]["state"] == rows["digits"]["state"] == "present"
    assert rows["cifar10"]["where"] == str(shelf.data / "cifar10")
    size = sum(path.stat().st_size for path in (shelf.data / "cifar10").rglob("*.png"))
    assert rows["cifar10"]["bytes"] == size
    gone = {n for n, row in rows.items() if row["state"] == "missing"}
    assert set(rows) - gone == {"cifar10", "digits", "rotated_digits"}
    lines = shelf.run("data", "status").out.splitlines()
    told = {line.split()[0]: line for line in lines[: len(rows)]}
    assert told["cub"].endswith("hypersphere data get cub")
    assert lines[-1] == f"under {shelf.data} (HYPERSPHERE_DATA)"


def test_check_reads_every_image(shelf, cifar10):
    folder = png_folders(shelf.data, cifar10)
    checked = shelf.run("data", "check")  # all that are here
    assert checked.status == 0
    assert [line.split()[:2] for line in checked.out.splitlines()] == [
        ["digits", "present"],
        ["rotated_digits", "present"],
        ["cifar10", "present"],
    ]
    content = load("cifar10").content
    assert f"content {content[:12]}, no published content to compare with" in checked.out
    shelf.describe("cifar10", content=content)
    assert "as published" in shelf.run("data", "check", "cifar10").out
    other = encoded(picture(1, 2, 3, height=32, width=32))
    next((folder / "test/apple").iterdir()).write_bytes(other)
    checked = shelf.run("data", "check", "cifar10")
    assert checked.status == 1 and "corrupt" in checked.out and "differ from" in checked.out


# What is kept beside the data


def refuse_to_decode(monkeypatch):
    def refuse(path, *_):
        raise AssertionError(f"{path} was opened")

    monkeypatch.setattr(PIL.Image, "open", refuse)


def test_pictures_are_decoded_once(shelf, cifar10, monkeypatch):
    folder = png_folders(shelf.data, cifar10)
    first = load("cifar10")
    miniatures.forget()
    with monkeypatch.context() as patched:
        refuse_to_decode(patched)
        again = load("cifar10")
        assert torch.equal(again.train_images, first.train_images)
        assert torch.equal(again.test_labels, first.test_labels) and again.content == first.content
        assert_images(again, *cifar10)
    new = picture(1, 2, 3, height=32, width=32)
    next((folder / "train/bear").iterdir()).write_bytes(encoded(new))
    miniatures.forget()
    changed = load("cifar10")
    assert changed.content != first.content
    assert any(np.array_equal(i, new) for i in changed.train_images.permute(0, 2, 3, 1).numpy())


def test_a_damaged_cache_is_made_again(shelf, cifar10, monkeypatch):
    png_folders(shelf.data, cifar10)
    first = load("cifar10")
    cache = shelf.data / ".cache" / "cifar10.safetensors"
    whole = cache.read_bytes()
    for damage in (whole[:-100], b"", whole[:4]):
        cache.write_bytes(damage)
        miniatures.forget()
        assert torch.equal(load("cifar10").train_images, first.train_images)
        miniatures.forget()
        with monkeypatch.context() as patched:
            refuse_to_decode(patched)
            assert load("cifar10").content == first.content


@pytest.mark.slow
def test_a_second_process_decodes_nothing(shelf, tmp_path):
    """With a dataset that every process knows: one's own."""
    shelf.run("data", "add", "fruit", own_folders(tmp_path / "mine"))
    code = (
        "import PIL.Image\n"
        "PIL.Image.open = None\n"
        "from hypersphere.data.load import load\n"
        "print(load('fruit').content)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == load("fruit").content


def test_files_are_hashed_once(shelf, cub, monkeypatch):
    shelf.get("cub")
    first = load_files("cub").content
    miniatures.forget()
    path = shelf.data / bird(2, 0)
    known = path.stat()
    path.write_bytes(bytes(len(path.read_bytes())))  # other bytes behind equal names, sizes, times
    os.utime(path, ns=(known.st_atime_ns, known.st_mtime_ns))
    assert load_files("cub").content == first
    assert shelf.run("data", "check", "cub").status == 0  # reads all of it again
    assert load_files("cub").content != first


def test_a_check_is_remembered_for_these_files(shelf, cub):
    shelf.get("cub")
    shelf.run("data", "check", "cub")
    note, stamp = notes.read("cub"), notes.stamp(read("cub"))
    assert shelf.site.url("good") in note["source"]  # still known
    assert stamp and note["stamp"] == stamp  # so that nothing is hashed again


def test_a_folder_that_cannot_be_written_is_no_trouble(shelf, cifar10, cub):
    png_folders(shelf.data, cifar10)
    miniatures.write(shelf.data, cub)
    (shelf.data / ".cache").write_text("in the way")
    assert_images(load("cifar10"), *cifar10)
    miniatures.forget()
    assert_images(load("cifar10"), *cifar10)
    assert len(load_files("cub").train.paths) == 8
    assert shelf.run("data", "check", "cifar10", "cub").status == 0
    assert shelf.run("data", "status").status == 0
    assert (shelf.data / ".cache").read_text() == "in the way"


def test_a_full_disk_costs_the_cache_alone(shelf, cifar10):
    png_folders(shelf.data, cifar10)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        assert_images(load("cifar10"), *cifar10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (shelf.data / ".cache" / "cifar10.safetensors").exists()


# Splits and draws of images


def sha256(values):
    return hashlib.sha256(json.dumps(np.asarray(values).tolist()).encode()).hexdigest()


# Training images of 400 species, falling as they do in Pl@ntNet: few have many.
COUNTS = np.array([3000 // (c + 1) for c in range(400)])
THRESHOLDS = {200: 10, 100: 16, 50: 28, 25: 43}
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(100), 220))


def drawn() -> dict:
    """What the golden file freezes. Regenerate it only with a revision of the components."""
    counts = imbalanced_counts(100, 2, 200)
    return {
        "base_novel": sha256(base_novel(200, num_base=100).unseen),
        "by_count": sha256(by_count(COUNTS.tolist(), at_least=100).seen),
        "choose_by_count": [
            sha256(choose_by_count(COUNTS, total=182, at_least=THRESHOLDS, draw=d)) for d in (0, 1)
        ],
        "holdout": [sha256(np.flatnonzero(holdout(LABELS, 0.1, d))) for d in (0, 1)],
        "imbalanced": [sha256(imbalanced(LABELS, counts, d)) for d in (0, 1)],
        "seen_unseen": sha256(seen_unseen(200, num_unseen=100, permutation=0).unseen),
        "support": sha256(support(LABELS, range(50), 5, 0, 0)),
    }


def test_golden_draws():
    assert drawn() == json.loads(GOLDEN.read_text())


def test_base_and_novel_classes():
    split = base_novel(200, num_base=100)
    assert split.seen == tuple(range(100)) and split.unseen == tuple(range(100, 200))
    for num_base in (4, 5):
        with pytest.raises(ValueError, match=f"num_base={num_base} leaves no novel class of 4"):
            base_novel(4, num_base=num_base)


def test_classes_by_count():
    split = by_count([5, 100, 99, 101, 0], at_least=100)
    assert (split.seen, split.unseen) == ((1, 3), (0, 2, 4))
    assert by_count([1, 2, 3], at_least=1).unseen == ()
    with pytest.raises(ValueError, match=r"at_least=101: 1 of 5 .*the largest has 101\)"):
        by_count([5, 100, 99, 101, 0], at_least=101)


def test_classes_with_the_counts_of_plantnet():
    chosen = choose_by_count(COUNTS, total=182, at_least=THRESHOLDS)
    assert len(chosen) == len(set(chosen)) == 182 and chosen == sorted(chosen)
    have = COUNTS[chosen]
    assert [int((have >= n).sum()) for n in (200, 100, 50, 25)] == [10, 16, 28, 43]
    # ... which are the classes that the paper's splits train on
    assert [len(by_count(have, at_least=n).seen) for n in (200, 100, 50, 25)] == [10, 16, 28, 43]
    assert choose_by_count(COUNTS, total=182, at_least=THRESHOLDS, draw=1) != chosen
    with pytest.raises(ValueError, match="3 classes with 200 or more .*10 are needed"):
        choose_by_count(np.array([200] * 3 + [30] * 300), total=182, at_least=THRESHOLDS)


def test_a_validation_part_has_a_share_of_each_class():
    labels = np.repeat([0, 1, 2, 3], [20, 10, 2, 5])
    for draw in range(3):
        held = holdout(labels, 0.1, draw)
        assert np.bincount(labels[held], minlength=4).tolist() == [2, 1, 1, 1]
    assert np.bincount(labels[holdout(labels, 0.99, 0)]).tolist() == [19, 9, 1, 4]  # never all
    assert not np.array_equal(holdout(labels, 0.1, 0), holdout(labels, 0.1, 1))
    # a class's draw does not depend on the other classes
    alone = holdout(labels[:20], 0.1, 0)
    assert np.array_equal(holdout(labels, 0.1, 0)[:20], alone)
    with pytest.raises(ValueError, match="class 7 has a single image"):
        holdout(np.array([1, 1, 7]), 0.5, 0)


def test_imbalanced_training_images():
    counts = imbalanced_counts(100, 2, 200)
    assert counts.tolist() == [2 * k for k in range(1, 101)]
    chosen = imbalanced(LABELS, counts, 0)
    assert np.bincount(LABELS[chosen]).tolist() == counts.tolist()
    assert np.array_equal(chosen, np.unique(chosen))
    fewer = imbalanced(LABELS, counts // 2, 0)
    assert set(fewer.tolist()) < set(chosen.tolist())  # nested
    assert not np.array_equal(imbalanced(LABELS, counts, 1), chosen)
    with pytest.raises(ValueError, match="class 1 has 2 images, 3 are asked"):
        imbalanced(np.array([0, 0, 0, 1, 1]), [3, 3], 0)
