"""What is wrong with a copy is said in one line that names the file and the remedy.

Miniature datasets in their official layouts (miniatures.py), each damaged in one way. MNIST's
files and class folders of PNGs are in test_data.py, the archives themselves in test_archives.py.
"""

import io
import json
import tarfile

import numpy as np
import pytest

from hypersphere.config import Evaluation, compose, split_config
from hypersphere.data.facts import DATASETS
from hypersphere.data.load import load, load_files
from hypersphere.errors import UserError
from hypersphere.execute import run_node, run_nodes
from hypersphere.store import Store
from tests import miniatures
from tests.miniatures import (
    CLASSES,
    bird,
    encoded,
    picture,
    pictures,
    png_folders,
    training,
    write,
)
from tests.publisher import tar, zipped


def complaint(shelf, name, state="corrupt"):
    """What reading the copy says, and `data check` as well: one line."""
    with pytest.raises(UserError) as error:
        (load if DATASETS[name].in_memory else load_files)(name)
    line = str(error.value)
    assert "\n" not in line
    checked = shelf.run("data", "check", name)
    assert checked.status == 1 and checked.out.split()[:2] == [name, state]
    assert line in checked.out
    return line


def assert_names(line, where, *words):
    """The line names the file and a remedy."""
    assert str(where) in line
    assert all(word in line for word in words), line


# What a mirror offers


def assert_nothing_came(shelf, name):
    assert shelf.placed() == []
    assert {path.name for path in shelf.data.iterdir()} <= {".downloads"}
    said = shelf.run("data", "status", name).out.splitlines()[0]
    assert said.split() == [name, "missing", "hypersphere", "data", "get", name]


@pytest.mark.parametrize("damage", ["cut short", "other bytes"])
def test_an_archive_that_is_not_the_published_one(shelf, cifar10, damage):
    file = "cifar-10-python.tar.gz"
    whole = shelf.site.files[file]
    shelf.site.files[file] = whole[:-100] if damage == "cut short" else bytes(len(whole))
    line = shelf.run("data", "get", "cifar10").line
    reason = "offers 1" if damage == "cut short" else "checksum md5:"
    assert_names(line, f"{shelf.site.url()}/{file}: {reason}")
    assert "hypersphere data get cifar10 --from FOLDER" in line
    assert_nothing_came(shelf, "cifar10")
    assert not (shelf.data / ".downloads").exists()


@pytest.mark.parametrize("member", ["../evil", "cifar-10-batches-py/../../evil", "/tmp/evil"])
def test_an_archive_that_reaches_out_of_its_folder(shelf, cifar10, tmp_path, member):
    file = "cifar-10-python.tar.gz"
    inside = {"cifar-10-batches-py/data_batch_1": b"x", member: b"x"}
    shelf.publish("cifar10", {file: tar(inside)})  # its checksum is right
    line = shelf.run("data", "get", "cifar10").line
    assert_names(line, file, member, "not safe", "get the archive from its publisher")
    assert_nothing_came(shelf, "cifar10")
    assert not list(tmp_path.rglob("evil"))


SPECIES = {"1355": 3, "1356": 2}


def plantnet(shelf, counts=SPECIES, **facts):
    """Published without a checksum, as plantnet300k is."""
    body = zipped(miniatures.plantnet(counts, {}))
    facts = {"num_classes": 2, "train": 5, "test": 2} | facts
    shelf.publish("plantnet300k", {"plantnet_300K.zip": body}, **facts)
    return body


def test_a_damaged_archive_that_has_no_checksum(shelf):
    whole = plantnet(shelf)
    at = whole.index(miniatures.jpeg(1355, 0, 5)) + 50
    body = whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :]
    shelf.site.files["plantnet_300K.zip"] = body
    line = shelf.run("data", "get", "plantnet300k").line
    file = shelf.data / ".downloads/plantnet300k/plantnet_300K.zip"
    assert_names(line, file, "damaged or cut short", "get it again")
    assert_nothing_came(shelf, "plantnet300k")
    assert not file.exists()  # a damaged one is of no use to the next call
    shelf.site.files["plantnet_300K.zip"] = whole
    shelf.get("plantnet300k")


