"""Augmentation against a loop; which images a batch holds."""

import numpy as np
import pytest
import torch

from hypersphere.data.batches import Pairs, Shuffled
from hypersphere.data.load import load
from hypersphere.data.transforms import ToInput, crop_and_flip, draw_crops, mirror_static
from hypersphere.seeds import generator
from hypersphere.training import images as training_images
from hypersphere.training.images import Chunks, EpochBatches, SmallImages, share_of


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
