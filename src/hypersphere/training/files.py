"""Images that stream from files: decoded and cut by torchvision v2 in worker processes, and kept
decoded in memory where they fit."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hypersphere.config.data import Crop, Views
from hypersphere.config.training import Training
from hypersphere.data.listing import DataError
from hypersphere.data.load import UNREADABLE, FileSet, load_files
from hypersphere.data.threads import in_threads
from hypersphere.seeds import derive
from hypersphere.training.images import (
    ALONE,
    Everything,
    batches_of_epoch,
    chosen_images,
    of_seen_classes,
    seen_labels,
    share_of,
    values_of,
)

BATCH = 64  # images per batch where nothing is trained
Shown = tuple[int, int]  # position in the split, and how often the epoch has shown it before
SHARE = 0.25  # of the memory that is free, for decoded images of one split


class FileImages:
    """The same as SmallImages, for datasets whose images lie in files of any size."""

    share = ALONE

    def __init__(self, training: Training) -> None:
        self.training = training
        assert training.data.views is not None
        self.views = training.data.views

    def setup(self, device: torch.device | None = None) -> None:
        """List the images; batches come from the CPU, whatever the `device`."""
        found = load_files(self.training.data.name)
        self.content = found.content
        used, held = chosen_images(self.training, found.train.labels)
        tested = of_seen_classes(self.training, found.test.labels)
        self.train = self._part(found.train, used)
        self.test = self._part(found.test, tested)
        self.held = self._part(found.train, held)
        values = values_of(self.training, found.train.targets)
        self.values = None if values is None else values[used]
        self.decoded = {
            "train": Decoded(self.train.paths, base_of(self.views, self.views.train)),
            "test": Decoded(self.test.paths, base_of(self.views, self.views.test)),
            "held": Decoded(self.held.paths, base_of(self.views, self.views.test)),
        }

    def _part(self, part: FileSet, chosen: Tensor) -> FileSet:
        labels = seen_labels(self.training, part.labels[chosen])
        return FileSet(tuple(part.paths[i] for i in chosen.tolist()), labels, {})

    def batches(self, epoch: int) -> DataLoader[Any]:
        """Those of an epoch (0, 1, ...)."""
        seeds = ("augmentation", self.training.settings.seed, epoch)
        view = View(self.views, self.views.train, self.views.flip, seeds)
        images = Viewed(self.decoded["train"], self.train.labels, view, self.values)
        batches = counted(batches_of_epoch(self.training, self.train.labels, epoch))
        mine = [batch[share_of(len(batch), self.share)] for batch in batches]
        return _loader(images, batch_sampler=mine)

    def train_labels(self) -> Tensor:
        """Labels (n,) of the images trained on, held-out ones left out."""
        return self.train.labels

    def train_values(self) -> Tensor | None:
        """The numbers (n,) of those images that are learned, None where none are."""
        return self.values

    def watched(self) -> list[DataLoader[Any]]:
        """Test images, then the held-out training images if there are any."""
        parts = {"test": self.test, "held": self.held}
        return [
            _loader(Viewed(self.decoded[name], part.labels, self._test_view(name)), BATCH)
            for name, part in parts.items()
            if part.paths
        ]

    def everything(self) -> Everything:
        """All images of all classes, in the view of the test images."""
        found = load_files(self.training.data.name)
        base = base_of(self.views, self.views.test)
        parts: Everything = {}
        for name, part in (("train", found.train), ("test", found.test)):
            decoded = Decoded(part.paths, base, keep=False)  # each is seen once
            images = Viewed(decoded, part.labels, self._test_view(name))
            values = values_of(self.training, part.targets)
            parts[name] = (_Images(_loader(images, BATCH)), part.labels, values)
        return parts

    def _test_view(self, split: str) -> View:
        seeds = ("test view", self.training.settings.seed, split)
        return View(self.views, self.views.test, self.views.test_flip, seeds)


def counted(batches: Iterable[np.ndarray]) -> Iterator[list[Shown]]:
    """Every image of an epoch's batches with the number of times it was shown before: those of
    classes with few images come again and again."""
    shown = Counter[int]()
    for batch in batches:
        asked = []
        for position in batch.tolist():
            asked.append((position, shown[position]))
            shown[position] += 1
        yield asked


class _Images:
    """The images of a loader of (images, labels)."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader = loader

    def __iter__(self) -> Any:
        return (images for images, _ in self.loader)


class View:
    """What is cut from a decoded image. Each image's draw is its own, and another each time that an
    epoch shows it: from `seeds`, its position in the split and how often it was shown before,
    whatever the worker that asks for it."""

    def __init__(self, views: Views, kind: Crop, flip: bool, seeds: tuple[str | int, ...]) -> None:
        from torchvision.transforms import v2

        steps: dict[str, list[Any]] = {
            "whole": [],
            "center": [v2.CenterCrop(views.size)],
            "random": [v2.RandomCrop(views.size)],
            "random_resized": [v2.RandomResizedCrop(views.size, antialias=True)],
        }
        chosen = steps[kind] + ([v2.RandomHorizontalFlip()] if flip else [])
        self.cut = v2.Compose(chosen) if chosen else torch.nn.Identity()
        self.random = kind in ("random", "random_resized") or flip
        self.seeds = seeds

    def __call__(self, image: Tensor, position: int, before: int = 0) -> Tensor:
        if not self.random:
            return self.cut(image)
        # torchvision draws from the global state alone.
        with torch.random.fork_rng(devices=[]):
            again = (before,) if before else ()
            torch.manual_seed(derive(*self.seeds, position, *again))  # type: ignore[arg-type]
            return self.cut(image)


