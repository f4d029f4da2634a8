"""The one way in: a dataset by its name, checked, in canonical order.

`load` gives what is held in memory, `load_files` what streams from image files. Nothing here
downloads anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from hypersphere import paths
from hypersphere.data import notes, rotation
from hypersphere.data.facts import ANGLE, DATASETS, Dataset
from hypersphere.data.layouts import read
from hypersphere.data.listing import DataError, Listing, Part
from hypersphere.data.order import file_content, name_order, pixel_content, pixel_order
from hypersphere.data.threads import in_threads

# What PIL raises on bytes that are no whole image.
UNREADABLE = (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError)


@dataclass(frozen=True)
class Images:
    """One dataset in memory, in canonical order.

    train_images, test_images: (n, channels, size, size) uint8, channels_last in memory.
    train_labels, test_labels: (n,) int64. train_targets, test_targets: further numbers per image
    by name, (n,) float32. content: hash of all of it (facts.py).
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    train_targets: dict[str, Tensor]
    test_targets: dict[str, Tensor]
    content: str


@dataclass(frozen=True)
class FileSet:
    """The image files of one split: paths, labels (n,) int64, further targets (n,) float32."""

    paths: tuple[Path, ...]
    labels: Tensor
    targets: dict[str, Tensor]


@dataclass(frozen=True)
class ImageFiles:
    """One dataset as image files, in canonical order (label, then name)."""

    train: FileSet
    test: FileSet
    classes: tuple[str, ...]
    names: tuple[str, ...]
    content: str


@lru_cache(maxsize=2)
def load(name: str) -> Images:
    """Read dataset `name` from HYPERSPHERE_DATA, check it against its facts, keep it in memory.

    Images that lie in files of their own are decoded once; the pixels are kept beside the data for
    the next process (notes.py). Raises DataError naming the place it was looked for and how to get
    it (missing), or what is wrong with the copy (partial, corrupt, different pixels).
    """
    facts = DATASETS[name]
    if not facts.in_memory:
        raise DataError(f"{name}: its images have no common size and stream from files")
    if facts.layout == "rotated":
        return _rotated(name, facts)
    listing = read(name)
    check_counts(name, listing)
    stamp = notes.stamp(listing)
    if (kept := notes.read_pixels(name, stamp)) is None:
        kept = _decoded(name, facts, listing)
        if stamp:
            notes.keep_pixels(name, stamp, kept)
    parts, content = kept
    _check_content(name, facts, content)
    notes.checked(name, content)
    return _images(parts, content)


@lru_cache(maxsize=2)
def load_files(name: str) -> ImageFiles:
    """List the image files of dataset `name`, in canonical order.

    The bytes of a copy are hashed when it is first read, and the outcome is noted beside the data;
    after that a change of names or sizes shows. Raises DataError like `load`.
    """
    facts = DATASETS[name]
    listing = read(name)
    check_counts(name, listing)
    parts = [_in_name_order(part) for part in (listing.train, listing.test)]
    stamp = notes.stamp(listing)
    content = notes.content(name, stamp)
    if content is None:
        content = file_content([(p.files or [], p.names, p.labels) for p in parts])
        _check_content(name, facts, content)
        notes.checked(name, content, stamp)
    sets = (FileSet(tuple(p.files or ()), torch.from_numpy(p.labels), _targets(p)) for p in parts)
    return ImageFiles(*sets, listing.classes, listing.names, content)


@lru_cache(maxsize=8)
def class_counts(name: str) -> tuple[int, ...]:
    """Training images per class. Raises DataError when the dataset is not here."""
    labels = load(name).train_labels if DATASETS[name].in_memory else load_files(name).train.labels
    return tuple(torch.bincount(labels, minlength=DATASETS[name].num_classes).tolist())


def count_classes(*, data: str, thresholds: list[int]) -> dict[str, Any]:
    """`at_least@<n>`: classes of dataset `data` with so many training images, for each threshold;
    artifact `counts`: training images per class, by label. Raises DataError when it is not here."""
    counts = np.array(class_counts(data))
    found: dict[str, Any] = {f"at_least@{n}": float((counts >= n).sum()) for n in thresholds}
    return found | {"counts": {"counts": counts}}


def class_names(name: str) -> tuple[str, ...]:
    """Names for people in the order of the labels. Raises DataError where they come with the data
    and it is not here."""
    facts = DATASETS[name]
    return facts.names or facts.classes or load_files(name).names


