"""Embeddings of a finished run: computed once, saved, read by every evaluation."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hypersphere.data.load import load
from hypersphere.data.module import CHUNK
from hypersphere.training.module import Network


@dataclass(frozen=True)
class Embeddings:
    """Embeddings (n, dim) float32, not normalised; labels (n,) of all classes; canonical order."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        save_file({f.name: getattr(self, f.name).contiguous() for f in fields(self)}, path)

    @classmethod
    def read(cls, path: Path) -> Embeddings:
        """Read what `save` wrote."""
        return cls(**load_file(path))


@torch.inference_mode()
def embed(network: Network, dataset: str, precision: str) -> Embeddings:
    """Embed all training and test images, in evaluation mode and the training's precision."""
    network.eval()
    data = load(dataset)
    device = next(network.parameters()).device

    def run(images: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            return torch.cat([network(part.to(device)).cpu() for part in images.split(CHUNK)])

    return Embeddings(
        run(data.train_images), data.train_labels, run(data.test_images), data.test_labels
    )