class Base:
    """How an image is decoded before anything is cut from it: resized, or as large as it is."""

    def __init__(self, resize: int | None, square: bool) -> None:
        self.resize, self.square = resize, square

    def size(self, width: int, height: int) -> tuple[int, int]:
        """(height, width) of what an image of that size becomes."""
        if self.resize is None:
            return height, width
        if self.square:
            return self.resize, self.resize
        scale = self.resize / min(width, height)
        # torchvision's own rounding: the longer side is truncated.
        longer = int(self.resize * max(width, height) / min(width, height))
        return (self.resize, longer) if scale * width > self.resize else (longer, self.resize)

    def decode(self, path: Path) -> Tensor:
        """(3, height, width) uint8. Raises DataError naming a file that does not decode."""
        from torchvision.transforms.v2 import functional

        try:
            with PIL.Image.open(path) as opened:
                image = functional.pil_to_tensor(opened.convert("RGB"))
        except UNREADABLE as error:
            raise DataError(
                f"{path}: cannot be read as an image ({error}); copy the dataset again"
            ) from error
        if self.resize is None:
            return image
        size = self.size(image.shape[2], image.shape[1])
        return functional.resize(image, list(size), antialias=True)


def base_of(views: Views, kind: Crop) -> Base:
    """A `random_resized` crop is cut from the file's own pixels, everything else after `resize`."""
    return Base(None if kind == "random_resized" else views.resize, views.square)


class Decoded:
    """Decoded images by position: from memory if all of them fit into SHARE of what is free (or
    into HYPERSPHERE_DECODED_GB), else decoded anew each time.

    The memory is shared with worker processes; it is filled here, by threads.
    """

    def __init__(self, paths: Sequence[Path], base: Base, *, keep: bool = True) -> None:
        self.paths, self.base = paths, base
        self.pixels: Tensor | None = None
        if keep and paths and (sizes := self._sizes()) is not None:
            ends = torch.tensor([3 * h * w for h, w in sizes]).cumsum(0)
            self.pixels = torch.empty(int(ends[-1]), dtype=torch.uint8).share_memory_()
            self.places = list(zip([0, *ends[:-1].tolist()], ends.tolist(), sizes, strict=True))
            for _ in in_threads(self._fill, range(len(paths)), torch.get_num_threads()):
                pass

    def _sizes(self) -> list[tuple[int, int]] | None:
        """(height, width) of every decoded image, None when they would not all fit."""
        budget = decoded_budget()
        some = self._size_of(self.paths[:: max(len(self.paths) // 50, 1)])
        mean = sum(3 * h * w for h, w in some) / len(some)
        if mean * len(self.paths) > 1.5 * budget:  # no need to look at each
            return None
        sizes = self._size_of(self.paths)
        return sizes if sum(3 * h * w for h, w in sizes) <= budget else None

    def _size_of(self, paths: Sequence[Path]) -> list[tuple[int, int]]:
        def one(path: Path) -> tuple[int, int]:
            try:
                with PIL.Image.open(path) as image:  # reads the header alone
                    return self.base.size(*image.size)
            except (OSError, SyntaxError):
                return self.base.size(1, 1)  # decoding it names the trouble

        return list(in_threads(one, paths, 8))

    def _fill(self, i: int) -> None:
        assert self.pixels is not None
        start, end, _ = self.places[i]
        self.pixels[start:end] = self.base.decode(self.paths[i]).flatten()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> Tensor:
        if self.pixels is None:
            return self.base.decode(self.paths[i])
        start, end, size = self.places[i]
        return self.pixels[start:end].view(3, *size)


class Viewed(Dataset[tuple[Tensor, ...]]):
    """(image (3, size, size) uint8, label), and its value where there are some, by position or by
    position and times shown before."""

    def __init__(
        self, decoded: Decoded, labels: Tensor, view: View, values: Tensor | None = None
    ) -> None:
        self.decoded, self.view = decoded, view
        self.numbers = [labels] if values is None else [labels, values]

    def __len__(self) -> int:
        return len(self.decoded)

    def __getitem__(self, asked: int | Shown) -> tuple[Tensor, ...]:
        i, before = (asked, 0) if isinstance(asked, int) else asked
        return self.view(self.decoded[i], i, before), *(numbers[i] for numbers in self.numbers)


def decoded_budget() -> float:
    """Bytes of memory that decoded images of one split may take."""
    if stated := os.environ.get("HYPERSPHERE_DECODED_GB"):
        return float(stated) * 1e9
    free = []
    for path, unit in (("/proc/meminfo", 1024), ("/sys/fs/cgroup/memory.max", 1)):
        try:
            lines = Path(path).read_text().splitlines()
        except OSError:
            continue
        words = next((line.split() for line in lines if "MemAvailable" in line), lines[0].split())
        free += [int(word) * unit for word in words if word.isdigit()]
    return SHARE * min(free, default=8e9)


def _loader(images: Viewed, batch_size: int = 1, **choices: Any) -> DataLoader[Any]:
    workers = num_workers()
    if "batch_sampler" not in choices:
        choices["batch_size"] = batch_size
    return DataLoader(
        images,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_one_thread if workers else None,
        **choices,
    )


def num_workers() -> int:
    """Worker processes: HYPERSPHERE_WORKERS, else all cores but one (8 at most), and none where
    this process is itself one of many (one thread, or a pool's worker)."""
    if stated := os.environ.get("HYPERSPHERE_WORKERS"):
        return int(stated)
    if torch.get_num_threads() == 1 or multiprocessing.current_process().daemon:
        return 0
    return min((os.cpu_count() or 2) - 1, 8)


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)
