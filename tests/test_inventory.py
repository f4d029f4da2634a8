"""`hypersphere data`: one's own images, getting, status, check, vectors; what is kept beside it.

With miniature datasets (miniatures.py), served from this machine.
"""

import hashlib
import json
import os
import resource
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import torch

from hypersphere.data import notes
from hypersphere.data.facts import DATASETS
from hypersphere.data.layouts import read
from hypersphere.data.load import class_counts, load, load_files
from tests import miniatures
from tests.miniatures import (
    CLASSES,
    assert_images,
    bird,
    encoded,
    own_folders,
    picture,
    png_folders,
    training,
)

# One's own


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
    shelf.site.manners["good"] = {"cut": 20_000, "status": lambda n: 503 if n > 1 else None}
    line = shelf.run("data", "get", "cifar10").line
    assert "503" in line and "hypersphere data get cifar10 --from FOLDER" in line
    assert shelf.placed() == []
    assert shelf.run("data", "status", "cifar10").out.split()[:2] == ["cifar10", "missing"]
    shelf.site.manners.clear()
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
    assert set(rows) - gone == {"cifar10", "digits", "long_tail_digits", "rotated_digits"}
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
        ["long_tail_digits", "present"],
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


# Word vectors


NAMES = ("cat", "sweet pepper", "maple_tree", "black dog")
WORDS = {"cat": (1, 0, 0), "sweet": (0, 2, 0), "pepper": (4, 0, 2), "Maple_Tree": (0, 0, 3),
         "maple": (9, 9, 9), "dog": (1, 1, 0)}  # fmt: skip


@pytest.fixture
def words(shelf, tmp_path):
    """A file of GloVe's form, for a dataset of four classes."""
    shelf.describe("cifar10", classes=NAMES, num_classes=4)
    lines = (f"{word} {' '.join(map(str, vector))}\n" for word, vector in WORDS.items())
    (tmp_path / "glove.txt").write_text("".join(lines))
    return tmp_path / "glove.txt"


def test_vectors_tell_what_was_averaged_and_what_is_missing(shelf, words, tmp_path):
    outcome = shelf.run("data", "vectors", "cifar10", words)
    assert outcome.status == 0 and outcome.err == ""
    assert outcome.out.splitlines() == [
        "glove.txt: 4 classes, 3 numbers each",
        "3 names as one word, 1 averaged from several",
        "black dog: no black; used dog",
        f"sha256 {hashlib.sha256(words.read_bytes()).hexdigest()}",
    ]
    assert not list(tmp_path.rglob("*.npy"))


@pytest.mark.parametrize("out", ["mine.npy", "deep/er/mine", "mine.300d"])
def test_vectors_are_written_in_the_order_of_the_labels(shelf, words, tmp_path, out):
    outcome = shelf.run("data", "vectors", "cifar10", words, "--out", tmp_path / out)
    written = tmp_path / f"{out.removesuffix('.npy')}.npy"  # mine.50d goes elsewhere than mine.300d
    assert outcome.status == 0 and f"written: {written}" in outcome.out
    found = np.load(written)
    assert found.dtype == np.float32
    assert found.tolist() == [[1, 0, 0], [2, 1, 1], [0, 0, 3], [1, 1, 0]]
    again = shelf.run("data", "vectors", "cifar10", written)  # what was written can be read
    assert again.status == 0 and "rows taken in label order" in again.out
    assert list(written.parent.glob("*mine*")) == [written]


def test_vectors_that_do_not_fit_are_not_written(shelf, words, tmp_path):
    def line(name, file):
        return shelf.run("data", "vectors", name, file, "--out", tmp_path / "mine").line

    lacking = tmp_path / "lacking.txt"
    lacking.write_text("cat 1 0\nsweet 0 1\ndog 1 1\n")
    assert f"{lacking}: no word for 1 classes: maple_tree" in line("cifar10", lacking)
    assert f"{tmp_path / 'none.txt'}: No such file" in line("cifar10", tmp_path / "none.txt")
    np.save(tmp_path / "three.npy", np.eye(3))
    assert "has 3 rows, the dataset has 4 classes" in line("cifar10", tmp_path / "three.npy")
    assert "did you mean 'cifar10'" in line("cifar1", words)
    assert "hypersphere data get plantnet300k" in line("plantnet300k", words)  # names come with it
    assert not (tmp_path / "mine.npy").exists()


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
    smaller = (miniatures.jpeg(90, i) for i in range(100))
    other = next(content for content in smaller if len(content) <= known.st_size)
    path.write_bytes(other.ljust(known.st_size, b"\0"))  # equal names, sizes and times
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
