"""One file over http: resumed, checked while it comes, and shown to whoever waits."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from hypersphere.data.facts import Download
from hypersphere.errors import UserError

TIMEOUT = 30.0  # seconds without an answer or a byte
TRIES = 3  # failures in a row, without a new byte, until a mirror is given up
BACKOFF = 1.0  # seconds before asking again, and one more each time
LINE_AFTER = 1.0  # plain progress: not more often than this, even after 10 %
LINE_EVERY = 30.0  # ... and at least this often
_CHUNK = 1 << 20
_AGENT = {"User-Agent": "hypersphere (research datasets)"}  # some servers refuse urllib's own

Say = Callable[[str], object]


class Unfit(Exception):
    """Why a mirror or folder does not give the file; the next one may."""


def size_text(size: float) -> str:
    """`812 B`, `40.1 kB`, `170.5 MB`, `2.9 GB`."""
    if size < 1000:
        return f"{size:.0f} B"
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 999.95 or unit == "GB":
            return f"{size:.1f} {unit}"
    raise AssertionError


def check_room(folder: Path, needed: int, what: str) -> None:
    """Raises UserError when the disk of `folder` has less than `needed` bytes left."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{what}: needs {size_text(needed)} in {folder}, where {size_text(free)} are free;"
            " free some space or set HYPERSPHERE_DATA to a larger disk"
        )


def check_copy(path: Path, download: Download, say: Say) -> None:
    """Raises Unfit when the file at `path` is not the one described."""
    if not path.is_file():
        raise Unfit("no such file")
    _check_size(path.stat().st_size, download)  # before reading all of it
    with _Meter(f"checking {download.file}", say, download.bytes) as meter:
        _verify(_Bytes(path, download, meter), download, say)


def bring(url: str, download: Download, whole: Path, say: Say) -> None:
    """Bring `url` to `whole` by way of `whole`.part, going on from the bytes that are there.

    Raises Unfit when the mirror does not give the file as described; the bytes stay unless their
    checksum is wrong. Raises UserError when the disk does not take them.
    """
    part = part_of(whole)
    with _Meter(download.file, say, download.bytes) as meter:
        have = _Bytes(part, download, meter)
        if download.bytes is not None and have.size > download.bytes:
            have.restart()
        going_on = f", going on from {size_text(have.size)}" if have.size else ""
        size = "" if download.bytes is None else f" ({size_text(download.bytes)})"
        say(f"{download.file}{size} from {url}{going_on}")
        while True:
            earlier = have.size
            if earlier != download.bytes:
                _receive(url, download, have)
            try:
                _verify(have, download, say)
                break
            except Unfit:
                have.restart()
                if not earlier:
                    raise
            # The bytes of an earlier call or mirror may be the bad ones: this one gets its chance.
    os.replace(part, whole)


def part_of(whole: Path) -> Path:
    """Where the bytes of a file are while it is not whole."""
    return whole.with_name(f"{whole.name}.part")


def _check_size(size: int, download: Download) -> None:
    if download.bytes is not None and size != download.bytes:
        raise Unfit(f"{size} bytes, expected {download.bytes}")


class _Bytes:
    """The bytes of a file so far, with their number and hash in step."""

    def __init__(self, path: Path, download: Download, meter: _Meter) -> None:
        self.path, self.meter = path, meter
        self.kind = download.checksum.partition(":")[0] or "sha256"
        self.size, self.hash = 0, self._new_hash()
        for chunk in _chunks(path) if path.exists() else ():
            self._count(chunk)

    def _new_hash(self) -> hashlib._Hash:
        # A git id begins with the size, which is known at the end only: see `checksum`.
        kind = "sha1" if self.kind == "git" else self.kind
        return hashlib.new(kind, usedforsecurity=False)

    def _count(self, chunk: bytes) -> None:
        self.hash.update(chunk)
        self.size += len(chunk)
        self.meter.at(self.size)

    def add(self, chunk: bytes) -> None:
        """Raises UserError when the disk does not take it: no other mirror would help."""
        try:
            with open(self.path, "ab", buffering=0) as file:
                left = memoryview(chunk)
                while left:
                    left = left[file.write(left) :]
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot be written ({error.strerror}); free some space and get it"
                " again: it goes on from here"
            ) from error
        self._count(chunk)

    def restart(self) -> None:
        self.path.unlink(missing_ok=True)
        self.size, self.hash = 0, self._new_hash()

    def checksum(self) -> str:
        if self.kind == "git":  # GitHub takes no file above 100 MB: reading it once more is quick
            self.hash = hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)
            for chunk in _chunks(self.path):
                self.hash.update(chunk)
        return f"{self.kind}:{self.hash.hexdigest()}"


