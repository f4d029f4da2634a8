"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypersphere.errors import UserError


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8, line ends as they are) whole or not at all; see `write_atomically`.

    Bytes that were no UTF-8 when they were read (surrogates) are written back as they were.
    """

    def write(temporary: Path) -> None:
        with open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    write_atomically(path, write)


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it to `path`.

    Makes the folder. Raises UserError when the folder or disk does not take it; `path` is then
    as it was.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        os.replace(temporary, path)
    except Exception as error:
        if (reason := disk_trouble(error, path.parent)) is None:
            raise
        raise UserError(
            f"{path}: cannot be written ({reason}); make the folder writable, free"
            " some space, or choose another (RESULTS=dir; HYPERSPHERE_RESULTS, HYPERSPHERE_RUNS)"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # the folder itself may be the trouble
            temporary.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def disk_trouble(error: BaseException, folder: Path) -> str | None:
    """What the disk said when `error` is its doing, else None. Libraries that write by themselves
    (torch, safetensors) wrap the system's answer in errors of their own; a disk that is full then
    gives it away."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    full = os.strerror(errno.ENOSPC)
    with contextlib.suppress(OSError):
        if full in str(error) or shutil.disk_usage(folder).free < 1 << 16:
            return full
    return None