def test_an_archive_that_lacks_images(shelf):
    plantnet(shelf, {"1355": 3, "1356": 1})
    line = shelf.run("data", "get", "plantnet300k").line
    assert_names(line, shelf.data, "found 4 + 2 images", "expected 5 + 2", "--replace")
    assert shelf.run("data", "status", "plantnet300k").out.split()[1] == "partial"


# Images that do not decode


@pytest.mark.parametrize(
    "content",
    [miniatures.jpeg(1)[:200], b"", b"not a picture", encoded(picture(1, height=9), "JPEG")],
    ids=["cut", "empty", "text", "other size"],
)
def test_a_jpeg_of_tiny_imagenet_that_does_not_decode(shelf, tiny, content):
    write(shelf.data, tiny)
    file = shelf.data / "tiny-imagenet-200/train/n01/images/n01_1.JPEG"
    file.write_bytes(content)
    assert_names(complaint(shelf, "tiny_imagenet"), f"{file}: cannot be read", "copy", "again")


BIRD = ("paper=nsl", "data=cub", "split=base_novel", "split.num_base=3", "evaluations=none",
        "batches.size=4", "data.views.resize=12", "data.views.crop=8", "schedule.epochs=1",
        "backbone.filters=[4,4]", "backbone.dim=8")  # fmt: skip


