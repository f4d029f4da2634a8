"""Embeddings of a finished run: computed once, saved, read by every evaluation."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
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


def compact(z: Tensor, labels: Tensor) -> dict[str, np.ndarray]:
    """Embeddings (n, dim) and labels (n,) in the fewest bytes that hold them, for a picture."""
    # losses of directions alone let lengths grow without an end
    fits = bool(z.abs().max() <= np.finfo(np.float16).max)
    few = int(labels.max()) <= np.iinfo(np.int8).max
    return {
        "embeddings": z.numpy().astype(np.float16 if fits else np.float32),
        "labels": labels.numpy().astype(np.int8 if few else np.int16),
    }
