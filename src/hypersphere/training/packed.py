"""One training run in steps that leave room for others: the driver for small images on a GPU, where
several runs are in flight at once (together.py)."""

from __future__ import annotations

import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from hypersphere.files import write_atomically
from hypersphere.training.images import SmallImages
from hypersphere.training.learner import Learner
from hypersphere.training.resume import RESUME, Say, log_epoch, usable
from hypersphere.training.steps import Ready, Steps

Result = TypeVar("Result")

RESUME_SHARE = 0.05  # of the time may go into resume points: an epoch may take a tenth of a second


def on_device() -> bool:
    """Whether there is a device on which runs are packed."""
    return torch.cuda.is_available()


def device_for(learner: Learner, folder: Path, say: Say) -> torch.device | None:
    """Where this driver trains the run, or None: then it is for Lightning.

    It takes what lies in memory, on a CUDA device; on a CPU only what it has begun itself, since a
    resume point of its own holds nothing of Lightning's loops. Noise layers (dropout) draw from a
    state that all runs in a process share, so that their numbers would depend on who else is in
    flight.
    """
    noisy = any(isinstance(m, nn.modules.dropout._DropoutNd) for m in learner.network.modules())
    if not learner.training.dataset.in_memory or noisy:
        return None
    if on_device():
        return torch.device("cuda", torch.cuda.current_device())
    kept = usable(folder / RESUME, say)
    return torch.device("cpu") if kept is not None and "loops" not in kept else None


def fit(
    learner: Learner, images: SmallImages, folder: Path, say: Say, device: torch.device
) -> Generator[Ready, None, None]:
    """Train to the last epoch of the schedule, going on after a resume point of either driver.

    Yields what tells whether the device has caught up; whoever drives several runs lets others
    queue their steps until then.
    """
    learner.network.to(device)
    images.setup(device)
    optimizer, scheduler = learner.optimizers()
    if (kept := usable(folder / RESUME, say)) is not None:
        weights = {k.removeprefix("network."): v for k, v in kept["state_dict"].items()}
        learner.network.load_state_dict(weights)
        optimizer.load_state_dict(kept["optimizer_states"][0])
        if scheduler is not None:
            scheduler.load_state_dict(kept["lr_schedulers"][0])
        learner.load_state(kept)
    learner.prepare(images.train_labels(), images.train_values())
    steps = Steps(learner, optimizer, images, device, say)
    epochs = learner.schedule.epochs
    saved, cost = time.monotonic(), 0.0  # when, and how long it took
    for epoch in range(len(learner.history), epochs):
        if learner.diverged:
            break
        with steps.on_stream():
            learner.begin_epoch(epoch, optimizer)
        learner.network.train()
        yield from steps.epoch(epoch)
        with steps.on_stream():
            if scheduler is not None:
                scheduler.step()
            _judge(learner, images)
        yield steps.queued()
        with steps.on_stream():
            if learner.network.head.classifies:
                learner.end_judging()
            learner.end_epoch(epoch)
        if cost <= RESUME_SHARE * ((started := time.monotonic()) - saved):
            point = _resume_point(learner, optimizer, scheduler)
            write_atomically(folder / RESUME, lambda path, point=point: torch.save(point, path))
            saved = time.monotonic()
            cost = saved - started
        log_epoch(folder, learner.history[-1], epochs, say)
    learner.network.eval()


def finish(steps: Generator[Ready, None, Result]) -> Result:
    """Go through all steps of one run and return what it returns."""
    try:
        while True:
            ready = next(steps)
            while not ready():
                time.sleep(1e-4)
    except StopIteration as end:
        return end.value


def _judge(learner: Learner, images: SmallImages) -> None:
    if not learner.network.head.classifies:
        return
    learner.network.eval()
    learner.begin_judging()
    for part, chunks in enumerate(images.watched()):
        for batch in chunks:
            learner.judge(*batch, part)


def _resume_point(
    learner: Learner,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None,
) -> dict[str, Any]:
    kept = optimizer.state_dict()
    for group in kept["param_groups"]:
        group["lr"] = float(group["lr"])  # a tensor where steps are captured
    return {
        "state_dict": {f"network.{k}": v for k, v in learner.network.state_dict().items()},
        "optimizer_states": [kept],
        "lr_schedulers": [] if scheduler is None else [scheduler.state_dict()],
        **learner.state(),
    }
