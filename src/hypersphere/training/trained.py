"""A trained network for evaluations that must look at images."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from hypersphere.config import Training
from hypersphere.data.facts import Dataset

CHUNK = 500  # images at once


class TrainedNetwork:
    """The network of a finished run, its `head` (on the CPU, where embeddings come back to), and
    what it was trained on. It computes on a GPU if there is one."""

    def __init__(self, training: Training, folder: Path) -> None:
        from hypersphere.training.train import load_network  # takes a second, and plans need none

        self.training = training
        network = load_network(training, folder)
        self.network = network.to("cuda" if torch.cuda.is_available() else "cpu")
        self.head = network.head.cpu()

    @property
    def dataset(self) -> Dataset:
        return self.training.dataset

    @property
    def dataset_name(self) -> str:
        return self.training.data.name

    def embed(self, images: Tensor) -> Tensor:
        """Images (n, c, h, w) uint8 -> embeddings (n, dim) float32 on the CPU, in evaluation mode
        and the training's precision, normalised as its own images were."""
        from hypersphere.training.network import embed_batches

        precision = self.training.settings.precision
        return embed_batches(self.network, images.split(CHUNK), precision)
