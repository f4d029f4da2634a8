"""Image files of any size: decoded, cut, batched and trained on, the same whatever the workers."""

import numpy as np
import PIL.Image
import pytest
import torch
from torchvision.transforms.v2 import functional

from hypersphere.config import Evaluation, compose, split_config
from hypersphere.config.data import Views, describe
from hypersphere.data import threads
from hypersphere.data.facts import DATASETS
from hypersphere.data.inventory import add
from hypersphere.data.listing import DataError
from hypersphere.data.load import class_counts, load, load_files
from hypersphere.errors import UserError
from hypersphere.execute import run_node
from hypersphere.store import Store
from hypersphere.training.files import (
    Base,
    Decoded,
    FileImages,
    base_of,
    counted,
    decoded_budget,
    num_workers,
)
from hypersphere.training.images import SmallImages

CLASSES, EACH = ("ant", "bee", "cow", "dog"), 6


@pytest.fixture
def birds(tmp_path, monkeypatch):
    """A user's own dataset `birds`: photographs of different sizes, each class a colour."""
    rng = np.random.default_rng(0)
    for split, number in (("train", EACH), ("test", 3)):
        for c, name in enumerate(CLASSES):
            folder = tmp_path / "mine" / split / name
            folder.mkdir(parents=True)
            for i in range(number):
                height, width = rng.integers(40, 70, 2)
                pixels = rng.integers(0, 60, (height, width, 3)) + 60 * np.array([c & 1, c & 2, 1])
                PIL.Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    monkeypatch.setenv("HYPERSPHERE_DATA", str(tmp_path / "data"))
    for cached in (load, load_files, class_counts):
        cached.cache_clear()
    add("birds", tmp_path / "mine")
    yield tmp_path / "mine"
    for cached in (load, load_files, class_counts):
        cached.cache_clear()


VIEWS = ("data.views.resize=36", "data.views.crop=32")


def training(*overrides: str):
    return split_config(
        compose(
            ["data=birds", "split=base_novel", "split.num_base=3", "batches.size=5", *VIEWS,
             "schedule.epochs=2", "backbone.filters=[4,4]", "backbone.dim=8",
             "evaluations.novel_classes.shots=[1]", *overrides]
        )
    )  # fmt: skip


def batches(chosen, epoch=0):
    """All training batches of an epoch, as one process would see them."""
    module = FileImages(chosen)
    module.setup()
    images, labels = zip(*module.batches(epoch), strict=True)
    return torch.cat(images), torch.cat(labels), module


@pytest.mark.parametrize("kind", ["random", "random_resized", "center"])
def test_batches_do_not_depend_on_workers_or_memory(birds, monkeypatch, kind):
    chosen, _ = training(f"data.views.train={kind}")
    found = []
    for workers, memory in ((0, 0), (0, 1), (2, 0), (2, 1)):
        monkeypatch.setenv("HYPERSPHERE_WORKERS", str(workers))
        monkeypatch.setenv("HYPERSPHERE_DECODED_GB", str(memory))
        images, labels, module = batches(chosen)
        assert (module.decoded["train"].pixels is not None) == bool(memory)
        found.append((images, labels))
    assert all(torch.equal(a, found[0][0]) and torch.equal(b, found[0][1]) for a, b in found)
    assert found[0][0].shape == (3 * EACH, 3, 32, 32) and found[0][0].dtype == torch.uint8
    assert found[0][1].bincount().tolist() == [EACH] * 3


def test_each_epoch_and_seed_draws_anew_and_global_state_stays(birds):
    viewed = batches(training()[0])[2].batches(0).dataset
    state = torch.get_rng_state()
    assert torch.equal(viewed[0][0], viewed[0][0])
    assert torch.equal(torch.get_rng_state(), state)

    def cut(*overrides, epoch=0):
        module = batches(training(*overrides)[0], epoch)[2]
        return torch.stack([module.batches(epoch).dataset[i][0] for i in range(6)])

    first = cut()
    assert torch.equal(first, cut())
    assert not torch.equal(first, cut(epoch=1)) and not torch.equal(first, cut("seed=1"))


def test_an_image_shown_again_in_an_epoch_is_cut_anew(birds):
    """Examples of few are oversampled, each time in another crop (Qi et al. 2018, section 6.1.2:
    "random data augmentation is also applied")."""
    chosen, _ = split_config(
        compose(
            ["data=birds", "split=base_novel", "split.num_base=2", "split.trained=all", *VIEWS,
             "data.shots={number: 1, draw: 0}", "batches=class_balanced", "batches.classes=4",
             "batches.images=2", "batches.per_epoch=3", "evaluations=none"]
        )
    )  # fmt: skip
    images, labels, module = batches(chosen)
    shown = images[labels == 3]
    assert len(shown) == 6 and len(shown.flatten(1).unique(dim=0)) == 6
    first = counted([np.array([2, 0]), np.array([2, 2])])
    assert list(first) == [[(2, 0), (0, 0)], [(2, 1), (2, 2)]]
    # what is shown once is cut as ever, and what is cut says which run it is
    viewed = module.batches(0).dataset
    assert torch.equal(viewed[2][0], viewed[2, 0][0])
    assert chosen.identity()["batches"]["revision"] == 2
    assert training()[0].identity()["batches"]["revision"] == 1


