"""What is known of a run that is not done, from the small files in its folder."""

from __future__ import annotations

import json
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypersphere.files import write_atomically
from hypersphere.store import leases

FAILED, QUEUED = "failed.json", "queued.json"


@dataclass(frozen=True)
class State:
    """name: done, running (somebody works on it), interrupted (its last owner ended without a
    word; it goes on from its checkpoint), failed, queued (handed to a launcher), or missing.
    about: what the run's files say of it, for people and programs."""

    name: str
    about: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        about = self.about
        if self.name in ("running", "interrupted"):
            return f"{self.name}: {about['owner']}, last sign of life {_ago(about['silent'])}"
        if self.name == "failed":
            return f"failed: {(about.get('error') or 'unknown').strip().splitlines()[-1]}"
        if self.name == "queued":
            return f"queued: {about.get('launcher')} {about.get('job')}"
        return self.name


def read(folder: Path) -> State:
    """The state of the run in `folder`, which has no record."""
    if not folder.is_dir():
        return State("missing")
    if (owner := leases.holder(folder)) is not None:
        return State("running", _of(owner))
    if (failed := note(folder / FAILED)) is not None:
        return State("failed", failed)
    # Queued again after an interruption: what comes next counts.
    if (queued := note(folder / QUEUED)) is not None:
        return State("queued", queued)
    if (owner := leases.left_behind(folder)) is not None:
        return State("interrupted", _of(owner))
    return State("missing")


def write(folder: Path, name: str, about: dict[str, Any]) -> None:
    """Leave a note in a run's folder. Raises UserError where it cannot be written."""
    where = {"host": platform.node(), "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    text = json.dumps(about | where, indent=1) + "\n"
    # Not through to the disk, as records are: there may be thousands, and none is a result.
    write_atomically(folder / name, lambda path: path.write_text(text))


def _of(owner: leases.Holder) -> dict[str, Any]:
    return {
        "owner": str(owner),
        "pid": owner.pid,
        "host": owner.host,
        "job": owner.job,
        "silent": round(owner.silent, 1),
    }


def note(path: Path) -> dict[str, Any] | None:
    """What a note says; None where there is none."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {"error": f"{path} cannot be read"}
    return found if isinstance(found, dict) else {"error": f"{path} is no note of ours"}


def _ago(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s ago"
    return f"{seconds / 60:.0f} min ago" if seconds < 5400 else f"{seconds / 3600:.1f} h ago"
