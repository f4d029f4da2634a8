"""Who works on a run: leases with a heartbeat, good across processes, machines and clocks.

Two guards, because neither is enough alone:

* The kernel's lock on `lock` goes with its owner, however that ends. It is exact among processes of
  one machine; on network file systems it may reach no further, or outlive a machine that is gone.
* Numbered leases (`lease.<n>.json`), each made exclusively; the highest number owns the run. The
  owner rewrites its lease while it works. One that another machine holds is given up for lost when
  it stays unchanged for STALE seconds of the observer's own monotonic clock: no two clocks are ever
  compared, so one that is wrong or jumps back takes no run away. Taking over makes the next
  number, which only one can; an owner that wakes up after that finds itself outnumbered.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from hypersphere.errors import UserError

LOCK = "lock"
BEAT = 10.0  # seconds between two signs of life
JOB = "HYPERSPHERE_JOB"  # what a launcher calls the job that this process is
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


def stale_seconds() -> float:
    """Silence after which another machine's lease is taken over (HYPERSPHERE_STALE)."""
    text = os.environ.get("HYPERSPHERE_STALE", "120")
    try:
        return float(text)
    except ValueError:
        raise UserError(f"HYPERSPHERE_STALE={text!r}: a number of seconds, such as 120") from None


def _this_kernel() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id")
    with contextlib.suppress(OSError):
        return f"{platform.node()} {boot.read_text().strip()}"
    return platform.node()


@dataclass(frozen=True)
class Holder:
    """What a lease says of its owner. kernel: the machine since its last start; silent: seconds
    since its last sign of life by the file's date (for people; no decision rests on it)."""

    number: int
    text: str
    pid: int = 0
    host: str = "another machine"
    kernel: str = ""
    job: str = ""
    released: bool = False
    silent: float = 0.0

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host}" + (f" ({self.job})" if self.job else "")


class Lease:
    """The right to work on a run, kept alive by a thread until it is released."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder, self.number = folder, number
        self.path = folder / f"lease.{number}.json"
        self._about: dict[str, Any] = {
            "pid": os.getpid(),
            "host": platform.node(),
            "kernel": _this_kernel(),
            "job": job_name(),
            "since": time.time(),
            "token": uuid.uuid4().hex,
        }
        self._beats = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)

    def take(self) -> bool:
        """Make the lease; False when somebody else has this number or a higher one."""
        if not _create(self.path, self._text()):
            return False
        if _numbers(self.folder)[-1] > self.number:  # made after its number had come and gone
            self.path.unlink(missing_ok=True)
            return False
        for number in _numbers(self.folder)[:-1]:
            (self.folder / f"lease.{number}.json").unlink(missing_ok=True)
        self._thread.start()
        return True

    def lost(self) -> bool:
        """Whether another process took the run over (this one had been silent for too long)."""
        return bool(numbers := _numbers(self.folder)) and numbers[-1] > self.number

    def release(self) -> None:
        self._stop.set()
        self._thread.join()
        if not self.lost():
            with contextlib.suppress(OSError):  # a full disk: others wait, then take over
                self._write(released=True)

    def _live(self) -> None:
        while not self._stop.wait(min(BEAT, stale_seconds() / 4)):
            self._beats += 1
            with contextlib.suppress(OSError):
                if self.lost():
                    return
                self._write()

    def _text(self, **more: Any) -> str:
        return json.dumps({**self._about, "beats": self._beats, **more})

    def _write(self, **more: Any) -> None:
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        temporary.write_text(self._text(**more))
        os.replace(temporary, self.path)


@contextlib.contextmanager
def hold(
    folder: Path, waiting: Callable[[str], None], *, patient: bool = True
) -> Iterator[Lease | None]:
    """Own `folder` for a while. Waits for whoever does (`waiting` is told once who), or, not
    `patient`, gives None at once. Raises OSError when the folder cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    found = _acquire(folder, waiting, patient)
    if found is None:
        yield None
        return
    lock, lease = found
    with lock:
        try:
            yield lease
        finally:
            lease.release()


