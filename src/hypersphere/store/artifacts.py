"""Artifacts: small arrays that a figure or a question needs later, hashed in the record."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hypersphere.errors import UserError
from hypersphere.files import sha256_of, write_atomically

LIMIT = 200_000  # bytes of one file: they are committed beside the records
FOLDER = "artifacts"

Arrays = Mapping[str, np.ndarray]


def save(folder: Path, artifacts: Mapping[str, Arrays]) -> dict[str, str]:
    """Write `<folder>/<name>.npz` for each artifact (equal arrays give equal bytes) and return
    name -> sha256. Raises UserError for one above LIMIT."""
    hashes = {}
    for name, arrays in artifacts.items():
        path = folder / f"{name}.npz"

        def write(temporary: Path, arrays: Arrays = arrays) -> None:
            with open(temporary, "wb") as file:
                np.savez_compressed(file, **arrays)

        write_atomically(path, write)
        if (size := path.stat().st_size) > LIMIT:
            path.unlink()
            raise UserError(
                f"artifact {name} has {size} bytes, at most {LIMIT} travel with records"
            )
        hashes[name] = sha256_of(path)
    return hashes


def load(path: Path, sha256: str) -> dict[str, np.ndarray]:
    """The arrays of an artifact. Raises UserError when it is not the one its record names."""
    if not path.exists() or sha256_of(path) != sha256:
        raise UserError(
            f"{path}: missing or not what its record was made with; restore it from git"
        )
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def gather(source: Path, target: Path, names: Mapping[str, str]) -> None:
    """Copy the artifacts `names` (name -> sha256) of a run that are not in `target` yet."""
    for name in names:
        if not (target / f"{name}.npz").exists() and (source / f"{name}.npz").exists():
            write_atomically(
                target / f"{name}.npz", lambda path, n=name: shutil.copy(source / f"{n}.npz", path)
            )
