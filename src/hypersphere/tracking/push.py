"""Handing runs to W&B: online with a key, offline without, once each, and never more than a
warning."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypersphere.errors import UserError
from hypersphere.files import write_text
from hypersphere.store import Store
from hypersphere.tracking.mirrored import Mirrored

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = "wandb"  # beside the runs; one folder for each inside
DONE = "pushed.json"
MODES = ("online", "offline", "disabled")
PROJECT = "hypersphere"
PATIENCE = 60.0  # seconds that W&B gets to start, and its server to answer
GIVE_UP = 3  # runs in a row that W&B did not take


class NotTaken(Exception):
    """W&B did not take a run; the text says why, in one line."""


def mode() -> str:
    """WANDB_MODE where it is set; else online if W&B has a key (WANDB_API_KEY, or a login of this
    machine), offline if not. Never asks. Raises UserError for an unknown mode."""
    if stated := stated_mode():
        return stated
    import wandb

    with _quiet():
        try:
            known = wandb.login(prompt=False, verify=False)
        except Exception:  # a key that cannot be read is no key
            known = False
    return "online" if known else "offline"


def stated_mode() -> str:
    """WANDB_MODE, "" where it is not set. Raises UserError for an unknown mode."""
    stated = os.environ.get("WANDB_MODE", "")
    if stated and stated not in MODES:
        raise UserError(f"WANDB_MODE={stated}: must be one of {', '.join(MODES)}")
    return stated


def push(
    runs: Iterable[Mirrored],
    store: Store,
    how: str,
    say: Callable[[str], None],
    *,
    again: bool = False,
    pictures: Callable[[Mirrored], Iterable[tuple[str, Figure]]] = lambda run: (),
) -> tuple[int, int]:
    """Mirror `runs` in the mode `how`; those that W&B has as they are now are left alone, unless
    `again`. Returns how many were mirrored and how many were not taken (each is said).

    After three in a row that were not taken the others are not tried.
    """
    taken = refused = in_a_row = 0
    if how == "disabled":
        return 0, 0
    for run in runs:
        folder = store.runs / FOLDER / run.run_id
        if not again and _marked(folder) == _mark(run.digest(), how):
            continue
        try:
            _hand_over(run, folder, how, pictures)
        except NotTaken as error:
            refused, in_a_row = refused + 1, in_a_row + 1
            say(f"W&B: run {run.run_id} was not mirrored: {error}")
            if in_a_row == GIVE_UP:
                say("W&B: giving up; `hypersphere track push` mirrors the rest another time")
                break
        else:
            taken, in_a_row = taken + 1, 0
    return taken, refused


def push_tables(store: Store, preset: str, how: str) -> int:
    """The rendered tables of a preset as one run of W&B, `tables-<preset>`; returns how many, 0
    where W&B has them as they are. Raises NotTaken."""
    name = f"tables-{preset}"
    folder = store.runs / FOLDER / name
    tables = {
        f"{path.parent.name}/{path.stem}": path.read_text(encoding="utf-8")
        for path in sorted((store.results / preset / "tables").glob("*/*.csv"))
    }
    mark = _mark(hashlib.sha256(json.dumps(tables).encode()).hexdigest()[:16], how)
    if not tables or how == "disabled" or _marked(folder) == mark:
        return 0
    import wandb

    with _run(folder, how, name, {"preset": preset}, "tables", [preset], "tables") as run:
        for title, text in tables.items():
            header, *rows = csv.reader(text.splitlines())
            run.log({title: wandb.Table(header, rows)}, step=0)
    write_text(folder / DONE, mark)
    return len(tables)


def _marked(folder: Path) -> str:
    """What was handed over last, in which mode and to which project."""
    try:
        return (folder / DONE).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _mark(digest: str, how: str) -> str:
    return json.dumps({"digest": digest, "mode": how, "project": _project()}) + "\n"


def _project() -> str:
    return os.environ.get("WANDB_PROJECT") or PROJECT


def _hand_over(
    run: Mirrored,
    folder: Path,
    how: str,
    pictures: Callable[[Mirrored], Iterable[tuple[str, Figure]]],
) -> None:
    import wandb

    about = run.run_id, run.config, run.group, run.tags, run.kind
    with _run(folder, how, *about) as mirror:
        for entry in run.history:
            mirror.log(dict(entry), step=int(entry["epoch"]))
        last = int(run.history[-1]["epoch"]) if run.history else 0
        if shown := {name: wandb.Image(figure) for name, figure in pictures(run)}:
            mirror.log(shown, step=last)
        mirror.summary.update(dict(run.summary))
    write_text(folder / DONE, _mark(run.digest(), how))


@contextmanager
def _run(
    folder: Path, how: str, name: str, config: Any, group: str, tags: Iterable[str], kind: str
) -> Iterator[Any]:
    """A run of W&B, ended whatever happens. An offline run that was not uploaded is replaced: W&B
    cannot go on with one. Raises NotTaken for whatever goes wrong there."""
    import wandb

    for old in (folder / "wandb").glob("offline-run-*"):
        if not list(old.glob("*.synced")):
            shutil.rmtree(old, ignore_errors=True)
    run = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _quiet():
            run = wandb.init(
                project=_project(), id=name, name=name, dir=folder, mode=how,  # type: ignore[arg-type]
                config=dict(config), group=group, tags=list(tags), job_type=kind,
                resume="allow" if how == "online" else None, reinit="create_new",
                settings=wandb.Settings(
                    console="off", silent=True, disable_git=True, disable_code=True,
                    save_code=False, x_disable_stats=True, x_disable_meta=True,
                    init_timeout=PATIENCE,
                ),
            )  # fmt: skip
            yield run
            run.finish(exit_code=0)
    except Exception as error:  # W&B has many kinds, and none may end a training
        if run is not None:
            _end(run)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise NotTaken(reason) from error


def _end(run: Any) -> None:
    try:
        run.finish(exit_code=1)
    except Exception:  # it is of no use any more
        return


@contextmanager
def _quiet() -> Iterator[None]:
    """W&B says on standard error what it is about; what matters is said by us."""
    before = os.environ.get("WANDB_SILENT")
    os.environ["WANDB_SILENT"] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ["WANDB_SILENT"]
        else:
            os.environ["WANDB_SILENT"] = before
