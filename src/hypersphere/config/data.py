"""The part of a training's configuration that says which images the network sees, and how.

All of it is protocol: it changes numbers, so it is hashed into the run's id and printed under the
tables (`describe`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

import pydantic

from hypersphere.data.facts import Dataset

_STRICT = pydantic.ConfigDict(extra="forbid", strict=True)
Pixels = Annotated[int, pydantic.Field(gt=0)]

# Channel means and deviations that belong to no dataset of ours: of ImageNet, which networks
# pretrained on it expect; and (x - 0.5) / 0.5, which maps [0, 1] to [-1, 1].
STATISTICS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "symmetric": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


class Augmentation(pydantic.BaseModel):
    """Random crop after zero padding (pixels) and random horizontal flip, per image."""

    model_config = _STRICT
    crop_padding: Annotated[int, pydantic.Field(ge=0)]
    flip: bool


Crop = Literal["whole", "center", "random", "random_resized"]


class Views(pydantic.BaseModel):
    """From an image file to the square that the network sees (torchvision v2, antialiased).

    resize: pixels of the shorter side, or of both (`square`, which distorts); None keeps the file's
    size. train, test: the `whole` image, a `center` crop, a `random` crop, or a `random_resized`
    crop (8 to 100 % of the area, aspect 3/4 to 4/3) of the file's own pixels. crop: its side in
    pixels; None for whole. flip, test_flip: random horizontal flip. Random test views (Mettes et
    al. 2019 test so) are drawn once per run, from its seed.
    """

    model_config = _STRICT
    resize: Pixels | None
    square: bool
    crop: Pixels | None
    train: Crop
    test: Crop
    flip: bool
    test_flip: bool = False

    @pydantic.model_validator(mode="after")
    def _fits(self) -> Views:
        for kind in (self.train, self.test):
            if kind == "whole" and not (self.resize and self.square and not self.crop):
                raise ValueError("`whole` needs resize, square: true and crop: null")
            if kind != "whole" and self.crop is None:
                raise ValueError(f"`{kind}` needs crop, the side in pixels")
            if kind in ("center", "random") and (self.resize is None or self.resize < self.crop):
                raise ValueError(f"`{kind}` needs resize of at least crop={self.crop} pixels")
        return self

    @property
    def size(self) -> int:
        """Side of what the network sees, in pixels."""
        size = self.crop or self.resize
        assert size is not None
        return size


class Imbalance(pydantic.BaseModel):
    """Training images per class rising evenly over the labels (Mettes et al. 2019, table 4)."""

    model_config = _STRICT
    smallest: Annotated[int, pydantic.Field(ge=1)]
    largest: Annotated[int, pydantic.Field(ge=1)]
    draw: Annotated[int, pydantic.Field(ge=0)] = 0


class Shots(pydantic.BaseModel):
    """How many training images the classes with few of them keep (those that the split names), and
    which: the first `number` of a random draw, those of an evaluation with the same `seed` and
    number of draw. or_fewer: all of a class that has not so many."""

    model_config = _STRICT
    number: Annotated[int, pydantic.Field(ge=1)]
    draw: Annotated[int, pydantic.Field(ge=0)] = 0
    seed: Annotated[int, pydantic.Field(ge=0)] = 0
    or_fewer: bool = False


class Validation(pydantic.BaseModel):
    """A share of each class's training images that is held out, and watched beside the test."""

    model_config = _STRICT
    share: Annotated[float, pydantic.Field(gt=0, lt=1)]
    draw: Annotated[int, pydantic.Field(ge=0)] = 0


