"""What is here: the state of each dataset, and bringing one's own."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import yaml

from hypersphere import paths
from hypersphere.data import notes
from hypersphere.data.facts import DATASETS, ENTRY, Dataset, Resource, resources
from hypersphere.data.layouts import array, read
from hypersphere.data.listing import DataError, available, place
from hypersphere.data.order import file_content
from hypersphere.errors import UserError
from hypersphere.files import write_text

LARGEST_IN_MEMORY = 128  # pixels; larger images stream from their files


@dataclass(frozen=True)
class State:
    """state: `present`, `missing`, `partial` or `corrupt`. detail: what is wrong and what to do, or
    what is known of a copy that is there. where: its folder. bytes: what it takes there. source:
    where it was downloaded from, "" when it was copied by hand."""

    name: str
    title: str
    state: str
    detail: str
    where: str = ""
    bytes: int | None = None
    source: str = ""


def states() -> list[State]:
    """The state of every dataset, and of the other files that can be fetched."""
    return [look(name) for name in [*DATASETS, *resources()]]


def look(name: str, *, verify: bool = False, decode: bool = False) -> State:
    """The state of one dataset. Files are listed and their sizes checked; verify reads all of it
    and compares its content with the published one; decode opens every image file as well."""
    try:
        facts = resources().get(name) or DATASETS[name]
    except UserError as error:  # one's own, badly described
        return State(name, "", "corrupt", str(error), str(paths.data_dir() / name))
    try:
        detail = _verify(name, facts, decode) if verify or decode else _look(name, facts)
        state = "present"
    except DataError as error:
        state, detail = error.state, str(error)
    folder = place(name) if isinstance(facts, Dataset) else _folder(facts)
    if folder is None or not folder.exists():
        return State(name, facts.title, state, detail)
    source = (notes.read(name) or {}).get("source", "")
    return State(name, facts.title, state, detail, str(folder), _bytes(folder), source)


def unready(name: str) -> str | None:
    """None when a training can read dataset `name` (a computation: those files), else one line that
    says why not and what to do.

    A copy that was read in full before is trusted; any other is listed once per process.
    """
    if name not in DATASETS and name not in resources():
        return (
            f"{name} is published nowhere: bring images of your own, in <class>/ folders, by"
            f" `hypersphere data add {name} FOLDER --test-share 1`"
        )
    if name in DATASETS and (
        (why := available(name)) or notes.read(name) is not None or place(name) is None
    ):
        return why
    key = (name, str(paths.data_dir()))
    if key not in _LOOKED:
        found = look(name)
        _LOOKED[key] = None if found.state == "present" else found.detail
    return _LOOKED[key]


_LOOKED: dict[tuple[str, str], str | None] = {}


def _look(name: str, facts: Resource) -> str:
    if not isinstance(facts, Dataset):
        return _all_files(name, facts)
    if why := available(name):
        raise DataError(why, "missing")
    if facts.layout == "digits":
        return "inside scikit-learn"
    if facts.layout in ("rotated", "long_tail"):
        return f"made from {facts.options['of']} when it is read"
    folder = place(name)
    official = folder is not None and not (folder / "train").is_dir()
    if facts.layout == "torchvision" and official:
        _PARSED[facts.options["parser"]](name, folder, facts)
    elif facts.layout == "corrupted_arrays":
        _corruptions(name, folder, facts)
    else:
        from hypersphere.data.load import check_counts

        listing = read(name)
        check_counts(name, listing)
        for part in (listing.train, listing.test):
            for path in part.files or []:
                if not path.stat().st_size:
                    raise DataError(f"{path}: is empty; copy {name} again")
    note = notes.read(name)
    return f"read in full {note['checked']}, content {note['content'][:12]}" if note else ""


def _verify(name: str, facts: Resource, decode: bool) -> str:
    if not isinstance(facts, Dataset):
        return _all_files(name, facts)
    if why := available(name):
        raise DataError(why, "missing")
    from hypersphere.data.load import ImageFiles, check_files, load, load_files

    source = (notes.read(name) or {}).get("source", "")
    notes.forget(name)
    if facts.layout == "corrupted_arrays":
        content = _corruptions(name, place(name), facts, whole=True)
        notes.checked(name, content)
    else:
        reader = load if facts.in_memory else load_files
        reader.cache_clear()
        found = reader(name)
        content = found.content
        if decode and isinstance(found, ImageFiles):
            check_files([*found.train.paths, *found.test.paths])
    notes.came_from(name, source)
    known = "as published" if facts.content else "no published content to compare with"
    return f"every image read, content {content[:12]}, {known}"


def _all_files(name: str, resource: Resource) -> str:
    from hypersphere.data.fetching.transfer import Unfit, check_copy

    folder = _folder(resource)
    if folder is None or not folder.exists():
        raise DataError(f"{name} is not here: run `hypersphere data get {name}`", "missing")
    for download in resource.downloads:
        path = paths.data_dir() / download.into / download.file
        if not path.exists():
            raise DataError(f"{path} is missing: run `hypersphere data get {name}`", "partial")
        try:
            check_copy(path, download, lambda line: None)
        except Unfit as error:
            raise DataError(
                f"{path}: {error}; run `hypersphere data get {name} --replace`"
            ) from None
    return f"{len(resource.downloads)} files, checksums right"


def _folder(resource: Resource) -> Path | None:
    return paths.data_dir() / resource.where[0] if resource.where else None


def _bytes(folder: Path) -> int | None:
    if folder.is_file():
        return folder.stat().st_size
    with contextlib.suppress(OSError):
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return None


# Official files that torchvision parses: what can be seen without parsing them


def _idx(name: str, folder: Path | None, facts: Dataset) -> None:
    """An IDX file says in its header how long it is."""
    assert folder is not None
    for prefix in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            path = _there(name, folder / f"{prefix}-{kind}-ubyte")
            with open(path, "rb") as file:
                head = file.read(16)
            sizes = struct.unpack(f">{head[3]}I", head[4 : 4 + 4 * head[3]]) if head[3:4] else ()
            wanted = int(np.prod(sizes)) + 4 + 4 * len(sizes)
            if not sizes or path.stat().st_size != wanted:
                raise DataError(
                    f"{path}: has {path.stat().st_size} bytes, its header says {wanted}; run"
                    f" `hypersphere data get {name} --replace`"
                )


def _pickles(*files: str) -> Callable[[str, Path | None, Dataset], None]:
    def check(name: str, folder: Path | None, facts: Dataset) -> None:
        assert folder is not None
        for file in files:
            _there(name, folder / file)

    return check


def _stl10(name: str, folder: Path | None, facts: Dataset) -> None:
    assert folder is not None and facts.size is not None
    for split, number in (("train", facts.train), ("test", facts.test)):
        for kind, each in (("X", 3 * facts.size**2), ("y", 1)):
            path = _there(name, folder / f"{split}_{kind}.bin")
            if path.stat().st_size != number * each:
                raise DataError(
                    f"{path}: has {path.stat().st_size} bytes, expected {number * each}; run"
                    f" `hypersphere data get {name} --replace`"
                )


_PARSED: dict[str, Callable[[str, Path | None, Dataset], None]] = {
    "MNIST": _idx,
    "FashionMNIST": _idx,
    "CIFAR10": _pickles(*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"),
    "CIFAR100": _pickles("train", "test", "meta"),
    "STL10": _stl10,
}


def _there(name: str, path: Path) -> Path:
    if not path.exists():
        raise DataError(
            f"{path} is missing; run `hypersphere data get {name} --replace`, or copy it there",
            "partial",
        )
    if not path.stat().st_size:
        raise DataError(f"{path}: is empty; run `hypersphere data get {name} --replace`")
    return path


def _corruptions(name: str, folder: Path | None, facts: Dataset, *, whole: bool = False) -> str:
    """Checks one array per corruption, and with `whole` gives the hash of their bytes."""
    assert folder is not None
    wanted = 5 * facts.test
    files = sorted(folder.glob("*.npy"))
    for path in [folder / facts.options["labels"], *files]:
        if (found := len(array(path, name))) != wanted:
            raise DataError(
                f"{path}: has {found} entries, expected {wanted} (5 severities of {facts.test}"
                f" images); run `hypersphere data get {name} --replace`"
            )
    if not whole:
        return ""
    return file_content([(files, [path.name for path in files], np.zeros(len(files), np.int64))])


# A user's own images


def add(name: str, folder: Path, *, test_share: float | None = None) -> Dataset:
    """Make a folder of class folders known as dataset `name`; it is read where it lies.

    folder: `train/<class>/*` and `test/<class>/*`, or with test_share `<class>/*`, of which that
    share of each class becomes the test set (1: it only tests). Every image is read once, and what
    is found (classes, counts, statistics, content) is written to
    HYPERSPHERE_DATA/<name>/dataset.yaml. Images of one size up to LARGEST_IN_MEMORY pixels are held
    in memory, others stream from their files. Raises UserError naming what is wrong: a name that is
    taken, an empty class, a file that is no image.
    """
    from hypersphere.data.load import check_files, load, load_files

    folder = folder.expanduser().resolve()
    if not name.isidentifier() or not name.islower():
        raise UserError(f"{name!r}: a dataset's name is lower-case letters, digits and underscores")
    if name in DATASETS or name in resources():
        raise UserError(f"{name}: there is a dataset of that name; choose another")
    if test_share is None and not ((folder / "train").is_dir() and (folder / "test").is_dir()):
        raise UserError(
            f"{folder}: needs train/<class>/ and test/<class>/ folders, or say which part of each"
            " class tests: --test-share 0.2 (1: it only tests networks of other datasets)"
        )
    options: dict[str, Any] = {"folder": str(folder)}
    if test_share is not None:
        options["test_share"] = test_share
    entry: dict[str, Any] = {
        "title": f"images of {folder.name}",
        "layout": "class_folders",
        "options": options,
        "citation": "your own",
        "order": "name",
    }
    # How many classes and images there are is what reading it will tell.
    DATASETS.added[name] = Dataset(**entry, num_classes=2**31, train=0, test=0)
    try:
        listing = read(name)
        files = [*(listing.train.files or []), *(listing.test.files or [])]
        sizes, modes = _sizes_and_modes(files)
        entry |= {
            "num_classes": len(listing.classes),
            "classes": listing.classes,
            "train": len(listing.train.labels),
            "test": len(listing.test.labels),
        }
        side = max(max(size) for size in sizes)
        if sizes == {(side, side)} and side <= LARGEST_IN_MEMORY:
            entry |= {"size": side, "channels": 1 if modes <= {"1", "L"} else 3}
        DATASETS.added[name] = Dataset(**entry)
        if "size" in entry:
            images = load(name)
            entry["content"] = images.content
            if len(images.train_images):
                entry |= _statistics(images.train_images)
            load.cache_clear()
        else:
            entry["content"] = load_files(name).content
            load_files.cache_clear()
            check_files(files)
    except BaseException:
        notes.forget(name)
        raise
    finally:
        del DATASETS.added[name]
    entry["classes"] = list(listing.classes)
    text = yaml.safe_dump({name: entry}, sort_keys=False, allow_unicode=True)
    write_text(paths.data_dir() / name / ENTRY, text)
    return DATASETS[name]


def _sizes_and_modes(files: list[Path]) -> tuple[set[tuple[int, int]], set[str]]:
    sizes, modes = set(), set()
    for path in files:
        try:
            with PIL.Image.open(path) as image:
                sizes.add(image.size)
                modes.add(image.mode)
        except (OSError, SyntaxError) as error:
            raise DataError(f"{path}: cannot be read as an image ({error}); remove it") from error
    return sizes, modes


def _statistics(images: Any) -> dict[str, list[float]]:
    """Mean and deviation per channel of (n, c, h, w) uint8, exact from the grey levels' counts."""
    levels = np.arange(256) / 255
    counts = [np.bincount(c.flatten(), minlength=256) for c in images.transpose(0, 1).numpy()]
    means = [float(n @ levels / n.sum()) for n in counts]
    stds = [
        float(np.sqrt(n @ (levels - m) ** 2 / n.sum())) for n, m in zip(counts, means, strict=True)
    ]
    # A channel of one value everywhere would be divided by nothing.
    return {"mean": [round(m, 4) for m in means], "std": [round(s, 4) or 1.0 for s in stds]}
