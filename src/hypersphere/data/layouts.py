"""How each layout on disk becomes labels and pixels, or labels and image files.

A reader lists one dataset as it lies there, in whatever order; load.py checks the counts and
puts it into canonical order. What torchvision.datasets parses, it parses.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hypersphere import paths
from hypersphere.data.facts import DATASETS, Dataset
from hypersphere.data.listing import DataError, Listing, Part, needed_place, place
from hypersphere.data.order import name_order, pixel_order
from hypersphere.data.splits import choose_by_count, holdout


def read(name: str) -> Listing:
    """List dataset `name` under HYPERSPHERE_DATA. Pixels are read only where a file holds many
    images. Raises DataError (missing, partial or corrupt), naming the file and the remedy."""
    facts = DATASETS[name]
    listing = _READERS[facts.layout](name, facts)
    for part in (listing.train, listing.test):
        if len(part.labels) and not 0 <= part.labels.min() <= part.labels.max() < facts.num_classes:
            raise DataError(
                f"{name}: labels {part.labels.min()} .. {part.labels.max()} under {place(name)} lie"
                f" outside its {facts.num_classes} classes; get the dataset again"
            )
    return listing


# Readers


def _digits(name: str, facts: Dataset) -> Listing:
    """scikit-learn's 8 x 8 digits; every fifth image of a class, by its pixels, is a test image."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # 0..16 grey levels; 15.9375 puts 16 at 255 and keeps the steps equal.
    images = np.round(bunch.images * 15.9375).astype(np.uint8)[..., None]
    order = pixel_order(images, bunch.target)
    images, labels = images[order], bunch.target[order].astype(np.int64)
    rank = np.arange(len(labels)) - np.searchsorted(labels, labels)
    everything, test = Part(labels, images), rank % 5 == 4
    return _listing(
        facts, everything.take(np.flatnonzero(~test)), everything.take(np.flatnonzero(test))
    )


def _torchvision(name: str, facts: Dataset) -> Listing:
    """Official files through torchvision, or class folders where those lie instead."""
    folder = needed_place(name)
    if (folder / "train").is_dir():
        return _class_folders(name, facts)
    import torchvision  # takes seconds, and plans and renderings only ask whether files are there

    parser = getattr(torchvision.datasets, facts.options["parser"])
    # Its own checks want files nobody needs (STL-10's unlabelled images, CIFAR's exact pickles);
    # archives are checked when they are fetched, and pixels by load.py.
    own: dict[str, Any] = {"_check_integrity": lambda self: True}
    if hasattr(parser, "meta"):
        own["meta"] = {**parser.meta, "md5": None}
    parser = type(parser.__name__, (parser,), own)
    splits = ("train", "test") if facts.options["parser"] == "STL10" else (True, False)
    key = "split" if facts.options["parser"] == "STL10" else "train"
    try:
        parsed = [parser(paths.data_dir(), **{key: split}) for split in splits]
    except Exception as error:  # each damage has its own exception there
        raise DataError(
            f"{name}: the files under {folder} are damaged or incomplete"
            f" ({' '.join(str(error).split())}); run `hypersphere data get {name} --replace`"
        ) from error
    parts = [_of_parser(part, facts) for part in parsed]
    for part in parts:
        if part.pixels is not None and len(part.pixels) != len(part.labels):
            raise DataError(
                f"{name}: {len(part.pixels)} images but {len(part.labels)} labels under {folder};"
                f" run `hypersphere data get {name} --replace`"
            )
    return _listing(facts, *parts)


def _of_parser(parsed: Any, facts: Dataset) -> Part:
    pixels = np.asarray(parsed.data)
    labels = np.asarray(parsed.labels if hasattr(parsed, "labels") else parsed.targets)
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    elif pixels.shape[1] == facts.channels:  # STL-10 keeps the channels first
        pixels = pixels.transpose(0, 2, 3, 1)
    return Part(labels.astype(np.int64), pixels)


