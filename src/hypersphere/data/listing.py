"""What a dataset looks like before it is put in order, and where it lies."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hypersphere import paths
from hypersphere.data.facts import DATASETS
from hypersphere.errors import UserError


class DataError(UserError):
    """A dataset that cannot be read. state: `missing`, `partial` or `corrupt`."""

    def __init__(self, message: str, state: str = "corrupt") -> None:
        # torch rebuilds what a worker process raised around its traceback, whose last line is ours.
        super().__init__(message.strip().splitlines()[-1].removeprefix(f"{_NAME}: "))
        self.state = state


_NAME = f"{DataError.__module__}.{DataError.__qualname__}"


@dataclass
class Part:
    """One split of a dataset.

    labels: (n,) int64. pixels: (n, height, width, channels) uint8, or files: n paths, and names:
    what sorts them (the path below the dataset's folder). targets: further numbers per image.
    """

    labels: np.ndarray
    pixels: np.ndarray | None = None
    files: list[Path] | None = None
    names: list[str] = field(default_factory=list)
    targets: dict[str, np.ndarray] = field(default_factory=dict)

    def take(self, chosen: np.ndarray) -> Part:
        """The images at the positions `chosen` (int64)."""
        return Part(
            self.labels[chosen],
            None if self.pixels is None else self.pixels[chosen],
            None if self.files is None else [self.files[i] for i in chosen],
            [self.names[i] for i in chosen] if self.names else [],
            {key: values[chosen] for key, values in self.targets.items()},
        )


@dataclass
class Listing:
    """Both splits, and the classes by label (names: the same for people)."""

    train: Part
    test: Part
    classes: tuple[str, ...]
    names: tuple[str, ...]


def place(name: str) -> Path | None:
    """Where the dataset lies, None when none of its places is there."""
    facts = DATASETS[name]
    if "of" in facts.options:
        return place(facts.options["of"])
    for where in facts.where:
        folder, _, inner = where.partition("/{")
        parts = inner.rstrip("}").split(",") if inner else ["."]
        if all((paths.data_dir() / folder / part).exists() for part in parts):
            return paths.data_dir() / folder
    return Path(facts.options["folder"]) if "folder" in facts.options else None


def needed_place(name: str) -> Path:
    """Like `place`. Raises DataError (missing) with the way to get the dataset."""
    if (folder := place(name)) is None or not folder.exists():
        raise DataError(missing(name), "missing")
    return folder


def missing(name: str) -> str:
    """One line that says how to get a dataset that is not here."""
    facts = DATASETS[name]
    if "of" in facts.options:
        return f"{name} is made from {facts.options['of']}: {missing(facts.options['of'])}"
    if "folder" in facts.options:  # one's own
        entry = paths.data_dir() / name
        return (
            f"{name}: its folder {facts.options['folder']} is not there; bring it back, or delete"
            f" {entry} and tell `hypersphere data add {name}` where it is now"
        )
    where = " or ".join(facts.where) or name
    return (
        f"{name} is not under {paths.data_dir()} ({where}): run `hypersphere data get {name}`"
        " where there is a network, or copy it there and set HYPERSPHERE_DATA"
    )


def available(name: str) -> str | None:
    """None when `name` can be read without a download, else one line that says how to get it.

    Looks for files only; whether they are intact shows when they are loaded.
    """
    facts = DATASETS[name]
    if facts.layout == "digits":
        return None
    if "of" in facts.options:
        return available(facts.options["of"]) and missing(name)
    folder = place(name)
    return None if folder is not None and folder.exists() else missing(name)