def test_test_views_are_the_same_each_time_and_random_only_if_asked(birds):
    def tested(*overrides):
        module = FileImages(training(*overrides)[0])
        parts = module.everything()
        assert parts["train"][1].bincount().tolist() == [EACH] * 4  # all classes, none augmented
        return torch.cat(list(parts["test"][0]))

    assert torch.equal(tested(), tested())
    assert torch.equal(tested(), tested("seed=1"))  # centre crops hold no draw
    literal = "data.views.test=random_resized"
    assert torch.equal(tested(literal), tested(literal))
    assert not torch.equal(tested(literal), tested(literal, "seed=1"))
    assert not torch.equal(tested(literal), tested())


def test_views_against_torchvision_by_hand(birds):
    module = FileImages(training("data.views.square=true", "data.views.flip=false")[0])
    images = torch.cat(list(module.everything()["test"][0]))
    for path, found in zip(load_files("birds").test.paths, images, strict=True):
        pixels = functional.pil_to_tensor(PIL.Image.open(path))
        expected = functional.center_crop(functional.resize(pixels, [36, 36], antialias=True), [32])
        assert torch.equal(found, expected)


@pytest.mark.parametrize("square", [True, False])
@pytest.mark.parametrize(("width", "height"), [(50, 70), (70, 50), (61, 61), (333, 500), (40, 41)])
def test_sizes_are_known_before_decoding(tmp_path, width, height, square):
    path = tmp_path / "a.png"
    PIL.Image.new("RGB", (width, height)).save(path)
    for resize in (None, 36, 48):
        base = Base(resize, square)
        assert base.decode(path).shape[1:] == base.size(width, height)
        pixels = functional.pil_to_tensor(PIL.Image.open(path))
        if resize and not square:  # torchvision's own answer for the shorter side
            assert functional.resize(pixels, [resize]).shape[1:] == base.size(width, height)


def test_random_resized_crops_are_cut_from_the_files_own_pixels(birds):
    views = training("data.views.train=random_resized")[0].data.views
    assert base_of(views, "random_resized").resize is None
    assert base_of(views, "center").resize == 36


def test_trained_to_a_record_and_judged(birds, monkeypatch):
    monkeypatch.setenv("HYPERSPHERE_WORKERS", "0")
    chosen, evaluations = training()
    record = run_node(chosen, Store(), print)
    assert record["data"] == {"name": "birds", "content": DATASETS["birds"].content}
    assert len(record["epochs"]) == 2 and "test_accuracy" in record["metrics"]
    judged = run_node(Evaluation(evaluations["novel_classes"], chosen), Store(), print)
    assert 0 <= judged["metrics"]["all/renormalized/joint/all"] <= 1
    line = describe(chosen.data, chosen.dataset)
    assert "24 + 12 images" in line and "random 32 x 32 and flip in training" in line
    assert "center 32 x 32 in test" in line and "ImageNet" in line
    # What changes numbers changes the run's id.
    other = [("data.views.test=random_resized",), ("data.views.flip=false",),
             ("data.views.square=true",), ("data.normalize=symmetric",),
             ("data.validation={share: 0.34}",)]  # fmt: skip
    assert len({training(*o)[0].id for o in other} | {chosen.id}) == 6


@pytest.mark.parametrize("kind", ["files", "memory"])
def test_held_out_images_are_watched_and_not_trained_on(birds, kind, small):
    if kind == "files":
        chosen, _ = training("data.validation={share: 0.34}")
        module = FileImages(chosen)
        module.setup()
        held, used = set(module.held.paths), set(module.train.paths)
        assert len(held) == 6 and len(used) == 12 and not held & used
        assert module.held.labels.bincount().tolist() == [2, 2, 2]
    else:
        chosen = small("data.validation={share: 0.1}")
        module = SmallImages(chosen)
        module.setup()
        seen = torch.isin(load("digits").train_labels, torch.tensor(chosen.split().seen))
        assert len(module.held[1]) + len(module.train[1]) == seen.sum()
        assert abs(len(module.held[1]) - 0.1 * seen.sum()) < 5
        pixels = {image.numpy().tobytes() for image in module.held[0]}
        assert not pixels & {image.numpy().tobytes() for image in module.train[0]}
    assert len(module.watched()) == 2


