"""One training run driven by Lightning."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from hypersphere.training.learner import Learner


class TrainingModule(pl.LightningModule):
    """Hands Lightning's hooks to the run's learner; `network` is the learner's."""

    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self.learner = learner
        self.network = learner.network  # so that Lightning moves and saves it

    def training_step(self, batch: tuple[Tensor, ...], _: int) -> Tensor:
        loss = self.learner.step(*batch)
        self.learner.loss_sum += loss.detach()
        self.learner.batches += 1
        return loss

    def on_train_start(self) -> None:
        self._stop_if_diverged()
        data = self.trainer.datamodule
        self.learner.prepare(data.train_labels(), data.train_values())

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
        self.learner.end_epoch(self.current_epoch)
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