def _class_folders(name: str, facts: Dataset) -> Listing:
    """`<split>/<class>/**` image files; a class of the training images may lack test images."""
    folder = needed_place(name)
    if (share := facts.options.get("test_share")) is not None:
        return _one_folder(name, facts, folder, share)
    splits = [folder / facts.options.get(split, split) for split in ("train", "test")]
    found = [_image_folder(name, split) for split in splits]
    classes = facts.classes
    if classes is None:
        classes = tuple(found[0][1])
    # A name such as T-shirt/top cannot be a folder's.
    position = {c.replace("/", "_"): i for i, c in enumerate(classes)}
    parts = []
    for split, (samples, folders) in zip(splits, found, strict=True):
        if strange := sorted(set(folders) - set(position)):
            lacking = sorted(set(position) - set(folders))[:5]
            raise DataError(
                f"{split}: class folders {strange} are none of {name}'s classes"
                f" (without a folder: {lacking}); rename them, or copy the dataset again"
            )
        labels = [position[folders[y]] for _, y in samples]
        parts.append(_files(folder, [Path(p) for p, _ in samples], labels))
    return _listing(facts, *parts, classes=classes, names=_names_by_id(folder, facts, classes))


def _one_folder(name: str, facts: Dataset, folder: Path, share: float) -> Listing:
    """`<class>/**`: a share of each class, drawn once and for all, is the test set; 1 for all."""
    samples, classes = _image_folder(name, folder)
    everything = _files(folder, [Path(p) for p, _ in samples], [y for _, y in samples])
    everything = everything.take(name_order(everything.names, everything.labels))
    try:
        whole = np.ones(len(everything.labels), bool)
        held = whole if share == 1 else holdout(everything.labels, share, 0)
    except ValueError as error:
        raise DataError(f"{name}: {error}; give the class more images") from None
    parts = [everything.take(np.flatnonzero(chosen)) for chosen in (~held, held)]
    return _listing(facts, *parts, classes=facts.classes or tuple(classes))


def _image_folder(name: str, folder: Path) -> tuple[list[tuple[str, int]], list[str]]:
    from torchvision.datasets import ImageFolder

    try:
        found = ImageFolder(folder)
    except OSError as error:
        text = " ".join(str(error).split())
        if empty := re.search(r"Found no valid file for the classes (.*?)\. ", text):
            raise DataError(
                f"{folder}: class {empty.group(1)} has no image; copy {name} again, or remove its"
                " empty folder",
                "partial",
            ) from None
        raise DataError(f"{folder}: cannot be read as class folders ({text})", "partial") from None
    return found.samples, found.classes


def _names_by_id(folder: Path, facts: Dataset, classes: tuple[str, ...]) -> tuple[str, ...]:
    """Readable names where the dataset has a file of them (folder name -> name)."""
    if "names" not in facts.options:
        return facts.names or classes
    names = _json(folder / facts.options["names"])
    return tuple(names.get(c, c) for c in classes)


def _tiny_imagenet(name: str, facts: Dataset) -> Listing:
    """`train/<wnid>/images/*`; `val/images/*` with val_annotations.txt, or as many have rearranged
    it, `val/<wnid>/**`: the names that sort the images are the official ones in either case."""
    folder, position = needed_place(name), _positions(facts)
    parts = [_by_folder(name, position, folder / "train", "train/{wnid}/images/{file}")]
    table = folder / "val" / "val_annotations.txt"
    if table.exists() and (folder / "val" / "images").is_dir():
        rows = _rows(table, 3, "\t")  # file, class, its box
        labels = [_label(position, row[1], table) for row in rows]
        parts.append(_files(folder, [folder / "val" / "images" / row[0] for row in rows], labels))
        _all_there(name, parts[1])
    else:
        parts.append(_by_folder(name, position, folder / "val", "val/images/{file}"))
    return _listing(facts, *parts)


def _by_folder(name: str, position: dict[str, int], folder: Path, as_name: str) -> Part:
    samples, folders = _image_folder(name, folder)
    labels = [_label(position, folders[y], folder) for _, y in samples]
    files = [Path(path) for path, _ in samples]
    names = [
        as_name.format(wnid=folders[y], file=path.name)
        for path, (_, y) in zip(files, samples, strict=True)
    ]
    return Part(np.array(labels, np.int64), files=files, names=names)


