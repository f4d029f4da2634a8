"""Training one run to its record."""

from __future__ import annotations

import hashlib
import math
import time
from pathlib import Path

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.plugins.environments import LightningEnvironment
from safetensors.torch import load_file, save_file

from hypersphere import provenance
from hypersphere.config import Training, check_training
from hypersphere.errors import UserError
from hypersphere.files import write_atomically, write_text
from hypersphere.store import Store
from hypersphere.store.records import Record
from hypersphere.training.callbacks import RESUME, EpochLog, ResumePoint, Say, quiet, usable
from hypersphere.training.files import FileImages
from hypersphere.training.images import SmallImages
from hypersphere.training.module import WATCHED, Network, TrainingModule, embed

MODEL, EMBEDDINGS = "model.safetensors", "embeddings.safetensors"
NUMBERS = ("loss", "validation_loss", *WATCHED)  # of an epoch that are no times
TOLERANCE = 0.02  # of a retrained run's accuracies and relative loss, on another machine or version


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
    folder = store.folder(training.id)

    def done() -> bool:
        files = all((folder / name).exists() for name in (MODEL, EMBEDDINGS))
        return store.get(training.id) is not None and (files or not need_files)

    if done():
        return store.records[training.id]
    with store.claim(training.id, say):
        record = store.get(training.id)
        if done():  # by another process, while this one waited
            return store.records[training.id]
        write_text(folder / "config.yaml", yaml.safe_dump(training.raw, sort_keys=False))
        fresh = _train(training, store, folder, say)
        if record is None:
            store.write(fresh)
        else:
            try:
                check_same(record, fresh)
            except UserError:
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
    """A retrained run must give its record's numbers: bit for bit on the same versions, processor
    and number of threads, else accuracies and relative loss within TOLERANCE.

    Raises UserError naming the first number that differs.
    """
    exact = all(record[key] == fresh[key] for key in ("versions", "hardware"))
    for name, old in (before := _numbers(record)).items():
        new = (after := _numbers(fresh)).get(name, math.nan)
        relative = max(abs(old), 1e-3) if name.endswith("loss") else 1.0
        close = abs(old - new) <= (0.0 if exact else TOLERANCE * relative)
        if not (close or old == new or (name in after and math.isnan(old) and math.isnan(new))):
            raise UserError(_contradiction(record, name, old, new, exact))
    if len(before) != len(after):
        raise UserError(_contradiction(record, "epochs", len(before), len(after), exact))


def _numbers(record: Record) -> dict[str, float]:
    """Every number that a retrained run can be held against, by a name for people."""
    curve = {
        f"epoch {entry['epoch']} gives {key}": entry[key]
        for entry in record["epochs"]
        for key in NUMBERS
        if key in entry
    }
    return curve | {f"the end gives {key}": value for key, value in record["metrics"].items()}


def _contradiction(record: Record, name: str, old: float, new: float, exact: bool) -> str:
    where = "the same" if exact else "other"
    return (
        f"run {record['run_id']}: trained again because its files were gone, {name} {new:.6g}, its"
        f" record says {old:.6g} (on {where} versions and processor); the record is kept: find out"
        " what changed, and raise the component's revision if it was the code"
    )


def _train(training: Training, store: Store, folder: Path, say: Say) -> Record:
    module = TrainingModule(training)
    if training.parent is not None:
        _start_from(module.network, training.parent, store, say)
    schedule = training.components["schedule"].build()
    images = SmallImages(training) if training.dataset.in_memory else FileImages(training)
    with quiet():
        trainer = pl.Trainer(
            accelerator="auto",
            devices=1,
            max_epochs=schedule.epochs,
            precision="bf16-mixed" if training.settings.precision == "bf16" else "32-true",
            reload_dataloaders_every_n_epochs=1,  # the order of batches is seeded by epoch
            limit_val_batches=1.0 if module.network.head.classifies else 0,
            callbacks=[ResumePoint(folder), EpochLog(folder / "log.txt", schedule.epochs, say)],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=folder,
            plugins=[LightningEnvironment()],  # a job of SLURM's is requeued by its launcher
        )
        resume = usable(folder / RESUME, say)
        trainer.fit(module, images, ckpt_path=resume, weights_only=True)
    device = str(trainer.strategy.root_device)
    network = module.network.to(device)
    if module.best is not None:
        network.load_state_dict(module.best)
    embedding_started = time.monotonic()
    embeddings = embed(network, images.everything(), training.settings.precision)
    write_atomically(folder / MODEL, lambda path: save_file(_contiguous(network), path))
    write_atomically(folder / EMBEDDINGS, embeddings.save)

    last, selected = module.history[-1], module.selected()
    record = provenance.stamp(training, embedding_started, device)
    # A resumed run's epochs before the interruption count too.
    record["seconds"] = round(record["seconds"] + sum(e["seconds"] for e in module.history), 1)
    return record | {
        "parent": training.parent,
        "config": training.raw,
        "data": {"name": training.data.name, "content": images.content},
        "diverged": not math.isfinite(last["loss"]),
        "epochs": module.history,
        "metrics": {key: selected[key] for key in NUMBERS if key in selected},
        "files": {name: _sha256(folder / name) for name in (MODEL, EMBEDDINGS)},
        "artifacts": {},
    }


def _start_from(network: Network, parent: str, store: Store, say: Say) -> None:
    """Take over the parent's weights; a head of another shape keeps its own new class vectors."""
    file = store.folder(parent) / MODEL
    if not file.exists():
        record = store.get(parent)
        if record is None:
            raise UserError(f"initial={parent}: there is no such finished run under {store.runs}")
        train(check_training(record["config"]), store, need_files=True, say=say)
    weights, own = load_file(file), network.state_dict()
    fitting = {k: v for k, v in weights.items() if k in own and own[k].shape == v.shape}
    lacking = [k for k in own if k not in fitting and not k.startswith("head.")]
    if lacking:
        raise UserError(f"initial={parent}: its backbone does not fit this one ({lacking[0]})")
    network.load_state_dict(fitting, strict=False)


def _contiguous(network: Network) -> dict[str, torch.Tensor]:
    return {name: value.contiguous() for name, value in network.state_dict().items()}


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
