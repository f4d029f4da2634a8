"""Images held in memory: uint8 tensors on the training device, no workers, no copies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from hypersphere.config.training import Training
from hypersphere.data.load import load
from hypersphere.data.splits import holdout, imbalanced, imbalanced_counts, support
from hypersphere.data.transforms import crop_and_flip, draw_crops
from hypersphere.errors import UserError
from hypersphere.seeds import derive, generator
from hypersphere.training.network import Everything

CHUNK = 500  # images per batch where nothing is trained
GATHERED = 2**18  # bytes of whole images copied at once: they are still in the cache when used
ALONE = (0, 1)  # the share of a process that trains by itself


class EpochBatches:
    """The batches of one epoch: (images (b, c, h, w) uint8, labels (b,)), augmented if asked, and
    where `values` (n,) are given a third part, theirs (b,). Of each batch, the `share` of this
    process (share_of)."""

    def __init__(
        self,
        training: Training,
        images: Tensor,
        labels: Tensor,
        epoch: int,
        values: Tensor | None = None,
        share: tuple[int, int] = ALONE,
    ) -> None:
        self.share = share
        self.batches = batches_of_epoch(training, labels, epoch)
        self.images = images
        self.numbers = [labels] if values is None else [labels, values]
        self.augmentation = training.data.augmentation
        self.draws = augmentation_draws(training, epoch)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        if self.augmentation is None:
            yield from self._whole()
            return
        padding, flip = self.augmentation.crop_padding, self.augmentation.flip
        for batch in self.batches:
            mine = share_of(len(batch), self.share)
            index = torch.from_numpy(batch[mine]).to(self.images.device)
            crops = draw_crops(len(batch), padding, flip, self.draws).part(mine)
            images = crop_and_flip(self.images, index, padding, crops)
            yield images, *[numbers.index_select(0, index) for numbers in self.numbers]

    def _whole(self) -> Iterator[tuple[Tensor, ...]]:
        """Images as they are: several batches are gathered at once, since a small one takes longer
        to ask for than to copy."""
        mine = self.batches
        if self.share != ALONE:
            mine = [batch[share_of(len(batch), self.share)] for batch in mine]
        rows = self.images.permute(0, 2, 3, 1)  # whole images are copied as they lie
        largest = max((len(batch) for batch in mine), default=1) * rows[:1].nbytes
        at_once = max(GATHERED // max(largest, 1), 1)
        for start in range(0, len(mine), at_once):
            some = mine[start : start + at_once]
            sizes = [len(batch) for batch in some]
            index = torch.from_numpy(np.concatenate(some)).to(self.images.device)
            parts = [whole.index_select(0, index) for whole in (rows, *self.numbers)]
            parts[0] = parts[0].permute(0, 3, 1, 2)
            yield from zip(*(part.split(sizes) for part in parts), strict=True)


class Chunks:
    """(images, labels) in order, CHUNK at a time."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.parts = list(zip(images.split(CHUNK), labels.split(CHUNK), strict=True))

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.parts)


