"""The network: backbone + head, no paper's name in it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from hypersphere.config.training import Training
from hypersphere.data.transforms import ToInput
from hypersphere.errors import UserError
from hypersphere.evaluation.embeddings import Embeddings
from hypersphere.heads import Head
from hypersphere.precision import autocast
from hypersphere.seeds import derive

# split -> batches of images, labels, and the numbers that are learned where there are some
Everything = dict[str, tuple[Iterable[Tensor], Tensor, Tensor | None]]


class Network(nn.Module):
    """uint8 images -> embeddings, and the head that owns the class vectors.

    Built from a checked training configuration, initialised from its seed alone: the global
    random state neither enters nor changes. inherited: names of the tensors that pretrained weights
    or a parent run have set since, and that are therefore not new.
    """

    def __init__(self, training: Training) -> None:
        super().__init__()
        self.inherited: set[str] = set()
        data, facts = training.data, training.dataset
        self.to_input = ToInput(data.size, *data.statistics(facts))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive("initialisation", training.settings.seed) % 2**63)
            size = data.input_size(facts)
            self.backbone = training.components["backbone"].build(facts.channels, size)
            num_classes = len(training.split().seen)
            try:
                self.head: Head = training.components["head"].build(self.backbone.dim, num_classes)
            except ValueError as error:
                raise UserError(f"head ({self.backbone.dim} dimensions): {error}") from None
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """images: (n, channels, size, size) uint8 -> embeddings (n, dim) float32."""
        return self.backbone(self.to_input(images)).float()


def embed(network: Network, everything: Everything, precision: str) -> Embeddings:
    """Embed all training and test images (see embed_batches)."""
    train, train_labels, train_values = everything["train"]
    test, test_labels, test_values = everything["test"]
    return Embeddings(
        embed_batches(network, train, precision), train_labels,
        embed_batches(network, test, precision), test_labels, train_values, test_values,
    )  # fmt: skip


@torch.inference_mode()
def embed_batches(network: Network, batches: Iterable[Tensor], precision: str) -> Tensor:
    """Embeddings (n, dim) on the CPU of images in batches (uint8), in evaluation mode and the
    training's precision."""
    network.eval()
    device = next(network.backbone.parameters()).device
    with autocast(device.type, precision):
        return torch.cat([network(images.to(device)).cpu() for images in batches])
