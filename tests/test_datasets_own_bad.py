"""One's own images that cannot be taken, or were lost, are said in one line."""

import json

import pytest

from hypersphere.data.facts import DATASETS
from hypersphere.errors import UserError
from tests import miniatures
from tests.miniatures import (
    bird,
    encoded,
    own_folders,
    picture,
    training,
    write,
)
from tests.test_datasets_bad import assert_names, complaint


def refused(shelf, *words):
    """The line that `data add` ends with; nothing of the dataset is left."""
    outcome = shelf.run("data", "add", *words)
    assert outcome.err == f"{outcome.line}\n" and list(shelf.data.rglob("*")) == []
    return outcome.line


@pytest.mark.parametrize("split", ["train", "test"])
def test_adding_an_empty_class(shelf, tmp_path, split):
    folder = own_folders(tmp_path / "mine")
    (folder / split / "dog").mkdir()
    line = refused(shelf, "fruit", folder)
    assert_names(line, folder / split, "class dog has no image", "remove its empty folder")
    assert "fruit" not in DATASETS


@pytest.mark.parametrize("streamed", [False, True])
def test_adding_a_file_that_is_no_image(shelf, tmp_path, streamed):
    folder = own_folders(tmp_path / "mine")
    if streamed:
        (folder / "train/cat/large.png").write_bytes(encoded(picture(1, height=200, width=200)))
    file = folder / "train/bear/x.png"
    file.write_text("a letter, renamed")
    line = refused(shelf, "fruit", folder)
    assert_names(line, f"{file}: cannot be read as an image", "remove it")
    assert "fruit" not in DATASETS


def test_adding_a_single_image_of_a_class(shelf, tmp_path):
    folder = own_folders(tmp_path / "mine", test=False)
    write(folder, {"dog/1.png": encoded(picture(1))})
    line = refused(shelf, "fruit", folder, "--test-share", "0.5")
    assert_names(line, "class 3 has a single image", "give the class more images")


def test_adding_a_folder_of_another_form(shelf, tmp_path):
    folder = own_folders(tmp_path / "mine", test=False)
    assert_names(refused(shelf, "fruit", folder), folder, "train/<class>/", "--test-share")


@pytest.mark.parametrize("name", ["Fruit", "my-fruit", "1fruit", "../fruit"])
def test_adding_under_a_name_that_is_none(shelf, tmp_path, name):
    line = refused(shelf, name, own_folders(tmp_path / "mine"))
    assert_names(line, repr(name), "lower-case letters, digits and underscores")


def test_adding_under_a_name_that_is_taken(shelf, tmp_path):
    folder = own_folders(tmp_path / "mine")
    for name in ("mnist", "hpn_prototypes"):
        assert_names(refused(shelf, name, folder), name, "choose another")
    shelf.run("data", "add", "fruit", folder)
    before = (shelf.data / "fruit/dataset.yaml").read_text()
    line = shelf.run("data", "add", "fruit", own_folders(tmp_path / "other", channels=1)).line
    assert_names(line, "fruit", "choose another")
    assert (shelf.data / "fruit/dataset.yaml").read_text() == before


def test_own_images_that_were_moved_away(shelf, tmp_path):
    folder = own_folders(tmp_path / "mine")
    shelf.run("data", "add", "fruit", folder)
    folder.rename(tmp_path / "elsewhere")
    line = complaint(shelf, "fruit", "missing")
    assert_names(line, folder, "hypersphere data add")  # there is nothing to get


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "fruit: [",
        lambda text: "",
        lambda text: "{}",
        lambda text: "fruit: 1",
        lambda text: "- fruit",
        lambda text: text[:100],
        lambda text: text.replace("num_classes: 3", "num_classes: 4"),
        lambda text: text.replace("layout: class_folders", "layout: folders"),
        lambda text: text + "  weather: fine\n",
    ],
    ids=["yaml", "empty", "no entry", "number", "list", "cut", "classes", "layout", "key"],
)
def test_a_damaged_description_of_own_images(shelf, tmp_path, damage):
    shelf.run("data", "add", "fruit", own_folders(tmp_path / "mine"))
    path = shelf.data / "fruit/dataset.yaml"
    path.write_text(damage(path.read_text()))
    with pytest.raises(UserError) as error:
        training("paper=nsl", "data=fruit", "split.num_unseen=1")
    for line in (str(error.value), shelf.run("data", "show", "fruit").line):
        assert_names(line, path, "hypersphere data add")


def test_a_damaged_description_stops_nothing_else(shelf, tmp_path):
    shelf.run("data", "add", "fruit", own_folders(tmp_path / "mine"))
    (shelf.data / "fruit/dataset.yaml").write_text("fruit: [")
    rows = {r["name"]: r for r in json.loads(shelf.run("data", "status", "--json").out)}
    assert rows["fruit"]["state"] == "corrupt" and rows["digits"]["state"] == "present"
    assert_names(rows["fruit"]["detail"], "dataset.yaml", "hypersphere data add fruit")
    assert "fruit" in shelf.run("data", "status").out
    assert shelf.run("plan", "--preset", "quick", "--item", "table2").status == 0
    assert training("paper=nsl", "data=digits").data.name == "digits"


def test_a_check_opens_every_file_that_streams(shelf, cub, tmp_path):
    """Where nothing is published to compare with, bytes alone do not show a cut photograph."""
    file = write(shelf.data, cub) / bird(1, 0)
    file.write_bytes(file.read_bytes()[:-60])
    assert shelf.run("data", "status", "cub").out.split()[:2] == ["cub", "present"]
    checked = shelf.run("data", "check", "cub")
    assert checked.status == 1
    assert_names(checked.out, f"{file}: cannot be read as an image", "copy", "again")
    folder = own_folders(tmp_path / "mine")
    cut = folder / "train/bear/cut.jpg"
    cut.write_bytes(miniatures.jpeg(1)[:-60])
    assert_names(shelf.run("data", "add", "fruit", folder).line, f"{cut}: cannot be read")
    assert "fruit" not in DATASETS


def test_a_refused_archive_is_not_kept(shelf):
    body = miniatures.zipped({"../outside": b"!", "plantnet_300K/images/train/1/1.jpg": b""})
    shelf.publish("plantnet300k", {"plantnet_300K.zip": body})
    assert_names(shelf.run("data", "get", "plantnet300k").line, "plantnet_300K.zip", "not safe")
    assert list(shelf.data.rglob("*.zip")) == []