def test_validation_accuracy_is_recorded(small):
    record = run_node(small("data.validation={share: 0.1}"), Store(), lambda line: None)
    assert {"test_accuracy", "validation_accuracy"} < set(record["metrics"])
    assert all(0 <= e["validation_accuracy"] <= 1 for e in record["epochs"])
    assert record["metrics"]["validation_accuracy"] > 0.5


def test_imbalance_is_trained_on(small):
    chosen = small("split=all_classes", "evaluations=none",
                   "data.imbalance={smallest: 2, largest: 101}")  # fmt: skip
    module = SmallImages(chosen)
    module.setup()
    assert module.train[1].bincount().tolist() == [2, 13, 24, 35, 46, 57, 68, 79, 90, 101]
    assert len(module.test[1]) == 355  # all of the test images
    with pytest.raises(UserError, match=r"data \(digits\): class \d has \d+ images, \d+ are asked"):
        SmallImages(
            small("split=all_classes", "evaluations=none",
                  "data.imbalance={smallest: 2, largest: 900}")
        ).setup()  # fmt: skip


# What is said when something does not fit


def test_a_damaged_photograph_is_named(birds):
    path = birds / "train" / "bee" / "2.png"
    load_files("birds")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError) as error:
        for path_ in load_files("birds").train.paths:
            Base(36, False).decode(path_)
    assert str(path) in str(error.value) and "copy the dataset again" in str(error.value)
    with pytest.raises(DataError, match=r"2\.png"):
        Decoded([path], Base(36, False))


def test_changed_files_are_noticed(birds):
    load_files("birds")
    load_files.cache_clear()
    PIL.Image.new("RGB", (50, 50)).save(birds / "train" / "bee" / "2.png")
    with pytest.raises(DataError, match="are not those that were added"):
        load_files("birds")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"train": "whole"}, "`whole` needs resize, square: true and crop: null"),
        ({"crop": None}, "`random` needs crop"),
        ({"crop": 40}, "`random` needs resize of at least crop=40"),
        ({"resize": None}, "`random` needs resize of at least crop=32"),
    ],
)
def test_views_that_do_not_fit(values, text):
    good = {
        "resize": 36,
        "square": False,
        "crop": 32,
        "train": "random",
        "test": "center",
        "flip": True,
    }
    assert Views(**good).size == 32
    with pytest.raises(ValueError, match=text.replace("`", ".")):
        Views(**{**good, **values})


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["data=birds", "data.size=32", *VIEWS], "use views instead of size and augmentation"),
        (["data=birds", "data.views=null"], "data.views must say"),
        (["data=birds", "data.normalize=true", *VIEWS], "normalize=imagenet or symmetric"),
        (["data=birds", "data.views.train=whole"], "`whole` needs resize"),
        (["data=birds", "data.views.tran=whole"], "data.views.tran: no such key"),
        (["data=digits", "data.normalize=imagenet"], "is for colour"),
        (["data=digits", "data.views={resize: 8, square: true, crop: null, train: whole, test: whole, flip: false}"], "held in memory"),
        (["data=cifar10_1"], "has no training images"),
        (["data=brids"], "did you mean 'birds'"),
    ],
)  # fmt: skip
def test_a_configuration_that_does_not_fit_the_images(birds, overrides, text):
    with pytest.raises(UserError) as error:
        split_config(compose(["split=all_classes", "evaluations=none", *overrides]))
    assert text in str(error.value) and "\n" not in str(error.value)


def test_memory_and_workers(monkeypatch):
    monkeypatch.setenv("HYPERSPHERE_DECODED_GB", "1.5")
    assert decoded_budget() == 1.5e9
    monkeypatch.delenv("HYPERSPHERE_DECODED_GB")
    assert 1e7 < decoded_budget() < 1e13
    monkeypatch.setenv("HYPERSPHERE_WORKERS", "3")
    assert num_workers() == 3
    monkeypatch.delenv("HYPERSPHERE_WORKERS")
    assert num_workers() == 0  # one thread: one of many processes


def test_threads_keep_the_order_and_few_wait(monkeypatch):
    monkeypatch.setattr(threads, "AHEAD", 5)
    begun = []

    def one(i):
        begun.append(i)
        if i == 12:
            raise OSError("the twelfth")
        return 2 * i

    found = threads.in_threads(one, range(100), 3)
    assert next(found) == 0 and max(begun) < 5
    assert [next(found) for _ in range(11)] == list(range(2, 24, 2))
    with pytest.raises(OSError, match="the twelfth"):
        next(found)
    assert max(begun) < 15
    assert list(threads.in_threads(str, [], 2)) == []
