"""Getting a dataset: from mirrors, resumed and verified, then put in place in one piece.

A file comes from the first of these that has it whole: the user's `--from`, what an earlier call
kept, the institute's mirror (environment variable HYPERSPHERE_MIRROR), the table's mirrors.
Under HYPERSPHERE_DATA:

    .downloads/<name>/<file>.part   the bytes so far; the next call goes on from there
    .downloads/<name>/<file>        whole and verified
    .downloads/<name>/lock          held while one process gets this dataset
    .<name>.unpacking               being filled; the next call starts it afresh
    .<name>.unpacked                complete, being moved to its place; the next call finishes that
    .<name>.replaced                what `replace` moved aside, until the new is in place
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hypersphere import paths
from hypersphere.data.facts import Download, Resource
from hypersphere.data.fetching import archives, transfer
from hypersphere.data.fetching.transfer import Say, size_text
from hypersphere.errors import UserError

_REMEDY = "`hypersphere data get {} --from FOLDER` takes it from a folder filled by hand"


class NoGoodCopy(UserError):
    """No folder or mirror had a file as it should be."""


@dataclass(frozen=True)
class _Order:
    """What one call was asked for."""

    name: str
    resource: Resource
    data: Path
    source: str | Path | None  # --from: a URL or a folder
    say: Say

    @property
    def folder(self) -> Path:
        return self.data / ".downloads" / self.name

    def key(self, download: Download) -> str:
        """The file's name in a folder of downloads; with `into` where two have the same name."""
        same = [d for d in self.resource.downloads if d.file == download.file]
        return download.file if len(same) == 1 else f"{download.into}/{download.file}"

    def candidates(self, download: Download) -> list[str | Path]:
        """Where the file may be, in the order they are tried."""
        key = self.key(download)
        found: list[str | Path] = []
        if isinstance(self.source, Path):  # flat, or like the data folder, or like its place there
            into = Path(download.into)
            inner = [Path(key), into / download.file, Path(*into.parts[1:], download.file)]
            found = [self.source / path for path in inner]
            found = [path for path in found if path.is_file()] or found[:1]
        elif self.source is not None:
            found = [_join(self.source, key)]
        if (self.folder / key).is_file():
            found.append(self.folder / key)
        if mirror := os.environ.get("HYPERSPHERE_MIRROR"):
            mirror = _location(mirror)
            found += [_join(mirror, f"{self.name}/{key}"), _join(mirror, key)]
        found += [_join(_location(mirror), download.file) for mirror in download.mirrors]
        return list(dict.fromkeys(found))

    def targets(self) -> list[Path]:
        """What comes to stand under HYPERSPHERE_DATA: a file as itself, an archive as its `into`
        or, unpacked at the top, as the first plain path (without braces) of `where`."""
        plain = [Path(where) for where in self.resource.where if "{" not in where]
        found = []
        for download in self.resource.downloads:
            if not archives.is_archive(download.file):
                found.append(Path(download.into, archives.plain_name(download.file)))
            elif download.into != ".":
                found.append(Path(download.into))
            elif plain:
                found.append(plain[0])
            else:
                raise UserError(
                    f"{self.name}: {download.file} unpacks to no known folder;"
                    " its entry needs `into` or `where`"
                )
        return [t for t in dict.fromkeys(found) if not any(p in found for p in t.parents)]


