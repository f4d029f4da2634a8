"""Training one run to its record."""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file, save_file

from hypersphere import provenance
from hypersphere.config import Training
from hypersphere.devices import devices
from hypersphere.errors import ContradictedError
from hypersphere.files import sha256_of, write_atomically, write_text
from hypersphere.store import EMBEDDINGS, MODEL, Store
from hypersphere.store.agreement import disagreement
from hypersphere.store.records import Record
from hypersphere.training import compiled, module, packed, several
from hypersphere.training.files import FileImages
from hypersphere.training.images import SmallImages
from hypersphere.training.learner import FEW, WATCHED, Learner
from hypersphere.training.network import Network, embed
from hypersphere.training.packed import Ready
from hypersphere.training.resume import RESUME, Say
from hypersphere.training.start import start_from

NUMBERS = ("loss", "validation_loss", *WATCHED, FEW)  # of an epoch that are no times


def train(
    training: Training, store: Store, *, need_files: bool = False, say: Say = print
) -> Record:
    """Train one run, or return its record if it is done.

    need_files: the caller reads the run's weights or embeddings. If only the record is here
    (records travel, run folders do not), the run is trained again and its numbers are checked
    against the record, which stays as it is.
    say: told each epoch and anything unusual.

    An interrupted run continues after its last whole epoch. Raises UserError when the retrained
    numbers contradict the record or a parent run is missing.
    """
    return packed.finish(steps_of(training, store, need_files=need_files, say=say))


def steps_of(
    training: Training, store: Store, *, need_files: bool = False, say: Say = print
) -> Generator[Ready, None, Record]:
    """`train` in steps, for whoever has several trainings in flight: yields a function that tells
    whether it is worth going on yet, and returns the record. Closing it gives the run up until
    another time; what its resume point holds is not lost."""
    folder = store.folder(training.id)

    def done() -> bool:
        if need_files:
            return store.has_files(training.id)
        return store.get(training.id) is not None

    if done():
        return store.records[training.id]
    with store.claim(training.id, say):
        record = store.get(training.id)
        if done():  # by another process, while this one waited
            return store.records[training.id]
        write_text(folder / "config.yaml", yaml.safe_dump(training.raw, sort_keys=False))
        fresh = yield from _train(training, store, folder, say)
        if record is None:
            store.write(fresh)
        else:
            try:
                check_same(record, fresh)
            except ContradictedError:
                for name in (MODEL, EMBEDDINGS):  # weights that are not the record's serve nobody
                    (folder / name).unlink()
                raise
        (folder / RESUME).unlink(missing_ok=True)
        return record or fresh


def load_network(training: Training, folder: Path) -> Network:
    """The trained network of a run whose files are in `folder`."""
    network = Network(training)
    network.load_state_dict(load_file(folder / MODEL))
    return network


def check_same(record: Record, fresh: Record) -> None:
    """A retrained run must give its record's numbers (store/agreement.py says how closely on
    another processor). Raises ContradictedError naming the first that differs."""
    if (found := disagreement(record, fresh)) is None:
        return
    same = all(record[key] == fresh[key] for key in ("versions", "hardware"))
    remedy = "find out what changed, and raise the component's revision if it was the code"
    # elsewhere an accuracy is allowed more than other logits change
    if same and "accuracy" in found.name and (logits := record.get("logits")) is not None:
        remedy = (
            f"its accuracies were judged by {logits} logits, today's are by float32 ones;"
            " to train it anew, take its line out of records.jsonl and delete its run folder"
        )
    raise ContradictedError(
        record["run_id"],
        f"run {record['run_id']}: trained again because its files were gone,"
        f" {found.said('in its record', 'now')} (on {'the same' if same else 'other'} versions and"
        f" processor); the record is kept: {remedy}",
    )


def _train(
    training: Training, store: Store, folder: Path, say: Say
) -> Generator[Ready, None, Record]:
    learner = Learner(training)
    origin: dict[str, str] = {}
    if training.parent is not None:
        origin["parent_weights"] = start_from(learner.network, training, store, say)
    elif (backbone := learner.network.backbone) and hasattr(backbone, "load_pretrained"):
        origin["pretrained"], names = backbone.load_pretrained()
        learner.network.inherited = {f"backbone.{name}" for name in names}
    if compiled.wanted():
        learner.compile(say)
    images = SmallImages(training) if training.dataset.in_memory else FileImages(training)
    if (number := devices()) > 1:
        device = several.fit(learner, images, folder, say, number)
    elif (device := packed.device_for(learner, folder, say)) is not None:
        assert isinstance(images, SmallImages)
        yield from packed.fit(learner, images, folder, say, device)
    else:
        device = module.fit(learner, images, folder, say)
    return _finish(learner, images, folder, device) | {k: v for k, v in origin.items() if v}


def _finish(
    learner: Learner, images: SmallImages | FileImages, folder: Path, device: torch.device
) -> Record:
    """Keep what the trained run leaves behind, and say it in a record."""
    training, network = learner.training, learner.network.to(device)
    if learner.best is not None:
        network.load_state_dict(learner.best)
    embedding_started = time.monotonic()
    embeddings = embed(network, images.everything(), training.settings.precision)
    write_atomically(folder / MODEL, lambda path: save_file(_contiguous(network), path))
    write_atomically(folder / EMBEDDINGS, embeddings.save)

    last, selected = learner.history[-1], learner.selected()
    record = provenance.stamp(training, embedding_started, str(device))
    # A resumed run's epochs before the interruption count too.
    record["seconds"] = round(record["seconds"] + sum(e["seconds"] for e in learner.history), 1)
    if (most := max(entry.get("devices", 1) for entry in learner.history)) > 1:
        record["hardware"]["devices"] = most
    if any("compiled" in entry for entry in learner.history):
        record["hardware"]["compiled"] = True
    if network.head.classifies:  # the images that accuracies are about
        seen = torch.isin(embeddings.test_labels, torch.tensor(training.split().seen))
        record["test_images"] = int(seen.sum())
    return record | {
        "parent": training.parent,
        "config": training.raw,
        "data": {"name": training.data.name, "content": images.content},
        "diverged": not math.isfinite(last["loss"]),
        "epochs": learner.history,
        "metrics": {key: selected[key] for key in NUMBERS if key in selected},
        "files": {name: sha256_of(folder / name) for name in (MODEL, EMBEDDINGS)},
        "artifacts": {},
    }


def _contiguous(network: Network) -> dict[str, torch.Tensor]:
    return {name: value.contiguous() for name, value in network.state_dict().items()}
