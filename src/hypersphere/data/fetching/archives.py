"""Unpacking archives that may hold anything, and moving the result to its place in one piece."""

from __future__ import annotations

import contextlib
import errno
import gzip
import lzma
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from hypersphere.errors import UserError

_TAR = (".tar", ".tar.gz", ".tgz")
# What the standard library's readers raise on bytes that are no whole archive.
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,  # gzip's and bz2's, which have no number
    struct.error,
    ValueError,
)


def is_archive(file: str) -> bool:
    """Whether `file` (a name) holds a folder of files: .tar, .tar.gz, .tgz or .zip."""
    return file.endswith((*_TAR, ".zip"))


def plain_name(file: str) -> str:
    """The name of a single file once it is in place: without .gz."""
    return file.removesuffix(".gz")


def unpack(archive: Path, folder: Path) -> None:
    """Put what `archive` holds into `folder`: a tar, a zip, one gzipped file, or a file as it is.

    Raises UserError, naming archive and member, when a member has an absolute path or `..`, is a
    link out of the folder or no file at all, and when the archive is encrypted, damaged or cut
    short. `folder` may then hold a part: the caller deletes it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if archive.name.endswith(_TAR):
            _untar(archive, folder)
        elif archive.name.endswith(".zip"):
            _unzip(archive, folder)
        elif archive.name.endswith(".gz"):
            with gzip.open(archive) as packed, open(folder / plain_name(archive.name), "wb") as out:
                shutil.copyfileobj(packed, out, 1 << 20)
        else:
            shutil.copyfile(archive, folder / archive.name)
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # the disk's; EINVAL is zipfile seeking where a damaged directory sends it
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{archive}: damaged or cut short ({reason}); get it again, here or elsewhere"
        ) from None


def _refused(archive: Path, member: str, reason: str) -> UserError:
    return UserError(
        f"{archive}: not unpacked, its member {member!r} is not safe ({reason});"
        " get the archive from its publisher, or unpack it by hand"
    )


def _check_path(archive: Path, member: str, path: str) -> PurePosixPath:
    # A backslash or a drive letter separates on Windows only; no dataset needs them.
    posix = PurePosixPath(path.replace("\\", "/"))
    if posix.is_absolute() or path[1:2] == ":":
        raise _refused(archive, member, "an absolute path")
    if ".." in posix.parts:
        raise _refused(archive, member, "a path with ..")
    return posix


class _Header(tarfile.TarInfo):
    """A tar header that must be there: tarfile takes a file cut at a header for a whole one."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> tarfile.TarInfo:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:
            raise  # the regular end: a block of zeros
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None


def _untar(archive: Path, folder: Path) -> None:
    if not hasattr(tarfile, "data_filter"):
        raise UserError(f"{archive}: unpacking it safely needs Python 3.11.4 or newer")
    with tarfile.open(archive, "r:*", tarinfo=_Header) as tar:
        try:
            tar.extractall(folder, members=_checked(archive, tar), filter="data")
        except tarfile.FilterError as error:
            raise _refused(archive, error.tarinfo.name, str(error)) from None
        while tar.fileobj.read(1 << 20):
            pass  # to the end, where gzip compares its checksum


def _checked(archive: Path, tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members, checked beyond the `data` filter, which repairs absolute paths in silence and
    in older Pythons can be led out of the folder by chains of links: so nothing may lie at or
    under a link, and a hard link names an earlier member."""
    seen: set[PurePosixPath] = set()
    links: set[PurePosixPath] = set()
    for member in tar:
        path = _check_path(archive, member.name, member.name)
        if member.islnk() and _check_path(archive, member.name, member.linkname) not in seen:
            raise _refused(archive, member.name, "a hard link to no earlier member")
        if not links.isdisjoint((path, *path.parents)):
            raise _refused(archive, member.name, "a path through a link")
        (links if member.issym() else seen).add(path)
        yield member


def _unzip(archive: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as file:
            for member in file.infolist():
                name = member.filename
                _check_path(archive, name, name)
                kind = stat.S_IFMT(member.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):  # links would be written as text
                    raise _refused(archive, name, "a link or device")
                if member.flag_bits & 1:
                    raise UserError(
                        f"{archive}: encrypted ({name!r}); unpack it by hand with its password"
                    )
            file.extractall(folder)
    except NotImplementedError as error:  # a version or compression that Python does not know
        raise UserError(f"{archive}: {error}; unpack it by hand") from None


def refuse_existing(data: Path, targets: Sequence[Path]) -> None:
    """Raises UserError naming the first of `targets` that is under `data` already."""
    for target in targets:
        if os.path.lexists(data / target):
            raise UserError(f"{data / target}: exists already; move it away or pass --replace")


def place(ready: Path, data: Path, targets: Sequence[Path], aside: Path, replace: bool) -> None:
    """Rename each of `targets` from under `ready` to under `data`, all or (on an error) none.

    With `replace` what was there waits in `aside` meanwhile. A process killed in here leaves
    `ready` and `aside` as they are, and the same call again finishes. Raises UserError as
    `refuse_existing` does, and OSError after everything is back where it was.
    """
    waiting = [target for target in targets if os.path.lexists(ready / target)]
    replace = replace or aside.is_dir()  # then a killed call was replacing
    if not replace:
        refuse_existing(data, waiting)
    moved: list[tuple[Path, Path]] = []

    def move(source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(source, target)
        moved.append((source, target))

    try:
        if replace:
            aside.mkdir(exist_ok=True)
        for target in waiting:
            if os.path.lexists(data / target):
                move(data / target, aside / f"{targets.index(target)}-{target.name}")
            move(ready / target, data / target)
    except BaseException:
        for source, target in reversed(moved):
            os.rename(target, source)
        with contextlib.suppress(OSError):
            aside.rmdir()
        raise
    # First the old: while `ready` stands, a killed call can tell what `aside` is.
    shutil.rmtree(aside, ignore_errors=True)
    shutil.rmtree(ready, ignore_errors=True)