class Data(pydantic.BaseModel):
    """Which dataset, and how its pixels reach the network.

    size: side length in pixels after enlarging images held in memory; None keeps the dataset's own.
    augmentation: of images held in memory; None trains on them as they are.
    views: of image files, which need them.
    normalize: pixels stay in [0, 1] (false), or lose the dataset's channel means and are divided by
    its deviations (true), or those of `imagenet`, or go to [-1, 1] (`symmetric`).
    imbalance, shots, validation: which training images are used, None for all of them.
    target: name of a further number of each image that is learned beside or instead of its class.
    """

    model_config = _STRICT
    name: str
    size: Pixels | None = None
    augmentation: Augmentation | None = None
    views: Views | None = None
    normalize: Literal[False, True, "imagenet", "symmetric"] = False
    imbalance: Imbalance | None = None
    shots: Shots | None = None
    validation: Validation | None = None
    target: str | None = None

    def misfit(self, facts: Dataset) -> str:
        """What of this does not suit the dataset, in one line; "" when all does."""
        if not facts.train and facts.test:
            return "has no training images: it only tests networks of another dataset"
        if facts.in_memory and self.views is not None:
            return "is held in memory: views are for image files; use size and augmentation"
        if not facts.in_memory and self.views is None:
            return "is read from image files of any size: data.views must say what is cut from them"
        if not facts.in_memory and (self.size or self.augmentation):
            return "is read from image files: use views instead of size and augmentation"
        if self.normalize is True and facts.mean is None:
            return f"has no statistics of its own: normalize={' or '.join(STATISTICS)}, or false"
        if self.target is not None and self.target not in facts.targets:
            known = ", ".join(facts.targets) or "none"
            return f"has no number {self.target!r} of each image (data.target; it has: {known})"
        if isinstance(self.normalize, str) and facts.channels != 3:
            return f"has {facts.channels} channel: normalize={self.normalize} is for colour"
        return ""

    def input_size(self, facts: Dataset) -> int:
        """Side of what the network sees, in pixels."""
        size = self.views.size if self.views else self.size or facts.size
        assert size is not None
        return size

    def statistics(self, facts: Dataset) -> tuple[tuple[float, ...] | None, ...]:
        """Channel means and deviations to normalise by, or (None, None)."""
        if isinstance(self.normalize, str):
            return STATISTICS[self.normalize]
        return (facts.mean, facts.std) if self.normalize else (None, None)


def describe_all(each: Iterable[tuple[Data, Dataset]]) -> list[str]:
    """`describe` of several, sorted; one line for those that differ in their shots, or in the draw
    of these or of an imbalance, alone."""
    alike: dict[str, list[tuple[Data, Dataset]]] = {}
    for data, facts in each:
        imbalance = data.imbalance and data.imbalance.model_copy(update={"draw": 0})
        bare = data.model_copy(update={"shots": None, "imbalance": imbalance})
        with_shots = "" if data.shots is None else "shots"
        alike.setdefault(describe(bare, facts) + with_shots, []).append((data, facts))
    return sorted(describe(*group[0], [data for data, _ in group]) for group in alike.values())


def describe(data: Data, facts: Dataset, alike: Sequence[Data] = ()) -> str:
    """One line of protocol for people: what of which images reaches the network. alike: others that
    the line speaks of too, which differ in their shots or draws alone."""
    alike = [data, *alike]
    counts = f": {facts.train:,} + {facts.test:,} images" if facts.train else ""
    said = [f"{data.name}{counts}"]
    if data.imbalance:
        said.append(
            f"trained on {data.imbalance.smallest} to {data.imbalance.largest} per class"
            f" ({_draws(each.imbalance.draw for each in alike if each.imbalance)})"
        )
    if data.shots:
        shots = [each.shots for each in alike if each.shots]
        numbers = ", ".join(map(str, sorted({each.number for each in shots})))
        said.append(f"{numbers} per novel class ({_draws(each.draw for each in shots)})")
    if data.validation:
        said.append(f"{data.validation.share:.0%} of the training images held out")
    said.append(_view(data.views) if data.views else _pixels(data, facts))
    values = {False: "pixels in [0, 1]", True: "normalised by its own statistics"}
    names = {"imagenet": "normalised by ImageNet's statistics", "symmetric": "pixels in [-1, 1]"}
    said.append(
        names[data.normalize] if isinstance(data.normalize, str) else values[data.normalize]
    )
    return ", ".join(said)


def _draws(each: Iterable[int]) -> str:
    draws = sorted(set(each))
    return f"draw{'s' if draws[1:] else ''} {', '.join(map(str, draws))}"


def _pixels(data: Data, facts: Dataset) -> str:
    text = f"{facts.size} x {facts.size} pixels"
    if data.size and data.size != facts.size:
        text += f" enlarged to {data.size}"
    if data.augmentation is None:
        return f"{text}, no augmentation"
    flip = " and flip" if data.augmentation.flip else ""
    return (
        f"{text}, random crop after padding by {data.augmentation.crop_padding}{flip} in training"
    )


def _view(views: Views) -> str:
    resized = "as they are" if views.resize is None else f"resized to {views.resize}"
    if views.resize and not views.square:
        resized += " (shorter side)"
    crop = f"{views.size} x {views.size}"
    train = f"{views.train.replace('_', ' ')} {crop}{' and flip' if views.flip else ''} in training"
    test = f"{views.test.replace('_', ' ')} {crop}{' and flip' if views.test_flip else ''} in test"
    return f"{resized}, {train}, {test}"
