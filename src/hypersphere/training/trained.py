"""A trained network for evaluations that must look at images."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from hypersphere.config import Training
from hypersphere.config.data import Augmentation
from hypersphere.data.facts import Dataset
from hypersphere.evaluation.embeddings import Embeddings

CHUNK = 500  # images at once


class TrainedNetwork:
    """The network of a finished run, its `head` (on the CPU, where embeddings come back to), its
    saved `embeddings`, and what it was trained on. It computes on a GPU if there is one."""

    def __init__(self, training: Training, folder: Path) -> None:
        from hypersphere.training.train import load_network  # takes a second, and plans need none

        self.training, self.folder = training, folder
        network = load_network(training, folder)
        self.network = network.to("cuda" if torch.cuda.is_available() else "cpu")
        self.head = network.head.cpu()

    @property
    def dataset(self) -> Dataset:
        return self.training.dataset

    @property
    def dataset_name(self) -> str:
        return self.training.data.name

    @cached_property
    def embeddings(self) -> Embeddings:
        from hypersphere.store import EMBEDDINGS

        return Embeddings.read(self.folder / EMBEDDINGS)

    def embed(self, images: Tensor) -> Tensor:
        """Images (n, c, h, w) uint8 -> embeddings (n, dim) float32 on the CPU, in evaluation mode
        and the training's precision, normalised as its own images were."""
        return self.embed_batches(images.split(CHUNK))

    def embed_batches(self, batches: Iterable[Tensor]) -> Tensor:
        """The same of images that come in batches."""
        from hypersphere.training.network import embed_batches

        return embed_batches(self.network, batches, self.training.settings.precision)

    def pretrained_features(self) -> Embeddings:
        """All images by the weights that the backbone started from, without the layer on top of
        them. Raises ValueError for a backbone that started from none, UserError when they are not
        here."""
        from hypersphere.training.files import FileImages
        from hypersphere.training.images import SmallImages
        from hypersphere.training.network import Network, embed

        training, backbone = self.training, self.training.components["backbone"]
        if backbone.params.get("weights", "none") == "none" or training.parent is not None:
            raise ValueError("its backbone started from no pretrained weights")
        network, facts = Network(training), training.dataset
        network.backbone = backbone.target(
            facts.channels, training.data.input_size(facts), **backbone.params | {"dim": None}
        )
        network.backbone.load_pretrained()
        network.to(next(self.network.backbone.parameters()).device)
        images = SmallImages(training) if facts.in_memory else FileImages(training)
        return embed(network, images.everything(), training.settings.precision)

    def embed_augmented(
        self,
        positions: Tensor,
        versions: int,
        seeds: tuple[str | int, ...],
        augmentation: Augmentation | None = None,
    ) -> Tensor:
        """Embeddings (versions, n, dim) of augmented versions of training images (see
        pictures.augmented)."""
        from hypersphere.training.pictures import augmented

        batches = augmented(self.training, positions, versions, seeds, augmentation)
        return self.embed_batches(batches).unflatten(0, (versions, len(positions)))

    def as_seen(self, split: Literal["train", "test"], positions: Tensor) -> list[Tensor]:
        """Images (c, h, w) uint8 of a split (see pictures.as_seen)."""
        from hypersphere.training.pictures import as_seen

        return as_seen(self.training, split, positions)