def check_counts(name: str, listing: Listing) -> None:
    """Raises DataError (partial) when a copy has more or fewer images or classes than it should."""
    facts = DATASETS[name]
    found = [len(listing.train.labels), len(listing.test.labels)]
    wanted = [facts.train or found[0], facts.test or found[1]]  # 0: nobody has published a number
    if facts.layout in ("arrays", "corrupted_arrays"):
        wanted = [facts.train, facts.test]
    if found == wanted and len(listing.classes) == facts.num_classes:
        return
    classes = len(np.unique(listing.train.labels if found[0] else listing.test.labels))
    raise DataError(
        f"{name}: found {found[0]} + {found[1]} images of {classes} classes, expected"
        f" {wanted[0]} + {wanted[1]} of {facts.num_classes}; the copy under {paths.data_dir()} is"
        f" not whole: copy it again, or run `hypersphere data get {name} --replace`",
        "partial",
    )


Parts = tuple[Part, Part]


def _decoded(name: str, facts: Dataset, listing: Listing) -> tuple[Parts, str]:
    """Both splits as pixels in canonical order, and the content's hash."""
    parts = []
    for part in (listing.train, listing.test):
        if facts.order == "name":
            part = _in_name_order(part)
        if part.pixels is None:
            assert part.files is not None and facts.size is not None
            shape = (facts.size, facts.size, facts.channels)
            part.pixels = decode(part.files, shape)
        if facts.order == "pixels":
            part = part.take(pixel_order(part.pixels, part.labels))
        parts.append(part)
    if facts.order == "name":
        content = file_content([(p.files or [], p.names, p.labels) for p in parts])
    else:
        content = pixel_content([(p.pixels, p.labels) for p in parts])
    return (parts[0], parts[1]), content


def decode(files: Sequence[Path], shape: tuple[int, int, int]) -> np.ndarray:
    """Image files of equal size as (n, height, width, channels) uint8. Raises DataError naming the
    first that does not decode or has another size."""
    images = np.empty((len(files), *shape), np.uint8)

    def one(i: int) -> None:
        images[i] = _pixels(files[i], shape)

    for _ in in_threads(one, range(len(files)), torch.get_num_threads()):
        pass
    return images


def check_files(files: Sequence[Path]) -> None:
    """Decode every file of a dataset that streams. Raises DataError naming the first that does not
    decode: their bytes alone do not show it where nobody has published them."""

    def one(path: Path) -> None:
        try:
            with PIL.Image.open(path) as image:
                image.load()
        except UNREADABLE as error:
            raise DataError(
                f"{path}: cannot be read as an image ({error}); copy the dataset again"
            ) from error

    for _ in in_threads(one, files, torch.get_num_threads()):
        pass


def _pixels(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    try:
        with PIL.Image.open(path) as image:
            return np.asarray(image.convert("L" if shape[2] == 1 else "RGB")).reshape(shape)
    except UNREADABLE as error:
        raise DataError(
            f"{path}: cannot be read as an image of {shape[1]} x {shape[0]} pixels ({error});"
            " copy the dataset again"
        ) from error


def _rotated(name: str, facts: Dataset) -> Images:
    """Some classes of another dataset, every image turned by an angle of its own."""
    options, of = facts.options, load(facts.options["of"])
    chosen = [DATASETS[options["of"]].classes.index(c) for c in options["classes"]]
    found = {}
    for split in ("train", "test"):
        images, labels = getattr(of, f"{split}_images"), getattr(of, f"{split}_labels")
        keep = torch.isin(labels, torch.tensor(chosen))
        turned, angles = rotation.rotate(images[keep], split, *options["degrees"])
        found[f"{split}_images"] = turned
        found[f"{split}_labels"] = torch.searchsorted(torch.tensor(chosen), labels[keep])
        found[f"{split}_targets"] = {ANGLE: angles}
    content = rotation.content(of.content, options)
    _check_content(name, facts, content)
    return Images(**found, content=content)


def _in_name_order(part: Part) -> Part:
    return part.take(name_order(part.names, part.labels))


def _check_content(name: str, facts: Dataset, found: str) -> None:
    if found == facts.content or not facts.content:
        return
    if "folder" in facts.options:  # a user's own
        raise DataError(
            f"{name}: the images under {facts.options['folder']} are not those that were added"
            f" (content {found[:12]}, then {facts.content[:12]}); to take them as they are now,"
            f" delete {paths.data_dir() / name} and run `hypersphere data add` again"
        )
    raise DataError(
        f"{name}: the images or labels under {paths.data_dir()} differ from the published"
        f" dataset (content {found[:12]}, expected {facts.content[:12]}); get it again"
    )


def _images(parts: Parts, content: str) -> Images:
    tensors = []
    for part in parts:
        pixels = torch.from_numpy(np.ascontiguousarray(part.pixels)).permute(0, 3, 1, 2)
        tensors += [pixels.contiguous(memory_format=torch.channels_last)]
        tensors += [torch.from_numpy(np.ascontiguousarray(part.labels))]
    return Images(*tensors, _targets(parts[0]), _targets(parts[1]), content)


def _targets(part: Part) -> dict[str, Tensor]:
    return {key: torch.from_numpy(np.asarray(v, np.float32)) for key, v in part.targets.items()}
