"""Optimisers and learning-rate schedules with their ranges checked before anything trains."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

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


class Constant:
    """`epochs` epochs at the optimiser's learning rate."""

    revision = 1

    def __init__(self, *, epochs: Annotated[int, Field(gt=0)]) -> None:
        self.epochs = epochs

    def scheduler(self, optimizer: torch.optim.Optimizer) -> None:
        """No learning-rate scheduler."""
        return None


class MultiStep:
    """`epochs` epochs; the learning rate is multiplied by `gamma` after each of `milestones`."""

    revision = 1

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
