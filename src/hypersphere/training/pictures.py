"""Single images of a dataset, as evaluations need them: randomly augmented versions of a few
training images, or what the network sees of some images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from hypersphere.config.data import Augmentation
from hypersphere.config.training import Training
from hypersphere.data.load import load, load_files
from hypersphere.data.transforms import crop_and_flip, draw_crops
from hypersphere.seeds import derive
from hypersphere.training.files import Decoded, View, base_of

BATCH = 64  # images at once


def augmented(
    training: Training,
    positions: Tensor,
    versions: int,
    seeds: tuple[str | int, ...],
    augmentation: Augmentation | None = None,
) -> Iterator[Tensor]:
    """Batches (b, c, h, w) uint8 of `versions` randomly augmented versions of the training images
    at `positions` (n,): the first versions of all n, then the second ones.

    Crops and flips are those of the training itself, or for images in memory those of
    `augmentation`; they are drawn from `seeds`, the version and the image's place. Raises
    ValueError where nothing about them is random.
    """
    if training.dataset.in_memory:
        return _of_pixels(training, positions, versions, seeds, augmentation)
    return _of_files(training, positions, versions, seeds, augmentation)


def _of_pixels(
    training: Training,
    positions: Tensor,
    versions: int,
    seeds: tuple[str | int, ...],
    augmentation: Augmentation | None,
) -> Iterator[Tensor]:
    chosen = augmentation or training.data.augmentation
    if chosen is None or not (chosen.crop_padding or chosen.flip):
        raise ValueError(
            "augmented shots: nothing is random about this network's training images; state the"
            " evaluation's augmentation, as {crop_padding: 4, flip: true}"
        )
    images = load(training.data.name).train_images
    padding, flip = chosen.crop_padding, chosen.flip

    def cut() -> Iterator[Tensor]:
        for version in range(versions):
            draws = torch.Generator().manual_seed(derive(*seeds, version))  # type: ignore[arg-type]
            crops = draw_crops(len(positions), padding, flip, draws)
            yield from crop_and_flip(images, positions, padding, crops).split(BATCH)

    return cut()


def _of_files(
    training: Training,
    positions: Tensor,
    versions: int,
    seeds: tuple[str | int, ...],
    augmentation: Augmentation | None,
) -> Iterator[Tensor]:
    views = training.data.views
    assert views is not None
    if augmentation is not None:
        raise ValueError(
            "augmented shots: image files are augmented as in training (data.views); leave the"
            " evaluation's augmentation null"
        )
    if views.train not in ("random", "random_resized") and not views.flip:
        raise ValueError(
            f"augmented shots: nothing is random about this network's training images"
            f" (data.views.train={views.train}, no flip)"
        )
    paths = load_files(training.data.name).train.paths
    places = positions.tolist()
    # here, not where batches are asked for: under inference mode threads could not fill its memory
    decoded = Decoded([paths[i] for i in places], base_of(views, views.train))

    def cut() -> Iterator[Tensor]:
        for version in range(versions):
            view = View(views, views.train, views.flip, (*seeds, version))
            for start in range(0, len(places), BATCH):
                some = range(start, min(start + BATCH, len(places)))
                yield torch.stack([view(decoded[i], places[i]) for i in some])

    return cut()


def as_seen(training: Training, split: Literal["train", "test"], positions: Tensor) -> list[Tensor]:
    """The images (c, h, w) uint8 at `positions` (n,) of a split, as the network sees them when it
    is tested, before they are normalised."""
    if training.dataset.in_memory:
        data = load(training.data.name)
        images = data.train_images if split == "train" else data.test_images
        return list(images[positions])
    views = training.data.views
    assert views is not None
    found = load_files(training.data.name)
    paths = (found.train if split == "train" else found.test).paths
    view = View(views, views.test, views.test_flip, ("test view", training.settings.seed, split))
    base = base_of(views, views.test)
    return [view(base.decode(paths[i]), i) for i in positions.tolist()]