def holder(folder: Path) -> Holder | None:
    """Who works in `folder`, by the kernel's lock on this machine, else by its signs of life."""
    if (newest := _newest(folder)) is None or newest.released:
        return None
    if newest.kernel != _this_kernel():
        return newest if newest.silent < stale_seconds() else None
    return newest if _is_locked(folder) else None


def left_behind(folder: Path) -> Holder | None:
    """The owner that ended without a word (killed, or its machine gone), if the last one did."""
    newest = _newest(folder)
    return None if newest is None or newest.released or holder(folder) is not None else newest


def job_name() -> str:
    """The job this process belongs to, as its launcher or SLURM calls it, or an empty string."""
    if name := os.environ.get(JOB):
        return name
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"slurm {array}_{os.environ.get('SLURM_ARRAY_TASK_ID', '')}"
    number = os.environ.get("SLURM_JOB_ID")
    return f"slurm {number}" if number else ""


def _acquire(
    folder: Path, waiting: Callable[[str], None], patient: bool
) -> tuple[IO[str], Lease] | None:
    seen, since, told, pause = "", time.monotonic(), False, 0.02
    while True:
        lock, exact = _try_lock(folder)
        owner = _newest(folder)
        text = owner.text if owner else ""
        if text != seen:  # a sign of life
            seen, since = text, time.monotonic()
        elsewhere = owner is not None and owner.kernel != _this_kernel()
        silent = time.monotonic() - since > stale_seconds()
        if lock is not None:
            gone = owner is None or owner.released or (exact and not elsewhere) or silent
            if gone:
                lease = Lease(folder, owner.number + 1 if owner else 1)
                if lease.take():
                    return lock, lease
            lock.close()
            if gone:
                continue  # somebody was quicker
        elif elsewhere and silent and not (owner and owner.released):
            # A file server keeps the lock of a machine that is gone: a new file, a new lock.
            (folder / LOCK).unlink(missing_ok=True)
            continue
        if not patient:
            return None
        if not told:
            waiting(str(owner) if owner else "another process")
            told = True
        time.sleep(pause)
        pause = min(1.5 * pause, 1.0)


def _try_lock(folder: Path) -> tuple[IO[str] | None, bool]:
    """The lock file when it is ours now (None: another's), and whether its lock is the kernel's:
    some file systems have none, and only the heartbeat tells there."""
    file = open(folder / LOCK, "a+")  # noqa: SIM115  (closed by whoever gets it)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return file, False
        file.close()
        if isinstance(error, BlockingIOError):
            return None, True
        raise
    with contextlib.suppress(FileNotFoundError):
        if os.fstat(file.fileno()).st_ino == os.stat(folder / LOCK).st_ino:
            return file, True
    file.close()  # removed meanwhile: it guards nothing
    return None, True


def _is_locked(folder: Path) -> bool:
    try:
        with open(folder / LOCK) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except OSError as error:
        return error.errno in _NO_LOCKS  # nobody can tell; the lease says that somebody is there


def _create(path: Path, text: str) -> bool:
    """Make a file with its content, in one step, unless there is one of that name."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    temporary.write_text(text)
    try:
        os.link(temporary, path)
        return True
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        try:
            with open(path, "x") as file:
                file.write(text)
            return True
        except FileExistsError:
            return False
    finally:
        temporary.unlink(missing_ok=True)


def _numbers(folder: Path) -> list[int]:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    parts = [name.split(".") for name in names if name.startswith("lease.")]
    return sorted(int(p[1]) for p in parts if len(p) == 3 and p[1].isdigit() and p[2] == "json")


def _newest(folder: Path) -> Holder | None:
    for _ in range(3):  # it may be replaced by the next one meanwhile
        if not (numbers := _numbers(folder)):
            return None
        path = folder / f"lease.{numbers[-1]}.json"
        try:
            text, silent = path.read_text(), time.time() - path.stat().st_mtime
        except FileNotFoundError:
            continue
        try:
            found = json.loads(text)
            known = {k: found[k] for k in ("pid", "host", "kernel", "job")}
        except (ValueError, KeyError, TypeError):
            return Holder(numbers[-1], text, silent=silent)  # being written, or damaged
        return Holder(
            numbers[-1], text, **known, released=bool(found.get("released")), silent=silent
        )
    return None
