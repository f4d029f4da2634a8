"""Image files by their number: listing, hashing, decoding, and what stays in memory."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch

from benches.scale import Peak, seconds
from hypersphere.config.data import Views
from hypersphere.data import load, notes
from hypersphere.data.inventory import add
from hypersphere.data.load import FileSet
from hypersphere.training.files import Decoded, View, Viewed, base_of

CLASSES, DISTINCT, SIZE = 50, 64, (192, 256)
LARGE = (600, 800)  # about what the photographs of iNaturalist have
VIEWS = Views(resize=128, square=False, crop=112, train="random", test="center", flip=True)
DECODED = 1_000  # images whose decoding is timed


def measure(number: int) -> dict[str, Any]:
    """A dataset of `number` training images: hashed as a copy is at its first use, listed as at
    every later one; then gone through without keeping decoded images, and with."""
    with _files(number) as folder:
        load.check_files = lambda files: None  # decodes each: below, of fewer
        peak = Peak()
        add("made_up", folder)
        taken = []
        for forgotten in (True, False):
            load.load_files.cache_clear()
            if forgotten:
                notes.forget("made_up")
            taken.append(seconds(lambda: load.load_files("made_up"), 1))
        train = load.load_files("made_up").train
        found: dict[str, Any] = {
            "images": number,
            "megabytes_on_disk": round(sum(p.stat().st_size for p in train.paths) / 2**20, 1),
            "hashed_seconds": taken[0],
            "listed_seconds": taken[1],
            "listing_peak_mb": peak(),
        }
        found |= _gone_through("streamed", train, gigabytes=0)
        some = FileSet(train.paths[:DECODED], train.labels, {})
        found |= _gone_through("kept", some, gigabytes=1000)
        large = Path(folder) / "large.jpg"
        large.write_bytes(_jpeg(np.random.default_rng(0), LARGE))
        decode = base_of(VIEWS, VIEWS.train).decode
        found["large_file_kb"] = round(large.stat().st_size / 1000)
        found["large_images_per_second"] = round(1 / seconds(lambda: decode(large), 10), 1)
    return found


def _gone_through(name: str, part: FileSet, gigabytes: int) -> dict[str, Any]:
    """Random crops of (some of) the images, with so much memory for decoded ones."""
    os.environ["HYPERSPHERE_DECODED_GB"] = str(gigabytes)
    view, peak = View(VIEWS, VIEWS.train, VIEWS.flip, ("bench", 0)), Peak()
    images = Viewed(Decoded(part.paths, base_of(VIEWS, VIEWS.train)), part.labels, view)
    few = range(0, len(images), max(len(images) // DECODED, 1))
    taken = seconds(lambda: [len(images[i]) for i in few], 1)
    return {f"{name}_images_per_second": round(len(few) / taken, 1), f"{name}_peak_mb": peak()}


@contextmanager
def _files(number: int) -> Iterator[Path]:
    """train/<class>/*.jpg and a few test images, under a data folder of their own."""
    rng = np.random.default_rng(0)
    texts = [_jpeg(rng, SIZE) for _ in range(DISTINCT)]
    with tempfile.TemporaryDirectory() as place:
        os.environ["HYPERSPHERE_DATA"] = f"{place}/data"
        for split, many in (("train", number), ("test", CLASSES)):
            for c in range(CLASSES):
                (Path(place) / "images" / split / f"{c:03}").mkdir(parents=True)
            for i in range(many):
                file = Path(place) / "images" / split / f"{i % CLASSES:03}" / f"{i:07}.jpg"
                file.write_bytes(texts[i % DISTINCT])
        yield Path(place) / "images"


def _jpeg(rng: np.random.Generator, size: tuple[int, int]) -> bytes:
    """Smooth with some noise, as photographs are: noise alone would not compress."""
    coarse = rng.integers(0, 256, (1, 3, size[0] // 16, size[1] // 16)).astype(np.float32)
    smooth = torch.nn.functional.interpolate(torch.from_numpy(coarse), size, mode="bicubic")
    pixels = smooth[0].permute(1, 2, 0).numpy() + rng.normal(0, 8, (*size, 3))
    file = io.BytesIO()
    PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()
