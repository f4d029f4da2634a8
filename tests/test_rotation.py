"""Images turned by angles of their own: which way, by how much, and the same from any copy."""

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import rotate as turn

from hypersphere.data import rotation
from hypersphere.data.load import load
from tests import miniatures
from tests.miniatures import CLASSES, pictures, png_folders

CHOSEN = [2, 3, 4, 5, 7]  # digits that no turn makes into another one


def noise(n, channels=1, size=9):
    draws = torch.Generator().manual_seed(n)
    return torch.randint(0, 256, (n, channels, size, size), generator=draws, dtype=torch.uint8)


def assert_turned(turned, images, angles):
    """Against torchvision, which turns counter-clockwise; both round to whole grey levels."""
    for found, image, angle in zip(turned, images, angles.tolist(), strict=True):
        expected = turn(image.double(), angle, InterpolationMode.BILINEAR)
        assert (found - expected).abs().max() < 0.51


@pytest.mark.parametrize(("degrees", "quarters"), [(0, 0), (90, 1), (180, 2), (270, 3)])
@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("channels", [1, 3])
def test_whole_quarters_go_counter_clockwise(degrees, quarters, size, channels):
    images = noise(3, channels, size)
    turned, angles = rotation.rotate(images, "train", degrees, degrees)
    assert np.array_equal(turned, np.rot90(images.numpy(), quarters, axes=(2, 3)))
    assert angles.tolist() == [degrees] * 3
    assert turned.is_contiguous(memory_format=torch.channels_last)


def test_what_is_on_the_right_comes_to_the_top():
    image = torch.zeros(1, 1, 5, 5, dtype=torch.uint8)
    image[0, 0, 2, 4] = 200
    turned, _ = rotation.rotate(image, "train", 90, 90)
    assert turned[0, 0].nonzero().tolist() == [[0, 2]] and turned[0, 0, 0, 2] == 200


def test_any_angle_is_torchvisions():
    images = noise(20, 3)
    turned, angles = rotation.rotate(images, "test", 0, 180)
    assert turned.dtype == torch.uint8 and angles.dtype == torch.float32
    assert_turned(turned, images, angles)


def test_angles_rest_on_the_place_in_the_split_alone():
    angles = rotation.rotate(noise(50), "train", 0, 180)[1]
    assert len(set(angles.tolist())) == 50 and angles.min() >= 0 and angles.max() < 180
    assert angles.min() < 30 and angles.max() > 150
    torch.manual_seed(1)
    np.random.seed(1)
    other = rotation.rotate(noise(50, 3, 4), "train", 0, 180)[1]
    assert torch.equal(other, angles)
    assert torch.equal(rotation.rotate(noise(7), "train", 0, 180)[1], angles[:7])
    assert not torch.equal(rotation.rotate(noise(50), "test", 0, 180)[1], angles)


def test_images_are_the_same_in_any_number():
    images = noise(2003, size=4)  # more than are turned at once
    turned, _ = rotation.rotate(images, "train", 0, 180)
    few, _ = rotation.rotate(images[:5], "train", 0, 180)
    assert torch.equal(turned[:5], few) and len(turned) == 2003
    assert rotation.rotate(images[:0], "train", 0, 180)[0].shape == (0, 1, 4, 4)


def test_rotated_digits():
    of, found = load("digits"), load("rotated_digits")
    for split in ("train", "test"):
        images, labels = getattr(of, f"{split}_images"), getattr(of, f"{split}_labels")
        keep = torch.isin(labels, torch.tensor(CHOSEN))
        angles = getattr(found, f"{split}_targets")["angle"]
        assert [CHOSEN[y] for y in getattr(found, f"{split}_labels")] == labels[keep].tolist()
        assert angles.min() >= 0 and angles.max() < 180 and len(angles) == keep.sum()
        assert_turned(getattr(found, f"{split}_images"), images[keep], angles)
    assert found.content != of.content


def test_a_shuffled_copy_is_turned_by_the_same_angles(shelf, tmp_path, monkeypatch):
    splits = [pictures([4, 3, 5], s, height=5, width=5, channels=1) for s in (0, 1)]
    facts = {"classes": CLASSES, "num_classes": 3, "size": 5, "train": 12, "test": 12}
    shelf.publish("mnist", miniatures.mnist(*splits), **facts)
    part = {"of": "mnist", "classes": ["apple", "cat"], "degrees": [0, 180]}
    facts = {"classes": ("apple", "cat"), "num_classes": 2, "size": 5, "train": 9, "test": 9}
    shelf.describe("rotated_mnist", options=part, **facts)
    shelf.get("mnist")
    official = load("rotated_mnist")
    assert official.train_labels.tolist() == [0] * 4 + [1] * 5

    def again(root, splits):
        monkeypatch.setenv("HYPERSPHERE_DATA", str(tmp_path / root))
        png_folders(tmp_path / root, splits, "mnist")
        miniatures.forget()
        return load("rotated_mnist")

    shuffled = again("shuffled", splits)
    for split in ("train", "test"):
        for what in ("images", "labels"):
            one, other = (getattr(d, f"{split}_{what}") for d in (shuffled, official))
            assert torch.equal(one, other)
        angles = [getattr(d, f"{split}_targets")["angle"] for d in (shuffled, official)]
        assert torch.equal(*angles)
    assert shuffled.content == official.content
    changed = splits[0][0].copy()
    changed[0, 0, 0] ^= 1
    assert again("changed", [(changed, splits[0][1]), splits[1]]).content != official.content