def get(
    name: str,
    resource: Resource,
    *,
    source: str | None = None,
    replace: bool = False,
    keep: bool = False,
    say: Say = print,
) -> list[str]:
    """Bring every file of `resource` and put it in place under HYPERSPHERE_DATA.

    source: a folder or URL to try first. replace: what stands there already makes way. keep: the
    downloaded files stay. Returns the folders and URLs that the files came from; none when another
    process brought them while this one waited, or an earlier call that was cut short.
    Raises UserError, and leaves nothing half-written in place, when there is nothing to download,
    its place is taken, no mirror has a good copy (NoGoodCopy), an archive is damaged or the disk is
    full.
    """
    if not resource.downloads:
        where = f"; its place is {paths.data_dir() / resource.where[0]}" if resource.where else ""
        raise UserError(f"{name}: nothing to download ({resource.note or resource.title}){where}")
    origin = None if source is None else _location(source)
    if isinstance(origin, Path) and not origin.is_dir():
        raise UserError(f"--from {source}: no such folder; name a folder or a URL")
    order = _Order(name, resource, paths.data_dir(), origin, say)
    try:
        return _get(order, replace, keep)
    except OSError as error:  # the network's are dealt with below: this is the disk
        raise UserError(
            f"{error.filename2 or error.filename or order.data}: {error.strerror or error}; make"
            f" it writable or free some space, then `hypersphere data get {name}` goes on"
        ) from error


def _get(order: _Order, replace: bool, keep: bool) -> list[str]:
    name, data, targets = order.name, order.data, order.targets()
    staging, ready, aside = (data / f".{name}.{x}" for x in ("unpacking", "unpacked", "replaced"))
    before, origins = _stamps(data, targets), []
    with _lock(order) as waited:
        now = _stamps(data, targets)
        if waited and all(now) and (now != before or not replace):
            return []
        # What a killed call had complete is only moved; anything less is made again.
        places = [(os.path.lexists(ready / t), os.path.lexists(data / t)) for t in targets]
        if not (ready.is_dir() and all(map(any, places))):
            if not replace:
                archives.refuse_existing(data, targets)
            shutil.rmtree(ready, ignore_errors=True)
            _check_room(order)
            files = [_fetch(order, download) for download in order.resource.downloads]
            origins = [origin for _, origin in files if origin != str(order.folder)]
            shutil.rmtree(staging, ignore_errors=True)
            try:
                for (file, _), download in zip(files, order.resource.downloads, strict=True):
                    if archives.is_archive(download.file):
                        order.say(f"{download.file}: unpacking")
                    try:
                        archives.unpack(file, staging / download.into)
                    except UserError:
                        # Of ours, and no good: the next call would go on with it.
                        if file.is_relative_to(order.folder) and order.source != order.folder:
                            file.unlink()
                        raise
                _check_content(order, staging, targets)
                os.rename(staging, ready)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
        archives.place(ready, data, targets, aside, replace)
        if not keep and order.source != order.folder:
            _clean(order)
    return list(dict.fromkeys(origins))


def _stamps(data: Path, targets: list[Path]) -> list[tuple[int, int] | None]:
    """Tells each target from another that took its place; None where there is none."""
    found: list[tuple[int, int] | None] = []
    for target in targets:
        try:
            known = os.lstat(data / target)
            found.append((known.st_ino, known.st_mtime_ns))
        except OSError:
            found.append(None)
    return found


@contextlib.contextmanager
def _lock(order: _Order) -> Iterator[bool]:
    """One process at a time gets a dataset; yields whether this one had to wait."""
    waited, path = False, order.folder / "lock"
    for _ in range(1000):  # more than anybody's processes; not for ever where a link dangles
        with contextlib.ExitStack() as stack:
            try:
                with contextlib.suppress(FileExistsError):  # a folder, or gone at this moment
                    order.folder.mkdir(parents=True)
                file = stack.enter_context(open(path, "w"))
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if not waited:
                        order.say(f"{order.name}: another process is getting it; waiting for that")
                    waited = True
                    fcntl.flock(file, fcntl.LOCK_EX)
                if not os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                    continue
            except FileNotFoundError:
                continue  # whoever held it has just removed it: this lock would be no lock
            try:
                yield waited
            finally:
                path.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # not empty: there is something to go on from
                    order.folder.rmdir()
                    order.folder.parent.rmdir()
            return
    raise UserError(f"{path}: cannot be made; is a folder above it a link to nowhere?")