class SmallImages:
    """Training images of the seen classes; test images of the seen classes for the curve, and the
    held-out training images where the configuration asks for some.

    Labels are 0 .. num_seen - 1 in the order of the sorted seen classes. share: (which, of how
    many) part of each batch to train on is this process's.
    """

    share = ALONE

    def __init__(self, training: Training) -> None:
        self.training = training

    def setup(self, device: torch.device | None = None) -> None:
        """Load the images, onto `device` where it is given."""
        data = load(self.training.data.name)
        self.content = data.content
        device = device or torch.device("cpu")
        used, held = chosen_images(self.training, data.train_labels)
        tested = of_seen_classes(self.training, data.test_labels)

        def part(images: Tensor, labels: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
            if len(chosen) < len(images):  # all of them need no copy
                images = images[chosen].contiguous(memory_format=torch.channels_last)
            return images.to(device), seen_labels(self.training, labels[chosen]).to(device)

        values = values_of(self.training, data.train_targets)
        self.values = None if values is None else values[used].to(device)
        self.train = part(data.train_images, data.train_labels, used)
        self.test = part(data.test_images, data.test_labels, tested)
        self.held = part(data.train_images, data.train_labels, held)

    def batches(self, epoch: int) -> EpochBatches:
        """Those of an epoch (0, 1, ...)."""
        return EpochBatches(self.training, *self.train, epoch, self.values, self.share)

    def train_labels(self) -> Tensor:
        """Labels (n,) of the images trained on, held-out ones left out."""
        return self.train[1]

    def train_values(self) -> Tensor | None:
        """The numbers (n,) of those images that are learned, None where none are."""
        return self.values

    def watched(self) -> list[Chunks]:
        """Test images, then the held-out training images if there are any."""
        return [Chunks(*part) for part in (self.test, self.held) if len(part[1])]

    def everything(self) -> Everything:
        """All images of all classes, not augmented."""
        data = load(self.training.data.name)
        return {
            "train": (
                data.train_images.split(CHUNK),
                data.train_labels,
                values_of(self.training, data.train_targets),
            ),
            "test": (
                data.test_images.split(CHUNK),
                data.test_labels,
                values_of(self.training, data.test_targets),
            ),
        }


# What every data module shares: which images, which labels, which batches


def batches_of_epoch(training: Training, labels: Tensor, epoch: int) -> list[np.ndarray]:
    """The index batches of one epoch, drawn from (seed, epoch) alone."""
    draws = generator("batches", training.settings.seed, epoch)
    batches = training.components["batches"].build()
    try:
        return list(batches.epoch(labels.cpu().numpy(), draws))
    except ValueError as error:
        raise UserError(f"batches ({training.data.name}): {error}") from None


def share_of(size: int, share: tuple[int, int]) -> slice:
    """Positions in a batch of `size` that are those of process `share[0]` of `share[1]`: all of
    them among the processes, in order, and as many each, or one fewer."""
    which, processes = share
    return slice(which * size // processes, (which + 1) * size // processes)


def augmentation_draws(training: Training, epoch: int) -> torch.Generator:
    """What the crops and flips of one epoch are drawn from, by (seed, epoch) alone."""
    seed = derive("augmentation", training.settings.seed, epoch)
    return torch.Generator().manual_seed(seed)


def values_of(training: Training, targets: Mapping[str, Tensor]) -> Tensor | None:
    """Of a dataset's numbers those (n,) that the configuration learns."""
    return None if training.data.target is None else targets[training.data.target]


def of_seen_classes(training: Training, labels: Tensor) -> Tensor:
    """Positions of the images of the seen classes."""
    return torch.isin(labels, torch.tensor(training.split().seen)).nonzero().flatten()


def seen_labels(training: Training, labels: Tensor) -> Tensor:
    """Labels among the seen classes, 0 .. num_seen - 1."""
    return torch.searchsorted(torch.tensor(training.split().seen), labels)


def chosen_images(training: Training, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Positions among the training images of those to train on, and of those held out.

    Raises UserError when a class has fewer images than the configuration asks for.
    """
    data = training.data
    chosen = of_seen_classes(training, labels)
    try:
        if (imbalance := data.imbalance) is not None:
            counts = imbalanced_counts(
                training.dataset.num_classes, imbalance.smallest, imbalance.largest
            )
            some = torch.from_numpy(imbalanced(labels.numpy(), counts.tolist(), imbalance.draw))
            chosen = some[torch.isin(some, chosen)]
        if (shots := data.shots) is not None:
            few = torch.tensor(training.split().few)
            drawn = support(
                labels.numpy(), few.tolist(), shots.number, shots.seed, shots.draw,
                or_fewer=shots.or_fewer,
            )  # fmt: skip
            among = torch.isin(chosen, torch.from_numpy(drawn))
            chosen = chosen[~torch.isin(labels[chosen], few) | among]
        if data.validation is None:
            return chosen, chosen[:0]
        held = holdout(labels[chosen].numpy(), data.validation.share, data.validation.draw)
    except ValueError as error:
        raise UserError(f"data ({data.name}): {error}") from None
    mask = torch.from_numpy(held)
    return chosen[~mask], chosen[mask]
