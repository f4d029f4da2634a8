"""Training one run to its record, and judging it from its saved embeddings."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.callbacks import Callback, Checkpoint
from safetensors.torch import load_file, save_file

from hypersphere import provenance
from hypersphere.config import Evaluation, Training
from hypersphere.data.module import SmallImages
from hypersphere.errors import UserError
from hypersphere.evaluation.embeddings import Embeddings, embed
from hypersphere.store import SCHEMA, Store
from hypersphere.store.records import Record, write_text
from hypersphere.training.module import Network, TrainingModule

RESUME, MODEL, EMBEDDINGS = "resume.ckpt", "model.safetensors", "embeddings.safetensors"
TOLERANCE = 0.02  # of a retrained run's accuracies and relative loss, on another machine or version

Say = Callable[[str], None]


def train(training: Training, store: Store, *, need_files: bool = False, say: Say = print) -> Record:
    """Train one run, or return its record if it is done.

    need_files: the caller reads the run's weights or embeddings. If only the record is here
    (records travel, run folders do not), the run is trained again and its numbers are checked
    against the record, which stays as it is.
    say: told each epoch and anything unusual.

    An interrupted run continues after its last whole epoch. Raises UserError when the retrained
    numbers contradict the record or a parent run is missing.
    """
    with store.claim(training.id, say):
        record, folder = store.get(training.id), store.folder(training.id)
        complete = all((folder / name).exists() for name in (MODEL, EMBEDDINGS))
        if record is not None and (complete or not need_files):
            return record
        write_text(folder / "config.yaml", yaml.safe_dump(training.raw, sort_keys=False))
        fresh = _train(training, store, folder, say)
        if record is None:
            store.write(fresh)
        else:
            check_same(record, fresh)
        (folder / RESUME).unlink(missing_ok=True)
        return record or fresh


def evaluate(evaluation: Evaluation, training: Training, store: Store, *, say: Say = print) -> Record:
    """Judge a finished training, or return the record of that judgement if it is done."""
    if (record := store.get(evaluation.id)) is not None:
        return record
    parent = train(training, store, need_files=True, say=say)
    with store.claim(evaluation.id, say):
        if (record := store.get(evaluation.id)) is not None:
            return record
        started = time.time()
        metrics: dict[str, Any] = {}
        if not parent["diverged"]:
            folder = store.folder(training.id)
            head = load_network(training, folder).head
            with torch.inference_mode():
                metrics = evaluation.component.target(
                    head,
                    Embeddings.read(folder / EMBEDDINGS),
                    training.split(),
                    training.settings.seed,
                    **evaluation.component.params,
                )
        record = _record(evaluation.id, "evaluation", evaluation.identity(), started, "cpu")
        record |= {"parent": training.id, "diverged": parent["diverged"], "metrics": metrics}
        store.write(record)
        return record


def load_network(training: Training, folder: Path) -> Network:
    """The trained network of a run whose files are in `folder`."""
    network = Network(training)
    network.load_state_dict(load_file(folder / MODEL))
    return network


def check_same(record: Record, fresh: Record) -> None:
    """A retrained run must give its record's numbers: bit for bit on the same versions, processor
    and number of threads, else accuracies and relative loss within TOLERANCE."""
    exact = all(record[key] == fresh[key] for key in ("versions", "hardware"))
    for before, after in zip(record["epochs"], fresh["epochs"], strict=True):
        for key in ("loss", "test_accuracy"):
            if key not in before:
                continue
            old, new = before[key], after[key]
            bound = 0.0 if exact else TOLERANCE * (max(abs(old), 1e-3) if key == "loss" else 1.0)
            if not (old == new or abs(old - new) <= bound or math.isnan(old) and math.isnan(new)):
                raise UserError(
                    f"run {record['run_id']}: trained again because its files were gone, epoch"
                    f" {before['epoch']} gives {key} {new:.6g}, its record says {old:.6g}"
                    f" ({'same' if exact else 'other'} versions and processor); the record is kept:"
                    " find out what changed, and raise the component's revision if it was the code"
                )


def _train(training: Training, store: Store, folder: Path, say: Say) -> Record:
    module = TrainingModule(training)
    if training.parent is not None:
        _start_from(module.network, training.parent, store)
    schedule = training.components["schedule"].build()
    with _quiet():
        trainer = pl.Trainer(
            accelerator="auto",
            devices=1,
            max_epochs=schedule.epochs,
            precision="bf16-mixed" if training.settings.precision == "bf16" else "32-true",
            reload_dataloaders_every_n_epochs=1,  # the order of batches is seeded by epoch
            limit_val_batches=1.0 if module.network.head.classifies else 0,
            callbacks=[_EpochLog(folder / "log.txt", schedule.epochs, say), _ResumePoint(folder)],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=folder,
        )
        resume = _usable(folder / RESUME, say)
        trainer.fit(module, SmallImages(training), ckpt_path=resume)
    if trainer.interrupted:
        raise KeyboardInterrupt
    device = str(trainer.strategy.root_device)
    network = module.network.to(device)
    embedding_started = time.time()
    embeddings = embed(network, training.data.name, training.settings.precision)
    _atomically(folder / MODEL, lambda path: save_file(_contiguous(network), path))
    _atomically(folder / EMBEDDINGS, embeddings.save)

    last = module.history[-1]
    record = _record(training.id, "training", training.identity(), embedding_started, device)
    # A resumed run's epochs before the interruption count too.
    record["seconds"] = round(record["seconds"] + sum(e["seconds"] for e in module.history), 1)
    return record | {
        "parent": training.parent,
        "config": training.raw,
        "data": {"name": training.data.name, "content": training.dataset.content},
        "diverged": not math.isfinite(last["loss"]),
        "epochs": module.history,
        "metrics": {key: last[key] for key in ("loss", "test_accuracy") if key in last},
        "files": {name: _sha256(folder / name) for name in (MODEL, EMBEDDINGS)},
        "artifacts": {},
    }


def _record(run_id: str, kind: str, identity: dict[str, Any], started: float, device: str) -> Record:
    return {
        "schema": SCHEMA,
        "run_id": run_id,
        "kind": kind,
        "identity": identity,
        "git": provenance.git(),
        "versions": provenance.versions(),
        "hardware": provenance.hardware(device),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(time.time() - started, 1),
    }


def _start_from(network: Network, parent: str, store: Store) -> None:
    """Take over the parent's weights; a head of another shape keeps its own new class vectors."""
    file = store.folder(parent) / MODEL
    if not file.exists():
        raise UserError(
            f"initial={parent}: the weights of that run are not under {store.runs}; train it first"
            " (`hypersphere run` does so by itself for planned items)"
        )
    weights, own = load_file(file), network.state_dict()
    fitting = {k: v for k, v in weights.items() if k in own and own[k].shape == v.shape}
    lacking = [k for k in own if k not in fitting and not k.startswith("head.")]
    if lacking:
        raise UserError(f"initial={parent}: its backbone does not fit this one ({lacking[0]})")
    network.load_state_dict(fitting, strict=False)