def _location(text: str) -> str | Path:
    """A URL as it is; a folder, also one given as file://, as a path."""
    scheme, _, rest = text.partition("://")
    if not rest:
        return Path(text).expanduser().resolve()
    if scheme == "file":
        return Path(urllib.request.url2pathname(urllib.parse.urlsplit(text).path)).resolve()
    if scheme not in ("http", "https"):
        raise UserError(f"{text}: needs to be a folder or an http, https or file URL")
    return text


def _join(base: str | Path, key: str) -> str | Path:
    return base / key if isinstance(base, Path) else f"{base.rstrip('/')}/{urllib.parse.quote(key)}"


def _check_room(order: _Order) -> None:
    """Room for what is still to come and for everything unpacked, as far as sizes are known."""
    needed = 0
    for download in order.resource.downloads:
        key, size = order.key(download), download.bytes or 0
        needed += size
        if not any(isinstance(c, Path) and c.is_file() for c in order.candidates(download)):
            part = transfer.part_of(order.folder / key)
            needed += max(0, size - (part.stat().st_size if part.exists() else 0))
    transfer.check_room(order.data, needed, order.name)


def _check_content(order: _Order, staging: Path, targets: list[Path]) -> None:
    for target in targets:
        if not (staging / target).exists():
            has = ", ".join(sorted(path.name for path in staging.iterdir())[:5])
            raise UserError(
                f"{order.name}: its files hold no {target} but {has}; not the official ones?"
                f" {_REMEDY.format(order.name)}"
            )
    for extra in sorted({path.name for path in staging.iterdir()} - {t.parts[0] for t in targets}):
        order.say(f"{order.name}: {extra} came along but is no part of it; left out")


def _clean(order: _Order) -> None:
    """Remove the downloaded files, which are ours; what else lies there stays."""
    for download in order.resource.downloads:
        path = order.folder / order.key(download)
        path.unlink(missing_ok=True)
        transfer.part_of(path).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            for parent in path.relative_to(order.folder).parents[:-1]:
                (order.folder / parent).rmdir()


def _fetch(order: _Order, download: Download) -> tuple[Path, str]:
    """The first whole and verified copy of the file, and the URL or folder it came from."""
    key, tried = order.key(download), []
    for candidate in order.candidates(download):
        if tried:
            order.say(f"{tried[-1]}; trying {candidate}")
        try:
            if isinstance(candidate, str):
                transfer.bring(candidate, download, order.folder / key, order.say)
                return order.folder / key, candidate.rpartition("/")[0]
            transfer.check_copy(candidate, download, order.say)
            return candidate, str(candidate.parent)
        except transfer.Unfit as error:
            tried.append(f"{candidate}: {error}")
    raise NoGoodCopy(
        f"{order.name}: no good copy of {key} found ({'; '.join(tried) or 'it has no mirror'});"
        f" {_REMEDY.format(order.name)}"
    )


def how_to_stage(name: str, resource: Resource) -> str:
    """What to do by hand where this machine has no network: lines for a person."""
    data = paths.data_dir()
    order = _Order(name, resource, data, None, print)
    lines = [f"{name}: {resource.title}"]
    if resource.downloads:
        lines.append("Get these files where there is a network:")
    for download in resource.downloads:
        size = "size not published" if download.bytes is None else size_text(download.bytes)
        facts = f"{size}, {download.checksum or 'no checksum published'}"
        lines.append(f"  {order.key(download)}  ({facts})")
        lines += [f"    {_join(_location(mirror), download.file)}" for mirror in download.mirrors]
    if resource.downloads:
        lines += [
            "Put them, under these names, in one folder FOLDER on this machine, then:",
            f"  hypersphere data get {name} --from FOLDER",
        ]
    if resource.where:
        lines.append("Or copy the unpacked data to:" if resource.downloads else "Its place:")
        lines += [f"  {data / where}" for where in resource.where]
    if resource.note:
        lines.append(f"Note: {resource.note}")
    return "\n".join(lines)
