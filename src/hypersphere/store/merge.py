"""Joining runs of other machines into this store: verified, never overwriting.

What comes from elsewhere is data, never code: records are JSON, weights and embeddings are read as
safetensors, arrays without pickles. A checkpoint to resume from (resume.ckpt) is left behind: those
are only ever read from the folder of the run that wrote them.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors import SafetensorError, safe_open

from hypersphere.config import digest
from hypersphere.data.fetching.archives import is_archive, unpack
from hypersphere.errors import UserError
from hypersphere.files import sha256_of, write_atomically, write_text
from hypersphere.store import artifacts
from hypersphere.store.agreement import disagreement
from hypersphere.store.records import Record, decode
from hypersphere.store.store import RECORD, Store, TakenError

TENSORS = ("model.safetensors", "embeddings.safetensors")
LINES = "records.jsonl"
_RUN_ID, _NAME = re.compile(r"[0-9a-f]{12}"), re.compile(r"[A-Za-z0-9][\w.-]*")


@dataclass
class Merged:
    """Ids of the runs added, here already, and completed (their files were gone here); one line
    for each that contradicts ours, and for each that was refused."""

    added: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    completed: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


class _Refused(Exception):
    """Why a run is not taken over."""


@dataclass(frozen=True)
class _Found:
    """A record, where it stands, and the folders its tensors and arrays would be in."""

    record: Record
    where: str
    files: Path
    arrays: Path


def merge(source: Path, store: Store) -> Merged:
    """Join the runs under `source`: a folder of runs or of results, one that holds such folders,
    or an archive of one (.tar, .tar.gz, .zip).

    A run is taken over when its id is the hash of its identity and everything that came with it has
    the checksum its record names. One that is here already stays as it is.
    Raises UserError for a source that is none, or an archive that is damaged or not safe.
    """
    if not source.exists():
        raise UserError(f"{source}: no such folder or archive")
    if source.is_dir():
        return _merge(source, store)
    if not is_archive(source.name):
        raise UserError(f"{source}: neither a folder nor an archive (.tar, .tar.gz, .zip)")
    try:
        store.runs.mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(prefix=".merging-", dir=store.runs)
    except OSError as error:
        raise UserError(f"{store.runs}: cannot be written ({error.strerror})") from None
    try:
        unpack(source, Path(folder))
        return _merge(Path(folder), store)
    except OSError as error:
        raise UserError(f"{source}: cannot be unpacked ({error.strerror or error})") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def records_under(folder: Path) -> tuple[dict[str, Record], list[str]]:
    """Records by run id under a folder of runs or results, or one that holds such; and a line for
    each that cannot be read. Raises UserError for a folder without any."""
    refused: list[str] = []
    found = {each.record["run_id"]: each.record for each in _records(folder, refused)}
    if not found and not refused:
        raise UserError(f"{folder}: no runs there (no {RECORD}, no {LINES})")
    return found, refused


def _merge(source: Path, store: Store) -> Merged:
    merged, seen = Merged(), 0
    for found in _records(source, merged.refused):
        seen += 1
        try:
            _join(found, store, merged)
        except (_Refused, TakenError) as error:
            merged.refused.append(f"{found.where}: {error}")
    if not seen and not merged.refused:
        raise UserError(f"{source}: no runs there (no {RECORD}, no {LINES})")
    return merged


def _records(source: Path, refused: list[str]) -> Iterator[_Found]:
    for name, folders, files in os.walk(source):  # links to folders are not followed
        folders.sort()
        folder = Path(name)
        texts = []
        if RECORD in files:
            texts = [(str(folder / RECORD), folder / RECORD, None)]
        elif LINES in files:
            texts = [(f"{folder / LINES}", folder / LINES, "lines")]
        for where, path, kind in texts:
            if path.is_symlink():
                refused.append(f"{where}: a link")
                continue
            text = path.read_text(encoding="utf-8", errors="surrogateescape")
            for number, line in enumerate(text.split("\n") if kind else [text], 1):
                if not line.strip():
                    continue
                place = f"{where}:{number}" if kind else where
                try:
                    record = decode(line)
                except (ValueError, RecursionError) as error:
                    refused.append(f"{place}: {error}")
                    continue
                arrays = folder / artifacts.FOLDER
                arrays = arrays / record["run_id"] if kind else arrays
                yield _Found(record, place, folder, arrays)


def _join(found: _Found, store: Store, merged: Merged) -> None:
    record, run_id = found.record, found.record["run_id"]
    _check_record(record)
    tensors, arrays = _checked_tensors(found), _checked_arrays(found)
    ours = store.get(run_id)
    if ours is not None and (why := disagreement(ours, record)) is not None:
        said = why.said("here", "there")
        merged.conflicts.append(f"{found.where}: run {run_id}: {said}; ours is kept")
        return
    if ours is not None:
        tensors = {
            name: path
            for name, path in tensors.items()
            if ours.get("files", {}).get(name) == record["files"][name]
            and not (store.folder(run_id) / name).exists()
        }
        if not tensors:
            merged.known.append(run_id)
            return
    with store.hurried().claim(run_id):
        folder = store.folder(run_id)
        for name, path in tensors.items():
            _copy(path, folder / name, record["files"][name])
        if ours is not None:
            merged.completed.append(run_id)
            return
        for name, path in arrays.items():
            target = folder / artifacts.FOLDER / f"{name}.npz"
            _copy(path, target, record["artifacts"][name])
        if isinstance(record.get("config"), dict):
            write_text(folder / "config.yaml", yaml.safe_dump(record["config"], sort_keys=False))
        store.write(record)  # last, as always: it means done
        merged.added.append(run_id)


def _check_record(record: Record) -> None:
    run_id, identity = record["run_id"], record.get("identity")
    if not _RUN_ID.fullmatch(run_id):
        raise _Refused(f"run id {run_id!r} is none of ours")
    kinds: dict[str, type] = {"identity": dict, "metrics": dict, "diverged": bool, "git": dict}
    for key, kind in kinds.items():
        if not isinstance(record.get(key), kind):
            raise _Refused(f"run {run_id}: its record lacks {key}")
    try:
        hashed = digest(identity or {})
    except ValueError:
        hashed = ""
    if hashed != run_id or record["kind"] != (identity or {}).get("kind"):
        raise _Refused(f"run {run_id}: its id is not the hash of what it says it is")


def _checked_tensors(found: _Found) -> dict[str, Path]:
    """The weights and embeddings that came with the record, by name."""
    named = found.record.get("files", {})
    if not isinstance(named, dict) or not set(named) <= set(TENSORS):
        raise _Refused(f"run {found.record['run_id']}: names files that are none of a run's")
    there = {}
    for name, sha256 in named.items():
        path = found.files / name
        if not os.path.lexists(path):
            continue
        _check_sum(path, sha256)
        try:
            with safe_open(path, framework="numpy") as file:
                file.keys()
        except (SafetensorError, OSError) as error:
            raise _Refused(f"{path}: no safetensors ({error}); nothing was loaded") from None
        there[name] = path
    return there


def _checked_arrays(found: _Found) -> dict[str, Path]:
    """The artifacts of the record by name: all of them, since figures need them."""
    named = found.record.get("artifacts", {})
    if not isinstance(named, dict) or not all(_NAME.fullmatch(str(name)) for name in named):
        raise _Refused(f"run {found.record['run_id']}: names artifacts that are none of a run's")
    there = {}
    for name, sha256 in named.items():
        path = found.arrays / f"{name}.npz"
        if not os.path.lexists(path):
            raise _Refused(f"{path}: missing, and its record needs it")
        _check_sum(path, sha256)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                for key in arrays.files:
                    arrays[key]
        except Exception as error:  # zip's, numpy's and zlib's
            raise _Refused(f"{path}: no arrays ({error}); nothing was loaded") from None
        there[name] = path
    return there


def _check_sum(path: Path, sha256: Any) -> None:
    if path.is_symlink() or not path.is_file():
        raise _Refused(f"{path}: a link or no file")
    if sha256_of(path) != sha256:
        raise _Refused(f"{path}: not what its record names (damaged, or of another training)")


def _copy(source: Path, target: Path, sha256: str) -> None:
    def write(temporary: Path) -> None:
        shutil.copyfile(source, temporary)
        if sha256_of(temporary) != sha256:
            raise _Refused(f"{source}: changed while it was copied")

    write_atomically(target, write)