def _cub(name: str, facts: Dataset) -> Listing:
    """images.txt, image_class_labels.txt and train_test_split.txt, joined by image number."""
    folder = needed_place(name)
    tables = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")
    images, labels, split, names = (
        {row[0]: row[1] for row in _rows(folder / table, 2)} for table in tables
    )
    position = _positions(facts)
    parts = []
    for wanted in ("1", "0"):
        numbers = [n for n in images if split.get(n) == wanted]
        classes = [
            _label(position, names.get(labels.get(n, ""), "?"), folder / tables[1]) for n in numbers
        ]
        parts.append(_files(folder, [folder / "images" / images[n] for n in numbers], classes))
        _all_there(name, parts[-1])
    return _listing(facts, *parts)


def _coco(name: str, facts: Dataset) -> Listing:
    """Annotations in COCO's form (iNaturalist): images, annotations, categories."""
    folder = needed_place(name)
    parts, classes = [], ()
    for split in ("train", "test"):
        found = _json(folder / facts.options[split])
        try:
            categories = sorted(found["categories"], key=lambda c: c["id"])
            label = {c["id"]: i for i, c in enumerate(categories)}
            of_image = {a["image_id"]: a["category_id"] for a in found["annotations"]}
            files = [folder / image["file_name"] for image in found["images"]]
            labels = [label[of_image[image["id"]]] for image in found["images"]]
        except (KeyError, TypeError) as error:
            raise DataError(
                f"{folder / facts.options[split]}: lacks {error} (images, annotations, categories);"
                f" get {name} again"
            ) from None
        classes = tuple(c["name"] for c in categories)
        parts.append(_files(folder, files, labels))
        _all_there(name, parts[-1])
    return _listing(facts, *parts, classes=classes, names=classes)


def _csv(name: str, facts: Dataset) -> Listing:
    """A table per split with a column for the image's file, one for its label, and targets."""
    import pandas

    folder, options = needed_place(name), facts.options
    tables, parts = [], []
    for split in ("train", "test"):
        path = folder / options[split]["table"]
        columns = [options["file"], options["label"], *options["targets"].values()]
        try:
            tables.append(pandas.read_csv(path, usecols=columns))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read ({error}); copy {name} again") from None
        if tables[-1].isna().any(axis=None):
            row = int(tables[-1].isna().any(axis=1).to_numpy().argmax())
            raise DataError(f"{path}: line {row + 2} lacks one of {columns}; copy {name} again")
    # The released code takes the classes from the training table; a school that only the test
    # images have would have no label there.
    classes = tuple(sorted({str(c) for t in tables for c in t[options["label"]]}))
    for split, table in zip(("train", "test"), tables, strict=True):
        ids = [f"{i}{options['ending']}" for i in table[options["file"]]]
        labels = [classes.index(str(c)) for c in table[options["label"]]]
        part = _files(folder, [folder / options[split]["images"] / i for i in ids], labels)
        try:
            part.targets = {
                key: table[column].to_numpy(np.float32)
                for key, column in options["targets"].items()
            }
        except ValueError as error:
            raise DataError(
                f"{folder / options[split]['table']}: columns {list(options['targets'].values())}"
                f" need numbers ({error}); copy {name} again"
            ) from None
        _all_there(name, part)
        parts.append(part)
    return _listing(facts, *parts, classes=classes, names=classes)


def _arrays(name: str, facts: Dataset) -> Listing:
    """A test set of two .npy files: images (n, h, w, c) uint8 and labels (n,)."""
    folder = needed_place(name)
    files = [folder / facts.options[key] for key in ("images", "labels")]
    images, labels = (array(file, name) for file in files)
    if len(images) != len(labels):
        raise DataError(
            f"{files[0]}: has {len(images)} images for {len(labels)} labels; run"
            f" `hypersphere data get {name} --replace`"
        )
    empty = Part(np.zeros(0, np.int64), np.zeros((0, *images.shape[1:]), np.uint8))
    return _listing(facts, empty, Part(np.asarray(labels, np.int64), np.asarray(images)))


def _subset(name: str, facts: Dataset) -> Listing:
    """Some classes of another dataset, in their old order."""
    options = facts.options
    whole = read(options["of"])
    if "first" in options:
        chosen = list(range(options["first"]))
    else:
        counts = np.bincount(whole.train.labels, minlength=len(whole.classes))
        try:
            chosen = choose_by_count(counts, **options["by_count"])
        except ValueError as error:
            raise DataError(f"{name}: {options['of']} {error}", "partial") from None
    label = np.full(len(whole.classes), -1)
    label[chosen] = np.arange(len(chosen))
    parts = []
    for part in (whole.train, whole.test):
        part = part.take(np.flatnonzero(label[part.labels] >= 0))
        part.labels = label[part.labels]
        parts.append(part)
    classes, names = ([of[i] for i in chosen] for of in (whole.classes, whole.names))
    return Listing(parts[0], parts[1], tuple(classes), tuple(names))


