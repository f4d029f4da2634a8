"""Whether what a preset's records say stands in its files already, so that nothing is drawn twice.

A note beside the runs (`<runs>/.rendered/`) keeps a digest of all that renderings are made of, and
the size and time of each file that was written. It can be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from hypersphere import paths
from hypersphere.errors import UserError
from hypersphere.files import write_text
from hypersphere.papers.planned import Plan
from hypersphere.reporting import ablation_files
from hypersphere.store import Store

FOLDER = ".rendered"
DRAWING = ("matplotlib", "pillow", "numpy", "scipy", "jinja2")  # what the files' bytes rest on


def unchanged(plan: Plan, store: Store, preset: str) -> list[Path] | None:
    """The tables (Markdown) of the planned items, if they and everything else of the preset's
    renderings were made of the same records by the same code and none has changed since."""
    folder, wanted = store.results / preset, _items(plan)
    try:
        told = json.loads(_note(store, preset).read_text())
        stamps = {folder / name: stamp for name, stamp in told["files"].items()}
        made = {tuple(item) for item in told["items"]}
        same = told["inputs"] == _inputs(store) and all(
            _stamp(path) == stamp for path, stamp in stamps.items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    asked = set(folder.glob(f"{ablation_files.FOLDER}/*/*.csv"))  # a sweep that has just begun
    if not same or not wanted <= made or not asked <= stamps.keys():
        return None
    tables = (path for path in stamps if path.parent.parent == folder / "tables")
    return [
        path
        for path in tables
        if path.suffix == ".md" and (path.parent.name, path.stem.partition("--")[0]) in wanted
    ]


def note(plan: Plan, store: Store, preset: str, written: Iterable[Path]) -> None:
    """Remember that `written` (files, and what stands beside them under the same name) are made."""
    folder = store.results / preset
    files = {
        str(path.relative_to(folder)): _stamp(path)
        for one in written
        for path in one.parent.glob(f"{one.stem}.*")
    }
    told = {"inputs": _inputs(store), "items": sorted(_items(plan)), "files": files}
    with contextlib.suppress(UserError):  # where it cannot be written, the next call draws again
        write_text(_note(store, preset), json.dumps(told))


def _items(plan: Plan) -> set[tuple[str, str]]:
    return {(item.paper.key, item.spec.name) for item in plan.items}


def _note(store: Store, preset: str) -> Path:
    place = hashlib.sha256(str(store.results).encode()).hexdigest()[:12]
    return store.runs / FOLDER / f"{preset}-{place}.json"


def _stamp(path: Path) -> list[int]:
    about = path.stat()
    return [about.st_size, about.st_mtime_ns]


def _inputs(store: Store) -> str:
    """A digest of the collected records, the declarations, the printed numbers, the code and what
    it draws with."""
    digest, records = hashlib.sha256(), store.collected().records
    for run_id in sorted(records):
        record = records[run_id]
        digest.update(json.dumps(record, sort_keys=True, default=str).encode())
    for folder in (Path(__file__).parents[1], *paths.conf_dirs(), *paths.published_dirs()):
        for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".pyc"):
            digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    digest.update(" ".join(version(name) for name in DRAWING).encode())
    return digest.hexdigest()
