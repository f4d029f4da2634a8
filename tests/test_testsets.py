"""Test images, clean and corrupted: made here from the clean ones, or cut from official files."""

import numpy as np
import pydantic
import pytest
import torch

from hypersphere.data.corruptions import KINDS, corrupt
from hypersphere.data.load import load
from hypersphere.data.testsets import Corruption, evaluation_images, official
from hypersphere.errors import UserError
from tests import miniatures
from tests.miniatures import CLASSES, pictures

NOISE = {"kind": "impulse_noise", "severity": 4, "strength": "imagenet"}


def test_clean_images_are_the_test_images():
    images, labels = evaluation_images("digits")
    assert torch.equal(images, load("digits").test_images)
    assert torch.equal(labels, load("digits").test_labels)


@pytest.mark.parametrize("kind", KINDS)
def test_corrupted_images_keep_their_labels_and_places(kind):
    clean = load("digits").test_images.clone()
    images, labels = evaluation_images("digits", Corruption(**NOISE | {"kind": kind}))
    assert torch.equal(labels, load("digits").test_labels)
    assert images.shape == clean.shape and images.dtype == torch.uint8
    assert torch.equal(load("digits").test_images, clean)  # those in memory stay as they are
    for i in (0, 7, 354):  # each from the image at its place alone
        how = {"kind": kind, "severity": 4, "strength": "imagenet", "seed": 0}
        alone = corrupt(clean[i : i + 1], index=torch.tensor([i]), **how)
        assert torch.equal(images[i : i + 1], alone) and not torch.equal(images[i], clean[i])


def test_noise_has_its_own_seed():
    images = [evaluation_images("digits", Corruption(**NOISE, seed=s))[0] for s in (0, 0, 1)]
    assert torch.equal(images[0], images[1]) and not torch.equal(images[0], images[2])


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"severity": 0}, "severity"),
        ({"severity": 6}, "severity"),
        ({"severity": "3"}, "severity"),
        ({"severity": 2.0}, "severity"),
        ({"kind": "fog"}, "kind"),
        ({"strength": "cifar10"}, "strength"),
        ({"seed": -1}, "seed"),
        ({"seeds": 1}, "seeds"),
    ],
)
def test_corruptions_that_there_are_not(change, key):
    assert all(Corruption(**NOISE | {"severity": s}).severity == s for s in range(1, 6))
    with pytest.raises(pydantic.ValidationError) as error:
        Corruption(**NOISE | change)
    assert [e["loc"] for e in error.value.errors()] == [(key,)]


def test_a_corruption_says_what_it_is():
    assert str(Corruption(**NOISE)) == "impulse noise, severity 4 (imagenet)"


@pytest.mark.parametrize("name", ["cub", "cub_50"])
def test_images_that_stream_have_no_test_set_in_memory(shelf, cub, name):
    shelf.get("cub")
    for corruption in (None, Corruption(**NOISE)):
        with pytest.raises(UserError, match=f"{name}: .*stream from files"):
            evaluation_images(name, corruption)


# Official files


@pytest.fixture
def clean(shelf):
    """Images and labels of which cifar10_c has two corruptions; severity s adds s to each pixel."""
    images, labels = pictures([3, 2, 2], 0)
    facts = {"classes": CLASSES, "num_classes": 3, "size": 8, "test": 7}
    files = miniatures.cifar10_c(["defocus_blur", "impulse_noise"], images, labels)
    shelf.publish("cifar10_c", files, **facts)
    return images, labels


@pytest.mark.parametrize("severity", range(1, 6))
def test_official_files_hold_the_severities_one_after_another(shelf, clean, severity):
    shelf.get("cifar10_c")
    corruption = Corruption(kind="defocus_blur", severity=severity, strength="official")
    images, labels = evaluation_images("cifar10", corruption)
    assert images.dtype == torch.uint8 and labels.dtype == torch.int64
    expected = clean[0] + np.uint8(severity)
    assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), expected)  # in the files' order
    assert labels.tolist() == clean[1].tolist() != sorted(clean[1])


def test_official_images_lie_in_memory(shelf, clean):
    shelf.get("cifar10_c")
    images, _ = official("cifar10", "defocus_blur", 1)
    before = images.clone()
    path = shelf.data / "CIFAR-10-C/defocus_blur.npy"
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.seek(size - 5 * 7 * 8 * 8 * 3)
        file.write(bytes(5 * 7 * 8 * 8 * 3))
    assert torch.equal(images, before)  # neither bound to the file nor read-only as it is


def test_an_official_kind_that_is_not_there(shelf, clean):
    shelf.get("cifar10_c")
    for kind, hint in (("defocus_blurr", "did you mean 'defocus_blur'"), ("zzz", "impulse_noise")):
        with pytest.raises(UserError) as error:
            official("cifar10", kind, 1)
        line = str(error.value)
        assert str(shelf.data / "CIFAR-10-C") in line and f"{kind}.npy" in line and hint in line


@pytest.mark.parametrize("lost", ["images", "severity", "labels"])
def test_official_files_of_another_length(shelf, clean, lost):
    shelf.get("cifar10_c")
    folder = shelf.data / "CIFAR-10-C"
    files = {"images": ["defocus_blur"], "labels": ["labels"]}
    for name in files.get(lost, ["defocus_blur", "labels"]):
        array = np.load(folder / f"{name}.npy")
        np.save(folder / f"{name}.npy", array[: 28 if lost == "severity" else -1])
    with pytest.raises(UserError) as error:
        official("cifar10", "defocus_blur", 5)
    line = str(error.value)
    assert str(folder / "defocus_blur.npy") in line and "expected 35" in line
    assert "`hypersphere data get cifar10_c --replace`" in line


def test_what_is_not_here_or_not_at_all(data):
    corruption = Corruption(kind="defocus_blur", severity=1, strength="official")
    for name, missing in (("cifar10", "cifar10_c"), ("cifar100", "cifar100_c")):
        with pytest.raises(UserError, match=f"`hypersphere data get {missing}`"):
            evaluation_images(name, corruption)
    load.cache_clear()
    for given in (None, Corruption(**NOISE)):
        with pytest.raises(UserError, match="`hypersphere data get cifar10`"):
            evaluation_images("cifar10", given)
    with pytest.raises(UserError, match="digits: .*no official corruptions.*generate"):
        evaluation_images("digits", corruption)
