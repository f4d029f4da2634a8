"""The network as a LightningModule: backbone + head, no paper's name in it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypersphere.config.training import Training
from hypersphere.data.transforms import ToInput
from hypersphere.errors import UserError
from hypersphere.evaluation.embeddings import Embeddings
from hypersphere.heads import Head, ValueHead
from hypersphere.seeds import derive
from hypersphere.training.images import Everything

# What the validation loaders of a data module hold, in their order.
WATCHED = ("test_accuracy", "validation_accuracy")
FEW = "test_accuracy_of_few"  # of the test images of classes with few training images


class Network(nn.Module):
    """uint8 images -> embeddings, and the head that owns the class vectors.

    Built from a checked training configuration, initialised from its seed alone: the global
    random state neither enters nor changes. inherited: names of the tensors that pretrained weights
    or a parent run have set since, and that are therefore not new.
    """

    def __init__(self, training: Training) -> None:
        super().__init__()
        self.inherited: set[str] = set()
        data, facts = training.data, training.dataset
        self.to_input = ToInput(data.size, *data.statistics(facts))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive("initialisation", training.settings.seed) % 2**63)
            size = data.input_size(facts)
            self.backbone = training.components["backbone"].build(facts.channels, size)
            num_classes = len(training.split().seen)
            try:
                self.head: Head = training.components["head"].build(self.backbone.dim, num_classes)
            except ValueError as error:
                raise UserError(f"head ({self.backbone.dim} dimensions): {error}") from None
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """images: (n, channels, size, size) uint8 -> embeddings (n, dim) float32."""
        return self.backbone(self.to_input(images)).float()


class TrainingModule(pl.LightningModule):
    """One training run. `step` is the whole of its arithmetic; other drivers call it too.

    history: one dict per finished epoch (epoch, loss, test_accuracy and validation_accuracy where
    the head classifies, test_accuracy_of_few where some classes have few images, validation_loss,
    seconds); it travels in the checkpoint, so a resumed run keeps the curve, and so do the `best`
    weights where the configuration selects by that loss. class_weights: (classes,) or None. few:
    labels of the classes with few images.
    """

    def __init__(self, training: Training) -> None:
        super().__init__()
        self.training_config = training
        self.network = Network(training)
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Tensor] | None = None
        self.class_weights: Tensor | None = None
        self._accuracies: dict[str, float] = {}
        split = training.split()
        self.few = torch.isin(torch.tensor(split.seen), torch.tensor(split.few)).nonzero().flatten()

    def step(self, images: Tensor, labels: Tensor, *values: Tensor) -> Tensor:
        """Loss of one batch. images: (n, c, h, w) uint8; labels: (n,) among the seen classes;
        values: (n,) where the head learns a number of each image."""
        embeddings = self.network(images)
        # Losses stay in float32: bfloat16 cosines would move the few-shot results.
        with torch.autocast(embeddings.device.type, enabled=False):
            weights = None if self.class_weights is None else self.class_weights[labels]
            return self.network.head.loss(embeddings, labels, weights, *values)

    def training_step(self, batch: tuple[Tensor, ...], _: int) -> Tensor:
        loss = self.step(*batch)
        self._loss_sum += loss.detach()
        self._batches += 1
        return loss

    def on_train_start(self) -> None:
        self._stop_if_diverged()
        head = self.network.head
        if isinstance(head, ValueHead):
            head.prepare(self.trainer.datamodule.train_values())
        if self.training_config.settings.class_weights == "balanced":
            labels = self.trainer.datamodule.train_labels()
            counts = labels.bincount(minlength=head.num_classes)
            self.class_weights = (len(labels) / (len(counts) * counts)).to(self.device)

    def on_train_epoch_start(self) -> None:
        # Dropout and the like draw from the global state; seeding it by epoch keeps a resumed
        # training equal to an uninterrupted one.
        seed = self.training_config.settings.seed
        torch.manual_seed(derive("training noise", seed, self.current_epoch))
        # Sums stay on the device; one transfer per epoch instead of one per step.
        self._loss_sum = torch.zeros((), device=self.device)
        self._batches = 0
        self._started = time.perf_counter()

    def on_validation_epoch_start(self) -> None:
        self._correct = torch.zeros(len(WATCHED), device=self.device)
        self._count = [0] * len(WATCHED)
        self._validation_loss = torch.zeros((), device=self.device)
        self._few = torch.zeros(2, device=self.device)  # right, and all

    def validation_step(
        self, batch: tuple[Tensor, Tensor], _: int, dataloader_idx: int = 0
    ) -> None:
        images, labels = batch
        logits = self.network.head.logits(self.network(images))
        right = logits.argmax(1) == labels
        self._correct[dataloader_idx] += right.sum()
        if len(self.few) and WATCHED[dataloader_idx] == "test_accuracy":
            few = torch.isin(labels, self.few.to(labels))
            self._few += torch.stack([right[few].sum(), few.sum()])
        self._count[dataloader_idx] += len(labels)
        if WATCHED[dataloader_idx] == "validation_accuracy":
            self._validation_loss += F.cross_entropy(logits.float(), labels, reduction="sum")

    def on_validation_epoch_end(self) -> None:
        found = zip(WATCHED, self._correct.tolist(), self._count, strict=True)
        self._accuracies = {name: correct / count for name, correct, count in found if count}
        right, of_few = self._few.tolist()
        if of_few:
            self._accuracies[FEW] = right / of_few
        if held := self._count[WATCHED.index("validation_accuracy")]:
            self._accuracies["validation_loss"] = self._validation_loss.item() / held

    def on_train_epoch_end(self) -> None:
        loss = self._loss_sum.item() / max(self._batches, 1)
        entry = {"epoch": self.current_epoch + 1, "loss": loss, **self._accuracies}
        entry["seconds"] = round(time.perf_counter() - self._started, 3)
        self.history.append(entry)
        self._stop_if_diverged()
        if self.training_config.settings.select != "last" and self.selected() == entry:
            state = self.network.state_dict()
            self.best = {name: value.detach().cpu().clone() for name, value in state.items()}

    def selected(self) -> dict[str, Any]:
        """The entry of the history whose weights are the run's."""
        if self.training_config.settings.select == "last":
            return self.history[-1]
        losses = [entry["validation_loss"] for entry in self.history]
        if not math.isfinite(losses[0]):  # diverged from the first epoch on
            return self.history[-1]
        return self.history[losses.index(min(x for x in losses if math.isfinite(x)))]

    def _stop_if_diverged(self) -> None:
        """Divergence is a result: nothing is gained by going on (nor after a resume)."""
        if self.history and not math.isfinite(self.history[-1]["loss"]):
            self.trainer.should_stop = True

    def configure_optimizers(self) -> Any:
        components = self.training_config.components
        optimizer = components["optimizer"].build(self._groups(components["optimizer"].target))
        scheduler = components["schedule"].build().scheduler(optimizer)
        return optimizer if scheduler is None else ([optimizer], [scheduler])

    def _groups(self, optimizer: Any) -> Iterable[Any]:
        """What an optimiser is given: the parameters, or where it tells new layers from those that
        pretrained weights or a parent run have set, a group of each."""
        if not getattr(optimizer, "tells_new", False):
            return self.parameters()
        named, inherited = dict(self.network.named_parameters()), self.network.inherited
        old = [p for name, p in named.items() if name in inherited]
        new = [p for name, p in named.items() if name not in inherited]
        return [{"params": old, "new": False}, {"params": new, "new": True}]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"] = self.history
        if self.best is not None:
            checkpoint["best"] = self.best

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = list(checkpoint["history"])
        self.best = checkpoint.get("best")


@torch.inference_mode()
def embed(network: Network, everything: Everything, precision: str) -> Embeddings:
    """Embed all training and test images, in evaluation mode and the training's precision."""
    network.eval()
    device = next(network.parameters()).device

    def run(batches: Iterable[Tensor]) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            return torch.cat([network(images.to(device)).cpu() for images in batches])

    train, train_labels, train_values = everything["train"]
    test, test_labels, test_values = everything["test"]
    return Embeddings(run(train), train_labels, run(test), test_labels, train_values, test_values)