@pytest.mark.parametrize("memory", [0, 1], ids=["decoded anew", "kept in memory"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_photograph_of_cub_that_does_not_decode(shelf, cub, monkeypatch, workers, memory):
    monkeypatch.setenv("HYPERSPHERE_WORKERS", str(workers))
    monkeypatch.setenv("HYPERSPHERE_DECODED_GB", str(memory))
    file = write(shelf.data, cub) / bird(1, 0)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(UserError) as error:
        run_node(training(*BIRD), Store(), lambda line: None)
    assert_names(str(error.value), f"{file}: cannot be read as an image", "copy", "again")
    assert "\n" not in str(error.value)


def test_an_empty_photograph_is_seen_without_decoding(shelf, cub):
    file = write(shelf.data, cub) / bird(1, 0)
    file.write_bytes(b"")
    said = shelf.run("data", "status", "cub").out.splitlines()[0]
    assert said.split()[:2] == ["cub", "corrupt"]
    assert_names(said, f"{file}: is empty", "copy cub again")


# Labels, lists and tables


def test_a_label_that_is_no_class_of_cifar10(shelf, cifar10):
    (images, labels), test = cifar10
    labels = np.where(np.arange(15) == 3, 12, labels)
    body = miniatures.cifar10((images, labels), test, CLASSES)["cifar-10-python.tar.gz"]
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        archive.extractall(shelf.data, filter="data")
    line = complaint(shelf, "cifar10")
    assert_names(line, shelf.data / "cifar-10-batches-py", "12", "3 classes", "get")


def edited(shelf, members, file, old, new):
    """The copied members, with one thing changed in one file; gives the file."""
    assert members[file].count(old) == 1
    write(shelf.data, {**members, file: members[file].replace(old, new)})
    return shelf.data / file


@pytest.mark.parametrize(
    ("file", "old", "new", "state"),
    [
        ("image_class_labels", b"\n5 2\n", b"\n5 999\n", "corrupt"),
        ("image_class_labels", b"\n5 2\n", b"\n", "corrupt"),
        ("images", b"\n12 004.Gull/Gull_0088.jpg\n", b"\n12 ", "corrupt"),
        ("train_test_split", b"\n12 1\n", b"\n12", "corrupt"),
    ],
    ids=["unknown class", "no class", "list cut short", "split cut short"],
)
def test_lists_of_cub_that_do_not_fit(shelf, cub, file, old, new, state):
    path = edited(shelf, cub, f"CUB_200_2011/{file}.txt", old, new)
    assert_names(complaint(shelf, "cub", state), path, "get", "again")


def test_a_split_that_leaves_out_an_image_of_cub(shelf, cub):
    edited(shelf, cub, "CUB_200_2011/train_test_split.txt", b"\n5 0\n", b"\n")
    line = complaint(shelf, "cub", "partial")
    assert_names(line, shelf.data, "8 + 3 images", "expected 8 + 4", "data get cub --replace")


@pytest.mark.parametrize(
    ("old", "new"), [(b"\tn03\t0", b"\tn99\t0"), (b"\tn03\t0\t0\t7\t7\n", b"")], ids=["n99", "cut"]
)
def test_annotations_of_tiny_imagenet_that_do_not_fit(shelf, tiny, old, new):
    path = edited(shelf, tiny, "tiny-imagenet-200/val/val_annotations.txt", old, new)
    assert_names(complaint(shelf, "tiny_imagenet"), path, "get", "again")


def test_a_listed_image_that_is_not_there(shelf, cub):
    file = write(shelf.data, cub) / bird(2, 1)
    file.unlink()
    line = complaint(shelf, "cub", "partial")
    assert_names(line, file, "1 of 4 listed images", "data get cub --replace")


@pytest.fixture
def living(shelf):
    """Annotations of three species, copied by hand."""
    species = {3: ("Aves", "Turdus"), 0: ("Plantae", "Acer"), 1: ("Aves", "Pica")}
    files = miniatures.inaturalist(species, [0, 3, 1, 0], [1, 0, 3])
    shelf.publish("inaturalist2017", files, num_classes=3, train=4, test=3)
    shelf.get("inaturalist2017")
    return shelf.data / "inaturalist2017/train2017.json"


@pytest.mark.parametrize("lost", ["categories", "annotations", "images", "a category", "the end"])
def test_annotations_of_inaturalist_that_lack_something(shelf, living, lost):
    found = json.loads(living.read_text())
    if lost == "a category":
        found["categories"] = [c for c in found["categories"] if c["id"] != 3]
    elif lost != "the end":
        del found[lost]
    text = json.dumps(found)
    living.write_text(text[:-20] if lost == "the end" else text)
    assert_names(complaint(shelf, "inaturalist2017"), living, "get", "again")


PAINTINGS = [(310, "Dutch", 1642), (12, "Flemish", 1611)], [(5, "Italian", 1503)]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"Flemish", b"", ["line 3", "school"]),
        (b"1611", b"", ["line 3", "creation_year"]),
        (b"1611", b"unknown", ["creation_year"]),
        (b"school", b"scool", ["school"]),
    ],
    ids=["no school", "no year", "year in words", "no column"],
)
def test_a_table_of_paintings_that_lacks_something(shelf, old, new, words):
    shelf.describe("omniart", num_classes=3, train=2, test=1)
    path = edited(shelf, miniatures.omniart(*PAINTINGS), "omniart/train_complete.csv", old, new)
    assert_names(complaint(shelf, "omniart"), path, "copy omniart again", *words)


def test_names_of_plantnet_that_cannot_be_read(shelf):
    plantnet(shelf)
    shelf.get("plantnet300k")
    file = shelf.data / "plantnet_300K/plantnet300K_species_id_2_name.json"
    file.write_text('{"1355": "Lact')
    assert_names(complaint(shelf, "plantnet300k"), file, "get", "again")


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_empty_folder_of_a_class(shelf, cifar10, split):
    folder = png_folders(shelf.data, cifar10)
    for file in (folder / split / "bear").iterdir():
        file.unlink()
    line = complaint(shelf, "cifar10", "partial")
    assert_names(line, folder / split, "class bear has no image", "copy cifar10 again")


