"""Optimisers and learning-rate schedules with their ranges checked before anything trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
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


def rmsprop(
    groups: Iterable[dict[str, Any]],
    *,
    lr: Positive,
    momentum: Momentum,
    decay: Annotated[float, Field(gt=0, lt=1)],
    eps: Positive,
    weight_decay: NonNegative,
    new_layers: Positive,
) -> torch.optim.Optimizer:
    """RMSProp as TensorFlow has it: eps stands inside the root, mean squares start at 1, and the
    learning rate is inside the momentum. decay: of the mean squares. new_layers: times `lr` for the
    layers that start at random, with no pretrained weights and no parent run's (Qi et al. 2018,
    section 4.1: 10)."""
    chosen = [
        {"params": group["params"], "lr": lr * (new_layers if group["new"] else 1)}
        for group in groups
        if group["params"]
    ]
    return RMSprop(chosen, lr, momentum, decay, eps, weight_decay)


rmsprop.tells_new = True  # type: ignore[attr-defined]


class RMSprop(torch.optim.Optimizer):
    """TensorFlow's RMSProp. torch's adds eps outside the root and starts mean squares at 0: with
    TF-Slim's epsilon of 1 the first steps would be others.

    s <- decay s + (1 - decay) g^2;  m <- momentum m + lr g / sqrt(s + eps);  w <- w - m.
    """

    def __init__(
        self, params: Any, lr: float, momentum: float, decay: float, eps: float, weight_decay: float
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "decay": decay, "eps": eps}
        super().__init__(params, defaults | {"weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], torch.Tensor] | None = None) -> torch.Tensor | None:
        """One step; with `closure`, the loss that it gives."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            learned = [p for p in group["params"] if p.grad is not None]
            if not learned:
                continue
            for p in learned:
                if not self.state[p]:
                    self.state[p] = {"square": torch.ones_like(p), "step": torch.zeros_like(p)}
            squares = [self.state[p]["square"] for p in learned]
            steps = [self.state[p]["step"] for p in learned]
            gradients = [p.grad for p in learned]
            if group["weight_decay"]:
                gradients = torch._foreach_add(gradients, learned, alpha=group["weight_decay"])
            torch._foreach_mul_(squares, group["decay"])
            torch._foreach_addcmul_(squares, gradients, gradients, 1 - group["decay"])
            roots = torch._foreach_add(squares, group["eps"])
            torch._foreach_sqrt_(roots)
            torch._foreach_mul_(steps, group["momentum"])
            if isinstance(rate := group["lr"], torch.Tensor):  # where steps are captured
                renewed = torch._foreach_div(gradients, roots)
                torch._foreach_mul_(renewed, rate)
                torch._foreach_add_(steps, renewed)
            else:
                torch._foreach_addcdiv_(steps, gradients, roots, rate)
            torch._foreach_sub_(learned, steps)
        return loss


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


class Exponential(Schedule):
    """`epochs` epochs; the learning rate is multiplied by `gamma` after every `every` epochs, in
    steps (Qi et al. 2018, section 4.1: 0.94 every four)."""

    def __init__(
        self,
        *,
        epochs: Annotated[int, Field(gt=0)],
        every: Annotated[int, Field(gt=0)],
        gamma: Annotated[float, Field(gt=0, le=1)],
    ) -> None:
        self.epochs, self.every, self.gamma = epochs, every, gamma

    def scheduler(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        """The scheduler, stepped once per epoch."""
        return torch.optim.lr_scheduler.StepLR(optimizer, self.every, self.gamma)


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
        fallen = self.factor ** self.falls([entry[self.watch] for entry in history])
        for group in optimizer.param_groups:
            rate = group.setdefault("initial_lr", float(group["lr"])) * fallen
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
