"""One training run driven by Lightning."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment
from torch import Tensor

from hypersphere.training.callbacks import EpochLog, ResumePoint, quiet
from hypersphere.training.files import FileImages
from hypersphere.training.images import SmallImages
from hypersphere.training.learner import Learner
from hypersphere.training.resume import RESUME, Say, usable

CALL = 16  # steps per call of training_step

Batch = tuple[Tensor, ...]


def fit(
    learner: Learner, images: SmallImages | FileImages, folder: Path, say: Say, **devices: Any
) -> torch.device:
    """Train with Lightning's own loop, on one device unless `devices` (the trainer's accelerator,
    devices, strategy) say otherwise; returns the device of this process."""
    epochs = learner.schedule.epochs
    with quiet():
        trainer = pl.Trainer(
            **{"accelerator": "auto", "devices": 1, **devices},
            max_epochs=epochs,
            reload_dataloaders_every_n_epochs=1,  # the order of batches is seeded by epoch
            use_distributed_sampler=False,  # which image is whose is said by the images themselves
            limit_val_batches=1.0 if learner.network.head.classifies else 0,
            callbacks=[ResumePoint(folder), EpochLog(folder, epochs, say)],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=folder,
            plugins=[LightningEnvironment()],  # a job of SLURM's is requeued by its launcher
        )
        resume = folder / RESUME if usable(folder / RESUME, say) else None
        images.setup(trainer.strategy.root_device)
        trainer.fit(TrainingModule(learner, images), ckpt_path=resume, weights_only=True)
    return trainer.strategy.root_device


class TrainingModule(pl.LightningModule):
    """Hands Lightning's hooks to the run's learner; `network` is the learner's.

    A call of `training_step` takes the steps of several batches (`Grouped`), and the optimiser is
    the learner's to step: Lightning's own cost of a step, about a millisecond, is that of a call.
    """

    automatic_optimization = False

    def __init__(self, learner: Learner, images: SmallImages | FileImages) -> None:
        super().__init__()
        self.learner, self.images = learner, images
        self.network = learner.network  # so that Lightning moves and saves it

    def train_dataloader(self) -> Grouped:
        """Called at the start of every epoch (the trainer reloads it)."""
        return Grouped(self.images.batches(self.current_epoch), CALL)

    def val_dataloader(self) -> list[Any]:
        return self.images.watched()

    def training_step(self, batches: Sequence[Batch], _: int) -> None:
        optimizer = self.trainer.optimizers[0]
        for batch in batches:
            self.learner.loss_sum += self.learner.step(optimizer, *batch)
            self.learner.batches += 1

    def on_train_start(self) -> None:
        self._stop_if_diverged()
        if self.trainer.world_size > 1:
            self.learner.backward = self.manual_backward  # which sums over the processes
        self.learner.prepare(self.images.train_labels(), self.images.train_values())

    def on_train_epoch_start(self) -> None:
        self.learner.begin_epoch(self.current_epoch, self.trainer.optimizers[0])

    def on_validation_epoch_start(self) -> None:
        self.learner.begin_judging()

    def validation_step(
        self, batch: tuple[Tensor, Tensor], _: int, dataloader_idx: int = 0
    ) -> None:
        self.learner.judge(*batch, dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        self.learner.end_judging()

    def on_train_epoch_end(self) -> None:
        for scheduler in self.trainer.lr_scheduler_configs:
            scheduler.scheduler.step()
        self.learner.end_epoch(self.current_epoch)
        if (devices := self.trainer.world_size) > 1:
            self.learner.history[-1]["devices"] = devices
        self._stop_if_diverged()

    def _stop_if_diverged(self) -> None:
        if self.learner.diverged:
            self.trainer.should_stop = True

    def configure_optimizers(self) -> Any:
        optimizer, scheduler = self.learner.optimizers()
        return optimizer if scheduler is None else ([optimizer], [scheduler])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint |= self.learner.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.learner.load_state(checkpoint)


class Grouped:
    """The batches of a loader, `size` to a group; the last group may be smaller."""

    def __init__(self, batches: Iterable[Batch], size: int) -> None:
        self.batches, self.size = batches, size

    def __len__(self) -> int:
        return -(-len(self.batches) // self.size)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[Batch]]:
        batches = iter(self.batches)
        while group := list(itertools.islice(batches, self.size)):
            yield group
