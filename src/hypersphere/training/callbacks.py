"""What accompanies a training: its log, its resume point, and Lightning kept quiet."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, Checkpoint

from hypersphere.files import write_atomically

RESUME = "resume.ckpt"

Say = Callable[[str], None]


class EpochLog(Callback):
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
        accuracy = (
            f", test accuracy {entry['test_accuracy']:.4f}" if "test_accuracy" in entry else ""
        )
        line = f"epoch {entry['epoch']}/{self.epochs}: loss {entry['loss']:.4f}{accuracy}"
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
        torch.load(path, map_location="cpu", weights_only=True)
        return path
    except Exception as error:  # torch raises many kinds for a damaged file
        say(f"{path}: damaged ({type(error).__name__}); this run starts again from its first epoch")
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
