"""The table of datasets: what is known of each before any file is opened.

The table is `datasets.yaml` beside this file; a dataset that fits an existing layout (layouts.py)
is one entry there. Datasets that a user brings (`hypersphere data add`) have the same entry in
`HYPERSPHERE_DATA/<name>/dataset.yaml`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml
from pydantic.dataclasses import dataclass

from hypersphere import paths
from hypersphere.errors import UserError, did_you_mean

_STRICT = pydantic.ConfigDict(extra="forbid")
_HERE = Path(__file__).parent
ANGLE = "angle"  # the number of each image of the layout `rotated`
ENTRY = "dataset.yaml"  # a user's dataset describes itself in a file of this name

Layout = Literal[
    "digits", "torchvision", "class_folders", "tiny_imagenet", "cub", "coco", "csv", "arrays",
    "corrupted_arrays", "subset", "long_tail", "rotated",
]  # fmt: skip


@dataclass(frozen=True, config=_STRICT)
class Download:
    """One file to fetch.

    mirrors: URLs (http, https, file), tried in order. checksum: `md5:`, `sha256:` or `git:` (the
    id of a git blob) and the hex digest; "" where nobody publishes one. bytes: its size. into: the
    folder under HYPERSPHERE_DATA where it is unpacked, or put as it is.
    """

    file: str
    mirrors: tuple[str, ...] = ()
    checksum: Annotated[str, pydantic.Field(pattern=r"^((md5|sha256|git):[0-9a-f]+)?$")] = ""
    bytes: int | None = None
    into: str = "."


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Resource:
    """Files that can be fetched or staged: a dataset, or vectors that go with one.

    where: its places under HYPERSPHERE_DATA, any of which will do. note: what a person should know
    before getting it.
    """

    title: str
    citation: str
    where: tuple[str, ...] = ()
    downloads: tuple[Download, ...] = ()
    licence: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Dataset(Resource):
    """One dataset's facts.

    layout, options: how layouts.py reads it. classes: names in the order of the labels, as they
    stand on disk; None where they come with the data. names: the same for people, where they
    differ. size: side length in pixels of images held in memory; None for image files of any size.
    mean, std: per channel, of the training images scaled to [0, 1]. train, test: number of images.
    order: what, after the label, sorts the images: their `pixels` (copies may be shuffled or
    renamed) or their file `name`. content: sha256 of the dataset in canonical order (load.py), ""
    where no copy was at hand to take it from.
    """

    layout: Layout
    num_classes: Annotated[int, pydantic.Field(ge=1)]
    train: Annotated[int, pydantic.Field(ge=0)]
    test: Annotated[int, pydantic.Field(ge=0)]
    options: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    names: tuple[str, ...] | None = None
    size: int | None = None
    channels: int = 3
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    order: Literal["pixels", "name"] = "pixels"
    content: str = ""

    @property
    def in_memory(self) -> bool:
        """Whether all of it is held as one uint8 tensor per split (else it streams from files)."""
        return self.size is not None

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the further numbers that each image has."""
        stated = self.options.get("targets", ())
        return (ANGLE,) if self.layout == "rotated" else tuple(stated)

    @property
    def pinned(self) -> str:
        """What stands for the content in a run's identity: the hash of the content, or where no
        complete copy was at hand the checksums of the official archives (of what it is made from,
        and how)."""
        if self.content or "of" not in self.options:
            return self.content or " ".join(d.checksum for d in self.downloads if d.checksum)
        return f"{DATASETS[self.options['of']].pinned} {json.dumps(self.options, sort_keys=True)}"


@cache
def _table() -> dict[str, Resource]:
    return read_entries(_HERE / "datasets.yaml")


def resources() -> dict[str, Resource]:
    """Everything of the table that is no dataset, by name."""
    return {k: v for k, v in _table().items() if not isinstance(v, Dataset)}


@cache
def pinned_file(file: str) -> str:
    """The sha256 that the table states for a file below the data folder, "" for any other file."""
    for entry in _table().values():
        for download in getattr(entry, "downloads", ()):
            kind, _, digest = download.checksum.partition(":")
            if f"{download.into}/{download.file}" == file and kind == "sha256":
                return digest
    return ""


def read_entries(path: Path) -> dict[str, Any]:
    """The entries of a table file. Raises UserError naming the entry and key that do not hold."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None
    if not isinstance(raw, Mapping):
        raise UserError(f"{path}: needs `name: {{title: ..., layout: ..., ...}}` entries")
    return {name: _entry(path, name, value) for name, value in raw.items()}


def _entry(path: Path, name: str, value: Any) -> Resource:
    try:
        value = dict(value)
        if isinstance(value.get("classes"), str):
            value |= _class_names(_HERE / "class_names" / value["classes"])
        entry = Dataset(**value) if "layout" in value else Resource(**value)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: {name}.{key}: {first['msg'].lower()}") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: {name}: {error}") from None
    if isinstance(entry, Dataset):
        for key in ("classes", "names"):
            listed = getattr(entry, key)
            if listed is not None and len(listed) != entry.num_classes:
                raise UserError(
                    f"{path}: {name}.{key}: {len(listed)} for {entry.num_classes} classes"
                )
    return entry


def _class_names(path: Path) -> dict[str, tuple[str, ...]]:
    """One class per line in the order of the labels: its name on disk and, after a tab, the name
    for people where that differs."""
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    columns = dict(zip(("classes", "names"), zip(*lines, strict=True), strict=False))
    return {key: tuple(column) for key, column in columns.items()}


class _Datasets(Mapping[str, Dataset]):
    """The table and the user's own datasets under HYPERSPHERE_DATA, by name."""

    def __getitem__(self, name: str) -> Dataset:
        if name in self.added:
            return self.added[name]
        if isinstance(entry := _table().get(name), Dataset):
            return entry
        path = paths.data_dir() / str(name) / ENTRY
        if str(name).isidentifier() and path.is_file():
            return _own(path, path.stat().st_mtime_ns)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        listed = [name for name, entry in _table().items() if isinstance(entry, Dataset)]
        own = sorted(path.parent.name for path in paths.data_dir().glob(f"*/{ENTRY}"))
        yield from dict.fromkeys([*listed, *self.added, *own])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __init__(self) -> None:
        self.added: dict[str, Dataset] = {}  # by a program that uses this package, or a test


@cache
def _own(path: Path, _modified: int) -> Dataset:
    """What a user's dataset.yaml says. Raises UserError naming the file and the remedy."""
    try:
        entries = read_entries(path)
        found = entries.get(path.parent.name)
        if not isinstance(found, Dataset):
            raise UserError(f"{path}: has no entry {path.parent.name!r} with a layout")
        return found
    except UserError as error:
        raise UserError(
            f"{error}; delete it and run `hypersphere data add {path.parent.name} FOLDER` again"
        ) from None


DATASETS = _Datasets()


def dataset(name: str) -> Dataset:
    """The facts of dataset `name`. Raises UserError naming the nearest one that there is."""
    try:
        return DATASETS[name]
    except KeyError:
        hint = did_you_mean(str(name), DATASETS)
        raise UserError(f"no dataset {name!r}{hint} (known: {', '.join(DATASETS)})") from None
