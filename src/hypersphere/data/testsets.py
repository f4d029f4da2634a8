"""Test images of a dataset, clean or corrupted, for networks that were trained elsewhere."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import pydantic
import torch
from torch import Tensor

from hypersphere.data.corruptions import corrupt
from hypersphere.data.facts import DATASETS, dataset
from hypersphere.data.layouts import array
from hypersphere.data.listing import DataError, needed_place
from hypersphere.data.load import load
from hypersphere.errors import did_you_mean


class Corruption(pydantic.BaseModel):
    """A corruption of test images (Hendrycks and Dietterich 2019); all of it is protocol.

    strength: the published table of constants (`imagenet`, as imgaug wraps it; `tiny_imagenet`;
    `cifar`) by which images are corrupted here, or `official`: the files of CIFAR-10-C and
    CIFAR-100-C. seed: of the noise made here.
    """

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)
    kind: Literal["impulse_noise", "salt_and_pepper", "jpeg_compression", "defocus_blur"]
    severity: Annotated[int, pydantic.Field(ge=1, le=5)]
    strength: Literal["imagenet", "tiny_imagenet", "cifar", "official"]
    seed: Annotated[int, pydantic.Field(ge=0)] = 0

    def __str__(self) -> str:
        return f"{self.kind.replace('_', ' ')}, severity {self.severity} ({self.strength})"


def evaluation_images(name: str, corruption: Corruption | None = None) -> tuple[Tensor, Tensor]:
    """Test images (n, c, size, size) uint8 and labels (n,) of a dataset held in memory.

    Images corrupted here keep the canonical order of the clean ones; official ones come in their
    files' order. Raises DataError when the dataset, or its official corruptions, are not here.
    """
    if corruption is None:
        data = load(name)
        return data.test_images, data.test_labels
    if corruption.strength == "official":
        return official(name, corruption.kind, corruption.severity)
    data = load(name)
    settings = corruption.model_dump()
    return corrupt(data.test_images, **settings), data.test_labels


def official(name: str, kind: str, severity: int) -> tuple[Tensor, Tensor]:
    """The published corrupted test images of CIFAR-10 or CIFAR-100 at one severity (1 to 5).

    kind: the name of a file of CIFAR-10-C, all 19 of them. Raises DataError naming what is missing.
    """
    source = f"{name}_c"
    if source not in DATASETS:
        raise DataError(f"{name}: there are no official corruptions of it; generate them")
    folder, facts = needed_place(source), dataset(source)
    kinds = sorted(path.stem for path in folder.glob("*.npy") if path.name != "labels.npy")
    if kind not in kinds:
        hint = did_you_mean(kind, kinds)
        raise DataError(f"{folder}: has no {kind}.npy{hint} (there are {', '.join(kinds)})")
    images, labels = array(folder / f"{kind}.npy", source), array(folder / "labels.npy", source)
    if len(images) != 5 * facts.test or len(labels) != len(images):
        raise DataError(
            f"{folder / kind}.npy: has {len(images)} images and {len(labels)} labels, expected"
            f" {5 * facts.test} (5 severities); run `hypersphere data get {source} --replace`"
        )
    part = slice((severity - 1) * facts.test, severity * facts.test)
    pixels = torch.from_numpy(np.array(images[part])).permute(0, 3, 1, 2)
    return pixels, torch.from_numpy(np.asarray(labels[part], np.int64))
