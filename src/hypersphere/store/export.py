"""`hypersphere store export`: a trained run as a folder that others can use without this store."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypersphere.errors import UserError, did_you_mean
from hypersphere.files import disk_trouble, sha256_of
from hypersphere.store.records import Record, encode
from hypersphere.store.store import MODEL, Store

if TYPE_CHECKING:
    from hypersphere.config import Training

HELP = "hand a trained run on: weights, configuration and a model card in one folder"


def add_parser(actions: Any) -> None:
    """Add `export` to the actions of `hypersphere store`."""
    command = actions.add_parser("export", help=HELP, description=HELP)
    command.set_defaults(command=_export)
    command.add_argument("run", metavar="RUN", help="id of a training, or the beginning of one")
    command.add_argument(
        "--to", metavar="DIR", help="a new or empty folder (default: hypersphere-RUN here)"
    )
    command.add_argument(
        "--retrain",
        action="store_true",
        help="where only its record is here: train it again and check the numbers first",
    )


def _export(options: argparse.Namespace) -> None:
    from hypersphere.run import open_store

    store = open_store()
    record = find_training(options.run, store)
    run_id = record["run_id"]
    folder = Path(options.to or f"hypersphere-{run_id}").expanduser()
    export(record, store, folder, retrain=options.retrain)
    print(f"run {run_id}: {folder}")
    print(f'  hypersphere.load_model("{folder}") gives the network and its head')


def find_training(run: str, store: Store) -> Record:
    """The record of the finished training whose id begins with `run`.

    Raises UserError when there is none, when several do, and when it is not finished or no
    training.
    """
    named = store.beginning(run)
    trainings = [record for record in named if record["kind"] == "training"]
    if len(trainings) > 1:
        ids = [record["run_id"] for record in trainings]
        raise UserError(f"run {run}: {len(ids)} trainings begin so ({', '.join(ids[:5])}, ...)")
    if trainings:
        return trainings[0]
    if named:
        kind, parent = named[0]["kind"], named[0].get("parent")
        of = f"an {kind} of run {parent}: export that one" if parent else f"a {kind}: no weights"
        raise UserError(f"run {run}: is {of}")
    folders = sorted(store.runs.iterdir()) if run and store.runs.is_dir() else []
    if begun := [
        f.name for f in folders if f.name.startswith(run) and (f / "config.yaml").exists()
    ]:
        raise UserError(
            f"run {begun[0]}: is not finished ({store.state(begun[0])}); the command that trains it"
            " goes on after the last whole epoch"
        )
    known = [i for i, record in store.records.items() if record["kind"] == "training"]
    raise UserError(
        f"run {run or repr(run)}: no such training under {store.runs} or {store.results}"
        f"{did_you_mean(run, known)}"
    )


def export(record: Record, store: Store, folder: Path, *, retrain: bool = False) -> None:
    """Write the trained run of `record` into `folder`: model.safetensors, config.json, README.md.

    All or nothing: the folder appears when it is complete. Raises UserError when the folder is
    there and not empty, when the run's weights are not here (unless it may `retrain`) or are not
    those of its record, and when a component has been changed since.
    """
    from hypersphere.exported import CARD, CONFIG, WEIGHTS
    from hypersphere.store.card import model_card

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is there already; nothing was written, name another by --to")
    training = _training(record)
    weights, sha256 = _weights(record, training, store, retrain)
    config = _config(record, training, store, sha256)
    card = model_card(record, training, config)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-") as temporary:
            made = Path(temporary) / "made"
            made.mkdir()
            shutil.copyfile(weights, made / WEIGHTS)
            (made / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
            (made / CARD).write_text(card, encoding="utf-8")
            os.replace(made, folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({disk_trouble(error, folder)})") from error


def _training(record: Record) -> Training:
    from hypersphere.config import check_training

    training = check_training(record["config"])
    for name in ("backbone", "head"):
        then, now = record["identity"][name]["revision"], training.identity()[name]["revision"]
        if then != now:
            raise UserError(
                f"run {record['run_id']}: its {name} has been changed since (revision {then}, now"
                f" {now}): export it at commit {record['git']['commit']}, or train it again"
            )
    return training


def _weights(record: Record, training: Training, store: Store, retrain: bool) -> tuple[Path, str]:
    """The run's weights and their sha256: the record's, or those of a training that was done again
    and gave its numbers."""
    from hypersphere.training.train import train

    run_id, recorded = record["run_id"], record["files"][MODEL]
    path = store.folder(run_id) / MODEL
    if not path.exists() and retrain:
        train(training, store, need_files=True)
        return path, sha256_of(path)
    if not path.exists():
        raise UserError(
            f"run {run_id}: its record is here, its weights are not (under {store.runs}): bring its"
            " folder by `hypersphere store merge DIR`, or train it again with --retrain"
        )
    if (found := sha256_of(path)) != recorded:
        raise UserError(
            f"{path}: is not the file of the record (sha256 {found[:12]}..., recorded"
            f" {recorded[:12]}...); delete it and use --retrain"
        )
    return path, found


def _config(record: Record, training: Training, store: Store, sha256: str) -> dict[str, Any]:
    """What builds the network without the data and without this store, and its numbers."""
    from hypersphere.exported import FORMAT

    data, facts, seen = training.data, training.dataset, training.split().seen
    mean, std = data.statistics(facts)
    size = data.views.size if data.views else facts.size
    names = facts.names or facts.classes or [str(label) for label in range(facts.num_classes)]
    judges = [
        one
        for one in store.records.values()
        if one["kind"] == "evaluation" and one["parent"] == record["run_id"]
    ]
    found = {
        "format": FORMAT,
        "run_id": record["run_id"],
        "parent": record["parent"],
        "commit": record["git"]["commit"],
        "versions": record["versions"],
        "sha256": sha256,
        "input": {
            "channels": facts.channels,
            "size": size,
            "enlarged_to": data.size,
            "network_size": data.input_size(facts),
            "mean": mean,
            "std": std,
        },
        "precision": training.settings.precision,
        "num_classes": len(seen),
        "labels": list(seen),
        "classes": [names[label] for label in seen],
        "data": record["data"],
        "revisions": {name: record["identity"][name]["revision"] for name in ("backbone", "head")},
        "training": record["config"],
        "numbers": {
            "training": record["metrics"],
            **{one["identity"]["evaluation"]["name"]: one["metrics"] for one in judges},
        },
    }
    plain: dict[str, Any] = json.loads(encode(found))  # NaN as the records write it
    return plain