def _chunks(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _verify(have: _Bytes, download: Download, say: Say) -> None:
    _check_size(have.size, download)
    found = have.checksum()
    if not download.checksum:
        size = "" if download.bytes is None else ", only its size"
        say(
            f"{download.file}: no checksum is published, so it could not be verified{size}; {found}"
        )
    elif found != download.checksum:
        raise Unfit(f"checksum {found}, expected {download.checksum}")


def _receive(url: str, download: Download, have: _Bytes) -> None:
    """All bytes of `url`, over as many connections as bring something new."""
    most, failures, answered = have.size, 0, False
    while True:
        try:
            return _connect(url, download, have)
        except (OSError, http.client.HTTPException) as error:
            silent = isinstance(error, urllib.error.URLError)  # none of ours are
            reason = " ".join(str(getattr(error, "reason", error)).split()) or repr(error)
        answered |= not silent
        failures = 1 if have.size > most else failures + 1
        most = max(most, have.size)
        if failures >= TRIES or not answered:
            raise Unfit(reason)
        time.sleep(BACKOFF * failures)


def _connect(url: str, download: Download, have: _Bytes) -> None:
    """One connection. Raises Unfit for what asking again cannot mend, OSError for the rest."""
    request = urllib.request.Request(url, headers=dict(_AGENT))
    if have.size:
        request.add_header("Range", f"bytes={have.size}-")
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        reason = f"HTTP {error.code} {error.reason}"
        if error.code == 416 and have.size:
            if error.headers.get("Content-Range") == f"bytes */{have.size}":
                return  # all of it is here
            have.restart()
        elif error.code not in (408, 429) and error.code < 500:
            raise Unfit(reason) from None
        raise OSError(reason) from None
    with response:
        total = response.length
        if response.status == 206:
            offered = response.headers.get("Content-Range", "")
            fits = re.fullmatch(rf"bytes {have.size}-\d+/(\d+|\*)", offered)
            if not fits:
                have.restart()
                raise OSError(f"its Content-Range {offered!r} does not fit what was asked for")
            total = None if fits[1] == "*" else int(fits[1])
        if None not in (total, download.bytes) and total != download.bytes:
            raise Unfit(f"offers {total} bytes, expected {download.bytes}")
        if response.status != 206 and have.size:  # it sends all from the start
            have.restart()
        expected = have.meter.total = total if download.bytes is None else download.bytes
        have.path.parent.mkdir(parents=True, exist_ok=True)
        check_room(have.path.parent, (expected or 0) - have.size, download.file)
        while chunk := response.read1(_CHUNK):
            have.add(chunk)
            if expected is not None and have.size > expected:
                have.restart()
                raise Unfit(f"sends more than {expected} bytes")
    if expected is not None and have.size < expected:
        raise OSError(f"the connection ended after {have.size} of {expected} bytes")
    if not have.size:
        raise Unfit("sends an empty file")


class _Meter:
    """How far a file is: a bar on a terminal, else a line about every 10 %."""

    def __init__(self, what: str, say: Say, total: int | None) -> None:
        self.what, self.say, self.total = what, say, total
        self.shown, self.since = 0, time.monotonic()
        self.bar: Progress | None = None
        console = Console(stderr=True)
        if console.is_terminal:
            columns = (DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
            self.bar = Progress(
                TextColumn("{task.description}"), BarColumn(), *columns, console=console
            )
            self.task = self.bar.add_task(what, total=total)

    def __enter__(self) -> _Meter:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def at(self, size: int) -> None:
        """So many bytes are here."""
        if self.bar is not None:
            self.bar.update(self.task, completed=size, total=self.total)
            return
        waited = time.monotonic() - self.since
        step = self.total is not None and (size - self.shown) * 10 >= self.total
        if waited >= LINE_EVERY or (step and waited >= LINE_AFTER):
            self.shown, self.since = size, time.monotonic()
            of = f" of {size_text(self.total)}, {size / self.total:.0%}" if self.total else ""
            self.say(f"{self.what}: {size_text(size)}{of}")
