"""One canonical order per dataset, and the hash of its content in that order.

Copies of a dataset may be shuffled, renamed or repacked. Sorted by label and then by the hash of
the pixels (lossless images held in memory), or by label and then by file name (JPEG files, whose
pixels depend on the decoder), the same images give the same splits wherever they came from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hypersphere.data.threads import in_threads
from hypersphere.files import sha256_of


def pixel_order(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Positions sorted by (label, sha256 of the pixels). images: (n, h, w, c) uint8."""
    images = np.ascontiguousarray(images)
    keys = np.array([hashlib.sha256(image).digest() for image in images], dtype="S32")
    # numpy strips trailing zero bytes of S32 alike on both sides of a comparison: no tie is made
    # or broken that the full digests would not make or break.
    return np.lexsort((keys, np.asarray(labels)))


def name_order(names: Sequence[str], labels: np.ndarray) -> np.ndarray:
    """Positions sorted by (label, file name), byte by byte."""
    keys = [(int(label), name.encode()) for label, name in zip(labels, names, strict=True)]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)


def pixel_content(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> str:
    """sha256 over labels and pixels of every (images, labels) split, in canonical order."""
    digest = hashlib.sha256()
    for images, labels in parts:
        digest.update(np.asarray(labels).astype("<i8").tobytes())
        digest.update(np.ascontiguousarray(images).data)
    return digest.hexdigest()


def file_content(parts: Sequence[tuple[Sequence[Path], Sequence[str], np.ndarray]]) -> str:
    """sha256 over label, name and bytes of every image file of (files, names, labels) splits."""
    digest = hashlib.sha256()
    for files, names, labels in parts:
        for name, label, of_bytes in zip(
            names, labels, in_threads(sha256_of, files, 8), strict=True
        ):
            digest.update(f"{label} {name} {of_bytes}\n".encode())
        digest.update(b"\n")
    return digest.hexdigest()
