"""Optimisers and learning-rate schedules with their ranges checked before anything trains."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn

NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Momentum = Annotated[float, Field(ge=0, lt=1)]


def adam(
    parameters: Iterable[nn.Parameter],
    *,
    lr: Positive,
    beta1: Momentum,
    beta2: Momentum,
    eps: Positive,
    weight_decay: NonNegative,
) -> torch.optim.Optimizer:
    """Adam (Kingma and Ba 2015); Keras' defaults differ from torch's in eps (1e-7)."""
    return torch.optim.Adam(
        parameters, lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay, fused=True
    )


def sgd(
    parameters: Iterable[nn.Parameter],
    *,
    lr: Positive,
    momentum: Momentum,
    nesterov: bool,
    weight_decay: NonNegative,
) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum; decay applies to every parameter."""
    return torch.optim.SGD(
        parameters, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay
    )


def _nesterov(*, momentum: float, nesterov: bool, **_: object) -> None:
    if nesterov and momentum == 0:
        raise ValueError("nesterov needs a momentum above 0")


sgd.check_together = _nesterov  # type: ignore[attr-defined]


class Schedule:
    """How many epochs, and how the learning rate changes over them."""

    revision = 1
    epochs: int

    def scheduler(
        self, optimizer: torch.optim.Optimizer
    ) -> torch.optim.lr_scheduler.LRScheduler | None:
        """The scheduler, stepped once per epoch, of a rate that depends on the epoch alone."""
        return None

    def adjust(
        self, optimizer: torch.optim.Optimizer, history: Sequence[Mapping[str, Any]]
    ) -> None:
        """Before an epoch: set a rate that depends on how the finished epochs went (`history`, as
        Learner keeps it). By the whole history each time, so that a resumed training has the
        rates of an uninterrupted one."""


class Constant(Schedule):
    """`epochs` epochs at the optimiser's learning rate."""

    def __init__(self, *, epochs: Annotated[int, Field(gt=0)]) -> None:
        self.epochs = epochs


class MultiStep(Schedule):
    """`epochs` epochs; the learning rate is multiplied by `gamma` after each of `milestones`."""

    def __init__(
        self,
        *,
        epochs: Annotated[int, Field(gt=0)],
        milestones: list[Annotated[int, Field(gt=0)]],
        gamma: Annotated[float, Field(gt=0)],
    ) -> None:
        self.epochs, self.milestones, self.gamma = epochs, milestones, gamma

    def scheduler(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        """The scheduler, stepped once per epoch."""
        return torch.optim.lr_scheduler.MultiStepLR(optimizer, self.milestones, self.gamma)


class Plateau(Schedule):
    """`epochs` epochs; the learning rate is multiplied by `factor` when the watched accuracy has
    not risen above its best for more than `patience` epochs in a row, which are then counted anew
    (torch's ReduceLROnPlateau counts so). By `test_accuracy` the test images choose the schedule,
    as some published code has it; `validation_accuracy` needs held-out training images."""

    def __init__(
        self,
        *,
        epochs: Annotated[int, Field(gt=0)],
        watch: Literal["test_accuracy", "validation_accuracy"],
        factor: Annotated[float, Field(gt=0, lt=1)],
        patience: Annotated[int, Field(ge=0)],
    ) -> None:
        self.epochs, self.watch, self.factor, self.patience = epochs, watch, factor, patience

    def adjust(
        self, optimizer: torch.optim.Optimizer, history: Sequence[Mapping[str, Any]]
    ) -> None:
        rate = optimizer.defaults["lr"] * self.factor ** self.falls(
            [e[self.watch] for e in history]
        )
        for group in optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):  # captured steps read it where it lies
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def falls(self, accuracies: Sequence[float]) -> int:
        """How often the rate has fallen after epochs of these accuracies."""
        best, waited, falls = -math.inf, 0, 0
        for accuracy in accuracies:
            waited = 0 if accuracy > best else waited + 1
            best = max(best, accuracy)
            if waited > self.patience:
                falls, waited = falls + 1, 0
        return falls
