"""Embeddings of a finished run: computed once, saved, read by every evaluation."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor


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
