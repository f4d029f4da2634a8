"""Embeddings of a finished run: computed once, saved, read by every evaluation."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor


@dataclass(frozen=True)
class Embeddings:
    """Embeddings (n, dim) float32, not normalised; labels (n,) of all classes; canonical order.
    Values (n,) float32 are the numbers that are learned, where there are some."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    train_values: Tensor | None = None
    test_values: Tensor | None = None

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        save_file({k: v.contiguous() for k, v in found.items() if v is not None}, path)

    @classmethod
    def read(cls, path: Path) -> Embeddings:
        """Read what `save` wrote."""
        return cls(**load_file(path))
