"""Reading a dataset into one uint8 tensor per split, in one canonical order.

Copies of a dataset may be shuffled or repacked (official archive, IDX files, class folders).
Every dataset is therefore sorted by (label, hash of the pixels) before any split or shot is drawn:
the same pixels give the same splits wherever they came from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch

from hypersphere import paths
from hypersphere.data.facts import DATASETS, Dataset
from hypersphere.errors import UserError

Arrays = tuple[np.ndarray, np.ndarray]  # images (n, size, size, channels) uint8, labels (n,) int64


class Images:
    """One dataset in memory.

    train_images, test_images: (n, channels, size, size) uint8 in canonical order.
    train_labels, test_labels: (n,) int64.
    """

    def __init__(self, train: Arrays, test: Arrays) -> None:
        self.train_images, self.train_labels = _tensors(*train)
        self.test_images, self.test_labels = _tensors(*test)


@lru_cache(maxsize=2)
def load(name: str) -> Images:
    """Read dataset `name` from HYPERSPHERE_DATA, check it against its facts, keep it in memory.

    Raises UserError naming the place it was looked for and how to get it (missing), or what is
    wrong with the copy (damaged, incomplete, different pixels).
    """
    facts = DATASETS[name]
    train, test = _READERS[facts.reader](name, facts)
    counts = [len(part) for part in (*train, *test)]
    if counts != [facts.train, facts.train, facts.test, facts.test]:
        raise UserError(
            f"{name}: found {counts[0]} + {counts[2]} images and {counts[1]} + {counts[3]} labels,"
            f" expected {facts.train} + {facts.test}; the copy under {paths.data_dir()} is"
            " incomplete, get it again"
        )
    train, test = canonical_order(*train), canonical_order(*test)
    found = content_hash(train, test)
    if facts.content and found != facts.content:
        raise UserError(
            f"{name}: the pixels or labels under {paths.data_dir()} differ from the published"
            f" dataset (content {found[:12]}, expected {facts.content[:12]}); get it again"
        )
    return Images(train, test)


def available(name: str) -> str | None:
    """None when `name` can be read without a download, else one line that says how to get it.

    Looks for files only; whether they are intact shows when they are loaded.
    """
    facts = DATASETS[name]
    if facts.reader == "digits" or _folder(name) or _official(facts):
        return None
    return (
        f"{name} is not under {paths.data_dir()} ({facts.where}): run `hypersphere data get {name}`"
        " where there is a network, or copy it there and set HYPERSPHERE_DATA"
    )


def download(name: str) -> None:
    """Fetch `name` through torchvision (checksums checked there) into HYPERSPHERE_DATA."""
    facts = DATASETS[name]
    if not facts.reader.startswith("torchvision."):
        return
    dataset = _parser(facts)
    try:
        for train in (True, False):
            dataset(paths.data_dir(), train=train, download=True)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{name}: could not be downloaded ({' '.join(str(error).split())}); copy it to"
            f" {paths.data_dir()} ({facts.where}) by hand, or set HYPERSPHERE_DATA to where it lies"
        ) from error


def canonical_order(images: np.ndarray, labels: np.ndarray) -> Arrays:
    """Sort by (label, sha256 of the pixels). images: (n, h, w, c) uint8; labels: (n,)."""
    images, labels = np.ascontiguousarray(images), np.asarray(labels, dtype=np.int64)
    keys = [hashlib.sha256(image).digest() for image in images]
    order = np.array(sorted(range(len(labels)), key=lambda i: (labels[i], keys[i])))
    return images[order], labels[order]


def content_hash(train: Arrays, test: Arrays) -> str:
    """sha256 over labels and pixels of both splits, in canonical order."""
    digest = hashlib.sha256()
    for images, labels in (train, test):
        digest.update(labels.astype("<i8").tobytes())
        digest.update(np.ascontiguousarray(images).tobytes())
    return digest.hexdigest()


def _tensors(images: np.ndarray, labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    return pixels.contiguous(memory_format=torch.channels_last), torch.from_numpy(labels)


def _digits(name: str, facts: Dataset) -> tuple[Arrays, Arrays]:
    """scikit-learn's 8 x 8 digits; every fifth image of a class is a test image."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # 0..16 grey levels; 15.9375 puts 16 at 255 and keeps the steps equal.
    images = np.round(bunch.images * 15.9375).astype(np.uint8)[..., None]
    images, labels = canonical_order(images, bunch.target)
    rank = np.arange(len(labels)) - np.searchsorted(labels, labels)
    test = rank % 5 == 4
    return (images[~test], labels[~test]), (images[test], labels[test])


def _torchvision(name: str, facts: Dataset) -> tuple[Arrays, Arrays]:
    """Official files through torchvision, or class folders where those lie instead."""
    if folder := _folder(name):
        return _class_folders(folder / "train", facts), _class_folders(folder / "test", facts)
    if missing := available(name):
        raise UserError(missing)
    dataset = _parser(facts)
    try:
        parts = [dataset(paths.data_dir(), train=train) for train in (True, False)]
    except Exception as error:  # each damage has its own exception there
        raise UserError(
            f"{name}: the files under {paths.data_dir()} ({facts.where}) are damaged or incomplete"
            f" ({' '.join(str(error).split())}); delete them and run `hypersphere data get {name}`"
        ) from error
    arrays = [(np.asarray(p.data), np.asarray(p.targets)) for p in parts]
    return tuple((x[..., None] if x.ndim == 3 else x, y) for x, y in arrays)  # type: ignore[return-value]


def _parser(facts: Dataset) -> Any:
    """torchvision's class for the dataset. Imported when something is read: it takes seconds, and
    plans and renderings only ask whether the files are there."""
    import torchvision

    return getattr(torchvision.datasets, facts.reader.removeprefix("torchvision."))


def _class_folders(folder: Path, facts: Dataset) -> Arrays:
    """`folder/<class>/*.png`; the class names must be the dataset's own, labels in its order."""
    from torchvision.datasets import ImageFolder

    try:
        found = ImageFolder(folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot be read as class folders ({error})") from error
    if set(found.classes) != set(facts.classes):
        wrong = sorted(set(found.classes) ^ set(facts.classes))
        raise UserError(f"{folder}: class folders differ from the dataset's classes: {wrong}")
    label = [facts.classes.index(c) for c in found.classes]
    images = np.empty((len(found), facts.size, facts.size, facts.channels), np.uint8)
    for i, (path, _) in enumerate(found.samples):
        images[i] = _pixels(Path(path), images.shape[1:])
    return images, np.array([label[y] for _, y in found.samples])


def _pixels(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """One image file as uint8 (height, width, channels)."""
    try:
        with PIL.Image.open(path) as image:
            return np.asarray(image.convert("L" if shape[2] == 1 else "RGB")).reshape(shape)
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(
            f"{path}: cannot be read as an image of {shape[1]} x {shape[0]} pixels ({error});"
            " copy the dataset again"
        ) from error


def _folder(name: str) -> Path | None:
    folder = paths.data_dir() / name
    return folder if (folder / "train").is_dir() and (folder / "test").is_dir() else None


def _official(facts: Dataset) -> bool:
    return any((paths.data_dir() / facts.where.split(" ")[0]).glob("*"))


_READERS: dict[str, Callable[[str, Dataset], tuple[Arrays, Arrays]]] = {
    "digits": _digits,
    "torchvision.MNIST": _torchvision,
    "torchvision.FashionMNIST": _torchvision,
    "torchvision.CIFAR10": _torchvision,
}
