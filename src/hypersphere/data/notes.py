"""What is remembered beside the data, in HYPERSPHERE_DATA/.cache: contents and decoded pixels.

Everything here can be deleted at any time; it is then made again. A folder that cannot be written
is no trouble: nothing is remembered there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from hypersphere import paths
from hypersphere.data.listing import Listing, Part, place
from hypersphere.errors import UserError
from hypersphere.files import write_atomically, write_text

LARGEST = 4 * 10**9  # bytes of decoded pixels that are worth a file of their own


def stamp(listing: Listing) -> str:
    """A hash of the names, sizes and times of the image files; "" where pixels lie in few files,
    which are read as fast as a copy of them would be."""
    digest = hashlib.sha256()
    for part in (listing.train, listing.test):
        if part.files is None:
            return ""
        for path, name, label in zip(part.files, part.names, part.labels, strict=True):
            found = path.stat()
            digest.update(f"{label} {name} {found.st_size} {found.st_mtime_ns}\n".encode())
        digest.update(b"\n")
    return digest.hexdigest()


def checked(name: str, content: str, stamp: str = "") -> None:
    """Note that the copy of `name` was read in full and has this content."""
    if place(name) is None:
        return  # it came with a package
    old = read(name) or {"source": ""}
    if old.get("content") != content or old.get("stamp") != stamp:
        now = time.strftime("%Y-%m-%dT%H:%M:%S")
        _write(name, {**old, "content": content, "stamp": stamp, "checked": now})


def came_from(name: str, source: str) -> None:
    """Add to the note on `name`, if there is one, where it was downloaded from."""
    if source and (note := read(name)):
        _write(name, {**note, "source": source})


def _write(name: str, note: dict[str, Any]) -> None:
    with contextlib.suppress(UserError):
        write_text(_path(name, "json"), json.dumps(note) + "\n")


def content(name: str, stamp: str) -> str | None:
    """The content that was noted for exactly these files, None when none was."""
    note = read(name)
    return note["content"] if note and note.get("stamp") == stamp else None


def read(name: str) -> dict[str, Any] | None:
    """The note on dataset `name`: content, stamp, checked (local time), source."""
    try:
        note = json.loads(_path(name, "json").read_text())
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) and isinstance(note.get("content"), str) else None


def forget(name: str) -> None:
    """Remove what is remembered of `name`."""
    for ending in ("json", "safetensors"):
        with contextlib.suppress(OSError):
            _path(name, ending).unlink(missing_ok=True)


def keep_pixels(name: str, stamp: str, kept: tuple[tuple[Part, Part], str]) -> None:
    """Keep decoded images, so that the next process need not decode them."""
    parts, content = kept
    arrays = {}
    for split, part in zip(("train", "test"), parts, strict=True):
        arrays |= {f"{split}.pixels": part.pixels, f"{split}.labels": part.labels}
        arrays |= {f"{split}.target.{key}": values for key, values in part.targets.items()}
    if sum(a.nbytes for a in arrays.values()) > LARGEST:
        return
    about = {"stamp": stamp, "content": content}
    arrays = {key: np.ascontiguousarray(values) for key, values in arrays.items()}

    def write(path: Path) -> None:
        save_file(arrays, path, metadata=about)
        path.chmod(0o644)  # others of the group use the same copy of the data

    with contextlib.suppress(UserError, SafetensorError):  # the latter where the disk is full
        write_atomically(_path(name, "safetensors"), write)


def read_pixels(name: str, stamp: str) -> tuple[tuple[Part, Part], str] | None:
    """What `keep_pixels` kept of exactly these files, None when nothing was (or is readable)."""
    if not stamp:
        return None
    try:
        with safe_open(_path(name, "safetensors"), framework="numpy") as file:
            about = file.metadata()
            if about["stamp"] != stamp:
                return None
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError):
        return None
    parts = []
    for split in ("train", "test"):
        prefix = f"{split}.target."
        targets = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
        parts.append(Part(arrays[f"{split}.labels"], arrays[f"{split}.pixels"], targets=targets))
    return (parts[0], parts[1]), about["content"]


def _path(name: str, ending: str) -> Path:
    return paths.data_dir() / ".cache" / f"{name}.{ending}"
