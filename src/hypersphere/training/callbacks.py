"""What accompanies a training: its log, its resume point, and Lightning kept quiet."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint

from hypersphere.files import write_atomically

RESUME = "resume.ckpt"

Say = Callable[[str], None]


class EpochLog(Checkpoint):
    """One line per epoch, in the run's log and to whoever listens.

    A Checkpoint to Lightning, because those are called after the module has closed its epoch.
    """

    def __init__(self, path: Path, epochs: int, say: Say) -> None:
        self.path, self.epochs, self.say = path, epochs, say

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        entry = module.history[-1]
        line = f"epoch {entry['epoch']}/{self.epochs}: loss {entry['loss']:.4f}"
        for name in ("test_accuracy", "validation_accuracy"):
            if name in entry:
                line += f", {name.replace('_', ' ')} {entry[name]:.4f}"
        line += f", {entry['seconds']:.1f} s"
        with open(self.path, "a") as file:
            file.write(line + "\n")
        self.say(line)


class ResumePoint(Checkpoint):
    """Everything needed to go on, after each epoch; replaced atomically."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / RESUME

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        write_atomically(self.path, trainer.save_checkpoint)


def usable(path: Path, say: Say) -> Path | None:
    """The resume point if it can be read; a damaged one is dropped and the run starts again."""
    if not path.exists():
        return None
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        if {"state_dict", "optimizer_states", "loops", "history"} <= found.keys():
            return path
        why = "no resume point of ours"
    except Exception as error:  # torch raises many kinds for a damaged file
        why = f"damaged, {type(error).__name__}"
    say(f"{path}: {why}; this run starts again from its first epoch")
    path.unlink()
    return None


class quiet:
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