def _long_tail(name: str, facts: Dataset) -> Listing:
    """More classes than another dataset has, and fewer and fewer images of them: each class in
    several quarter turns (counter-clockwise), of which the first images in canonical order."""
    options, parts = facts.options, []
    whole = read(options["of"])
    turns = options["turns"]
    counts = np.geomspace(options["largest"], options["smallest"], facts.num_classes).round()
    for part in (whole.train, whole.test):
        assert part.pixels is not None
        order = pixel_order(part.pixels, part.labels)
        pixels, labels = part.pixels[order], part.labels[order]
        images, of = [], []
        for c in range(facts.num_classes):
            # turns of one digit are not neighbours in the ranking
            members = np.flatnonzero(labels == c % len(whole.classes))
            if part is whole.train:
                members = members[: int(counts[c])]
            images.append(np.rot90(pixels[members], turns[c // len(whole.classes)], axes=(1, 2)))
            of.append(np.full(len(members), c))
        parts.append(Part(np.concatenate(of), np.concatenate(images)))
    return _listing(facts, *parts)


def _corrupted_arrays(name: str, facts: Dataset) -> Listing:
    raise DataError(
        f"{name}: holds one test set per corruption and severity; they are asked for as the"
        f" corruptions of {name.removesuffix('_c')}, strength `official`"
    )


def array(path: Path, name: str) -> np.ndarray:
    """A .npy file, memory-mapped. Raises DataError naming the file."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        state = "corrupt" if path.exists() else "partial"
        raise DataError(
            f"{path}: cannot be read as an array ({error}); run `hypersphere data get {name}`"
            " --replace",
            state,
        ) from None


# What the readers share


def _listing(
    facts: Dataset,
    train: Part,
    test: Part,
    *,
    classes: tuple[str, ...] | None = None,
    names: tuple[str, ...] | None = None,
) -> Listing:
    classes = classes or facts.classes or ()
    return Listing(train, test, classes, names or facts.names or classes)


def _files(root: Path, files: list[Path], labels: list[int]) -> Part:
    names = [path.relative_to(root).as_posix() for path in files]
    return Part(np.array(labels, np.int64), files=files, names=names)


def _all_there(name: str, part: Part) -> None:
    assert part.files is not None
    gone = [path for path in part.files if not path.exists()]
    if gone:
        raise DataError(
            f"{name}: {len(gone)} of {len(part.files)} listed images are not there, the first is"
            f" {gone[0]}; copy the dataset again or run `hypersphere data get {name} --replace`",
            "partial",
        )


def _label(position: dict[str, int], found: str, where: Path) -> int:
    if found not in position:
        raise DataError(
            f"{where}: {found!r} is none of the dataset's {len(position)} classes; get it again"
        )
    return position[found]


def _positions(facts: Dataset) -> dict[str, int]:
    assert facts.classes is not None
    return {c: label for label, c in enumerate(facts.classes)}


def _rows(path: Path, columns: int, separator: str | None = None) -> list[list[str]]:
    """The lines of a table in words, of which the last keeps its spaces."""
    rows = [line.split(separator, maxsplit=columns - 1) for line in _lines(path)]
    for number, row in enumerate(rows, 1):
        if len(row) < columns:
            raise DataError(
                f"{path}: line {number} needs {columns} words, has {len(row)}; get it again"
            )
    return rows


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}); get the dataset again", "partial"
        ) from None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        state = "corrupt" if path.exists() else "partial"
        raise DataError(f"{path}: cannot be read ({error}); get the dataset again", state) from None


_READERS: dict[str, Callable[[str, Dataset], Listing]] = {
    "digits": _digits,
    "torchvision": _torchvision,
    "class_folders": _class_folders,
    "tiny_imagenet": _tiny_imagenet,
    "cub": _cub,
    "coco": _coco,
    "csv": _csv,
    "arrays": _arrays,
    "corrupted_arrays": _corrupted_arrays,
    "subset": _subset,
    "long_tail": _long_tail,
}
