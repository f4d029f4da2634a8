"""The arithmetic of one training run: its steps, its curve, its best weights. Who drives it (the
Lightning module, the packed driver) and on what is not known here."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hypersphere.config.training import Training
from hypersphere.heads import ValueHead
from hypersphere.precision import autocast
from hypersphere.seeds import derive
from hypersphere.training.compiled import Compiled
from hypersphere.training.network import Network
from hypersphere.training.optimizers import Schedule

# What each part of the images is watched for, in the order in which data modules give them.
WATCHED = ("test_accuracy", "validation_accuracy")
FEW = "test_accuracy_of_few"  # of the test images of classes with few training images


class Learner:
    """A network that learns, and what came of it.

    history: one dict per finished epoch (epoch, loss, test_accuracy and validation_accuracy where
    the head classifies, test_accuracy_of_few where some classes have few images, validation_loss,
    seconds); it travels in the resume point, so a resumed run keeps the curve, and so do the `best`
    weights where the configuration selects by one of these. class_weights: (classes,) or None. few:
    labels of the classes with few images.

    forward: what takes batches to embeddings in training, the network unless it is compiled.

    whole, backward: where several devices share each batch (several.py), what makes the embeddings
    and labels of a share those of the whole batch, and how gradients come to all of them.
    """

    whole: Callable[..., tuple[Tensor, ...]] | None = None
    backward: Callable[[Tensor], None] = staticmethod(Tensor.backward)

    def __init__(self, training: Training) -> None:
        self.training = training
        self.network = Network(training)
        self.forward: Callable[[Tensor], Tensor] = self.network
        self.schedule: Schedule = training.components["schedule"].build()
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Tensor] | None = None
        self.class_weights: Tensor | None = None
        self._accuracies: dict[str, float] = {}
        split = training.split()
        self.few = torch.isin(torch.tensor(split.seen), torch.tensor(split.few)).nonzero().flatten()

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def compile(self, say: Callable[[str], None]) -> None:
        """Take steps compiled from now on."""
        self.forward = Compiled(self.network, say)

    def prepare(self, labels: Tensor, values: Tensor | None) -> None:
        """What rests on all training images: their labels (n,) among the seen classes and, where
        the head learns a number of each image, those values (n,)."""
        head = self.network.head
        if isinstance(head, ValueHead):
            head.prepare(values)
        if self.training.settings.class_weights == "balanced":
            counts = labels.bincount(minlength=head.num_classes)
            self.class_weights = (len(labels) / (len(counts) * counts)).to(self.device)

    def loss(self, images: Tensor, labels: Tensor, *values: Tensor) -> Tensor:
        """Loss of one batch. images: (n, c, h, w) uint8; labels: (n,) among the seen classes;
        values: (n,) where the head learns a number of each image."""
        embeddings = self.forward(images)
        if self.whole is not None:
            embeddings, labels, *values = self.whole(embeddings, labels, *values)
        # Losses stay in float32: bfloat16 cosines would move the few-shot results.
        with torch.autocast(embeddings.device.type, enabled=False):
            weights = None if self.class_weights is None else self.class_weights[labels]
            return self.network.head.loss(embeddings, labels, weights, *values)

    def step(self, optimizer: torch.optim.Optimizer, *batch: Tensor) -> Tensor:
        """One step of `optimizer` on a batch (images, labels, values); its loss, detached."""
        with self.autocast():
            loss = self.loss(*batch)
        optimizer.zero_grad()
        self.backward(loss)  # not under autocast, which would round the loss's own gradient
        optimizer.step()
        return loss.detach()

    def autocast(self) -> AbstractContextManager[object]:
        """The precision of the run's configuration, on the device where the network lies."""
        return autocast(self.device.type, self.training.settings.precision)

    def begin_epoch(self, epoch: int, optimizer: torch.optim.Optimizer) -> None:
        """epoch: 0, 1, ..."""
        self.schedule.adjust(optimizer, self.history)
        # Dropout and the like draw from the global state; seeding it by epoch keeps a resumed
        # training equal to an uninterrupted one.
        torch.manual_seed(derive("training noise", self.training.settings.seed, epoch))
        # Sums stay on the device; one transfer per epoch instead of one per step.
        self.loss_sum = torch.zeros((), device=self.device)
        self.batches = 0
        self._started = time.perf_counter()

    def begin_judging(self) -> None:
        self._correct = torch.zeros(len(WATCHED), device=self.device)
        self._count = [0] * len(WATCHED)
        self._validation_loss = torch.zeros((), device=self.device)
        self._few = torch.zeros(2, device=self.device)  # right, and all

    def judge(self, images: Tensor, labels: Tensor, part: int) -> None:
        """Count a batch of the images that `WATCHED[part]` is about."""
        head = self.network.head
        with torch.no_grad():
            with self.autocast():
                embeddings = self.network(images)
            # In float32, as the losses: bfloat16 logits tie, and the lower label would win.
            embeddings, size = embeddings.float(), head.at_once
            for z, y in zip(embeddings.split(size), labels.split(size), strict=True):
                self._count_right(head.logits(z), y, part)

    def _count_right(self, logits: Tensor, labels: Tensor, part: int) -> None:
        right = logits.argmax(1) == labels
        self._correct[part] += right.sum()
        if len(self.few) and WATCHED[part] == "test_accuracy":
            few = torch.isin(labels, self.few.to(labels))
            self._few += torch.stack([right[few].sum(), few.sum()])
        self._count[part] += len(labels)
        if WATCHED[part] == "validation_accuracy":
            self._validation_loss += F.cross_entropy(logits.float(), labels, reduction="sum")

    def end_judging(self) -> None:
        found = zip(WATCHED, self._correct.tolist(), self._count, strict=True)
        self._accuracies = {name: correct / count for name, correct, count in found if count}
        right, of_few = self._few.tolist()
        if of_few:
            self._accuracies[FEW] = right / of_few
        if held := self._count[WATCHED.index("validation_accuracy")]:
            self._accuracies["validation_loss"] = self._validation_loss.item() / held

    def end_epoch(self, epoch: int) -> None:
        """Add the epoch to the history; keep its weights if they are the best so far."""
        loss = self.loss_sum.item() / max(self.batches, 1)
        entry = {"epoch": epoch + 1, "loss": loss, **self._accuracies}
        if isinstance(self.forward, Compiled) and self.forward.used:
            entry["compiled"] = True
        entry["seconds"] = round(time.perf_counter() - self._started, 3)
        self.history.append(entry)
        if self.training.settings.select != "last" and self.selected() == entry:
            state = self.network.state_dict()
            self.best = {name: value.detach().cpu().clone() for name, value in state.items()}

    @property
    def diverged(self) -> bool:
        """Divergence is a result: nothing is gained by going on (nor after a resume)."""
        return bool(self.history) and not math.isfinite(self.history[-1]["loss"])

    def selected(self) -> dict[str, Any]:
        """The entry of the history whose weights are the run's."""
        select = self.training.settings.select
        if select == "last":
            return self.history[-1]
        if select == "highest_test_accuracy":  # the first of several, as published code keeps it
            return max(self.history, key=lambda entry: entry["test_accuracy"])
        losses = [entry["validation_loss"] for entry in self.history]
        if not math.isfinite(losses[0]):  # diverged from the first epoch on
            return self.history[-1]
        return self.history[losses.index(min(x for x in losses if math.isfinite(x)))]

    def optimizers(
        self,
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler | None]:
        """The configured optimiser of all parameters, and its schedule (stepped once per epoch)."""
        component = self.training.components["optimizer"]
        optimizer = component.build(self._groups(component.target))
        return optimizer, self.schedule.scheduler(optimizer)

    def _groups(self, optimizer: Any) -> Iterable[Any]:
        """What an optimiser is given: the parameters, or where it tells new layers from those that
        pretrained weights or a parent run have set, a group of each."""
        if not getattr(optimizer, "tells_new", False):
            return self.network.parameters()
        named, inherited = dict(self.network.named_parameters()), self.network.inherited
        old = [p for name, p in named.items() if name in inherited]
        new = [p for name, p in named.items() if name not in inherited]
        return [{"params": old, "new": False}, {"params": new, "new": True}]

    def state(self) -> dict[str, Any]:
        """What a resume point keeps beside weights and optimiser."""
        return {"history": self.history} | ({} if self.best is None else {"best": self.best})

    def load_state(self, kept: dict[str, Any]) -> None:
        """Go on after `state`, which may stand among other things."""
        self.history = list(kept["history"])
        self.best = kept.get("best")
