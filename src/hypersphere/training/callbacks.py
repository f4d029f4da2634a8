"""What accompanies a training by Lightning: its log, its resume point, and Lightning kept quiet."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from hypersphere.files import write_atomically
from hypersphere.training.resume import RESUME, Say, log_epoch


class EpochLog(Checkpoint):
    """One line per epoch, in the log of the run's `folder` and to whoever listens.

    A Checkpoint to Lightning, because those are called after the module has closed its epoch.
    """

    def __init__(self, folder: Path, epochs: int, say: Say) -> None:
        self.folder, self.epochs, self.say = folder, epochs, say

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            log_epoch(self.folder, module.learner.history[-1], self.epochs, self.say)


class ResumePoint(Checkpoint):
    """Everything needed to go on, after each epoch; replaced atomically."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / RESUME

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            write_atomically(self.path, trainer.save_checkpoint)
        else:  # waits for the one that writes
            trainer.save_checkpoint(self.path)


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