class _EpochLog(Callback):
    """One line per epoch, in the run's log and to whoever listens."""

    def __init__(self, path: Path, epochs: int, say: Say) -> None:
        self.path, self.epochs, self.say = path, epochs, say

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # The module's own line for the previous epoch is complete only now.
        self._tell(module)

    def on_fit_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._tell(module)

    def _tell(self, module: pl.LightningModule) -> None:
        if not module.history:
            return
        entry = module.history[-1]
        accuracy = f", test accuracy {entry['test_accuracy']:.4f}" if "test_accuracy" in entry else ""
        line = f"epoch {entry['epoch']}/{self.epochs}: loss {entry['loss']:.4f}{accuracy}"
        line += f", {entry['seconds']:.1f} s"
        with open(self.path, "a") as file:
            file.write(line + "\n")
        self.say(line)


class _ResumePoint(Checkpoint):
    """Everything needed to go on, after each epoch; replaced atomically."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / RESUME

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        _atomically(self.path, trainer.save_checkpoint)


def _usable(path: Path, say: Say) -> Path | None:
    """The resume point if it can be read; a damaged one is dropped and the run starts again."""
    if not path.exists():
        return None
    try:
        torch.load(path, map_location="cpu", weights_only=True)
        return path
    except Exception as error:  # torch raises many kinds for a damaged file
        say(f"{path}: damaged ({type(error).__name__}); this run starts again from its first epoch")
        path.unlink()
        return None


def _atomically(path: Path, write: Callable[[Path], Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); free some space or set HYPERSPHERE_RUNS"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _contiguous(network: Network) -> dict[str, torch.Tensor]:
    return {name: value.contiguous() for name, value in network.state_dict().items()}


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _quiet:
    """Lightning's notices about things decided here on purpose stay out of the user's sight."""

    def __enter__(self) -> None:
        self._levels = {}
        for name in ("pytorch_lightning", "lightning_fabric"):
            for logger in (logging.getLogger(n) for n in (name, f"{name}.utilities.rank_zero")):
                self._levels[logger] = logger.level
                logger.setLevel(logging.ERROR)
        self._catch = warnings.catch_warnings()
        self._catch.__enter__()
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        warnings.filterwarnings("ignore", module="lightning_fabric")

    def __exit__(self, *error: Any) -> None:
        self._catch.__exit__(*error)
        for logger, level in self._levels.items():
            logger.setLevel(level)