def test_an_empty_wnid_of_tiny_imagenet(shelf, tiny):
    write(shelf.data, {k: v for k, v in tiny.items() if "train/n01/images" not in k})
    line = complaint(shelf, "tiny_imagenet", "partial")
    assert_names(line, "tiny-imagenet-200/train", "class n01 has no image", "again")


# Files of many images


@pytest.mark.parametrize("file", ["train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin"])
def test_a_file_of_stl10_with_another_length(shelf, file):
    splits = [pictures([2, 2, 1], s, height=96, width=96) for s in (0, 1)]
    facts = {"classes": CLASSES, "num_classes": 3, "train": 5, "test": 5}
    shelf.publish("stl10", miniatures.stl10(*splits, CLASSES), **facts)
    shelf.get("stl10")
    path = shelf.data / "stl10_binary" / file
    path.write_bytes(path.read_bytes()[:-1])
    assert_names(complaint(shelf, "stl10"), path.parent, "data get stl10 --replace")
    said = shelf.run("data", "status", "stl10").out.splitlines()[0]
    assert said.split()[:2] == ["stl10", "corrupt"]
    assert_names(said, path, f"expected {len(path.read_bytes()) + 1}", "data get stl10 --replace")


@pytest.fixture
def corrupted(shelf):
    """A copy of cifar10_c: fog and snow of 6 images."""
    images, labels = pictures([2, 2, 2], 0)
    facts = {"classes": CLASSES, "num_classes": 3, "size": 8, "test": 6}
    shelf.publish("cifar10_c", miniatures.cifar10_c(["fog", "snow"], images, labels), **facts)
    shelf.get("cifar10_c")
    return shelf.data / "CIFAR-10-C"


@pytest.mark.parametrize("command", ["status", "check"])
@pytest.mark.parametrize("lost", ["images", "a severity", "labels", "array"])
def test_corrupted_arrays_that_do_not_fit(shelf, corrupted, command, lost):
    path = corrupted / {"labels": "labels.npy"}.get(lost, "snow.npy")
    if lost in ("images", "labels"):
        np.save(path, np.load(path)[:-1])
    elif lost == "array":
        path.write_bytes(b"<html>not found</html>")
    else:  # of everything
        for file in corrupted.iterdir():
            np.save(file, np.load(file)[:24])
    said = shelf.run("data", command, "cifar10_c").out.splitlines()[0]
    assert said.split()[0] == "cifar10_c" and said.split()[1] in ("partial", "corrupt")
    assert_names(said, path if lost in ("images", "array") else corrupted, "get")


def test_arrays_of_another_length_than_their_labels(shelf):
    test = pictures([2, 3, 4], 0)
    facts = {"classes": CLASSES, "num_classes": 3, "size": 8, "test": 9}
    shelf.publish("cifar10_1", miniatures.cifar10_1(*test), **facts)
    shelf.get("cifar10_1")
    path = shelf.data / "CIFAR-10.1/cifar10.1_v6_data.npy"
    np.save(path, np.load(path)[:-1])
    assert_names(complaint(shelf, "cifar10_1"), path, "data get cifar10_1", "--replace")


# More shots than images


def test_more_shots_than_a_class_has_images(shelf, cifar10):
    shelf.get("cifar10")
    words = ["paper=nsl", "data=cifar10", "split.num_unseen=1", "schedule.epochs=1",
             "evaluations.novel_classes.shots=[1,100]"]  # fmt: skip
    chosen, evaluations = split_config(compose(words))
    judged = Evaluation(evaluations["novel_classes"], chosen)
    run_node(chosen, Store(), lambda line: None)
    with pytest.raises(UserError) as error:
        run_node(judged, Store(), lambda line: None)
    assert "\n" not in str(error.value)
    (outcome,) = run_nodes([judged], Store(), 1, lambda line: None)
    assert outcome.error == str(error.value)
    assert_names(outcome.error, "cifar10", "training images", "100 shots", "novel_classes")
