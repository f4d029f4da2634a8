"""The in-memory data module: uint8 tensors on the training device, no workers, no copies."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from hypersphere.config.training import Training
from hypersphere.data.load import load
from hypersphere.data.transforms import crop_and_flip
from hypersphere.seeds import derive, generator

CHUNK = 500  # images per batch where nothing is trained


class EpochBatches:
    """The batches of one epoch: (images (b, c, h, w) uint8, labels (b,)), augmented if asked."""

    def __init__(self, training: Training, images: Tensor, labels: Tensor, epoch: int) -> None:
        seed = training.settings.seed
        sampler = training.components["batches"].build()
        order = sampler.epoch(labels.cpu().numpy(), generator("batches", seed, epoch))
        self.batches: list[np.ndarray] = list(order)
        self.images, self.labels = images, labels
        self.augmentation = training.data.augmentation
        self.draws = torch.Generator().manual_seed(derive("augmentation", seed, epoch))

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.batches:
            index = torch.from_numpy(batch).to(self.images.device)
            images = self.images[index]
            if self.augmentation is not None:
                padding, flip = self.augmentation.crop_padding, self.augmentation.flip
                images = crop_and_flip(images, padding, flip, self.draws)
            yield images, self.labels[index]


class Chunks:
    """(images, labels) in order, CHUNK at a time."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.parts = list(zip(images.split(CHUNK), labels.split(CHUNK), strict=True))

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.parts)


class SmallImages(pl.LightningDataModule):
    """Training images of the seen classes; test images of the seen classes for the curve.

    Labels are 0 .. num_seen - 1 in the order of the sorted seen classes.
    """

    def __init__(self, training: Training) -> None:
        super().__init__()
        self.training = training

    def setup(self, stage: str | None = None) -> None:
        data = load(self.training.data.name)
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        seen = torch.tensor(self.training.split().seen)
        self.train = tuple(t.to(device) for t in _of(data.train_images, data.train_labels, seen))
        self.test = tuple(t.to(device) for t in _of(data.test_images, data.test_labels, seen))

    def train_dataloader(self) -> EpochBatches:
        """Called at the start of every epoch (the trainer reloads it)."""
        epoch = self.trainer.current_epoch if self.trainer else 0
        return EpochBatches(self.training, *self.train, epoch)

    def val_dataloader(self) -> Chunks:
        return Chunks(*self.test)


def _of(images: Tensor, labels: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    keep = torch.isin(labels, seen)
    return images[keep], torch.searchsorted(seen, labels[keep])
