"""Whole training loops: the published style, ours, and several runs at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment
from torch.utils.data import DataLoader

from benches.data import CIFAR, PilImages, cifar, pil_transform
from benches.measure import Variants
from hypersphere import processes
from hypersphere.config import compose, split_config
from hypersphere.training import module
from hypersphere.training.callbacks import quiet
from hypersphere.training.images import EpochBatches
from hypersphere.training.learner import Learner
from hypersphere.training.module import TrainingModule

CORES = 2
# What is trained: overrides, channels and pixels of an image, classes, steps of one turn.
RESNET = (["paper=hpn/paper", *CIFAR, "head.steps=0"], (3, 32), 10, 12)
VGG = (["paper=nsl/paper"], (1, 28), 8, 80)
TINY = (["paper=nsl/quick"], (1, 8), 8, 400)
Work = tuple[list[str], tuple[int, int], int, int]


class Some:
    """As many images as a turn takes; they stand where a run's own images stand."""

    def __init__(self, work: Work, precision: str) -> None:
        words, (channels, size), classes, steps = work
        self.training = split_config(compose([*words, f"precision={precision}"]))[0]
        self.number = steps * self.training.components["batches"].params["size"]
        if channels == 3:
            images, labels, _ = cifar()
            self.images, self.labels = images[: self.number], labels[: self.number]
        else:
            g = torch.Generator().manual_seed(0)
            shape = (self.number, channels, size, size)
            self.images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=g)
            self.labels = torch.arange(self.number) % classes

    def batches(self, epoch: int) -> EpochBatches:
        return EpochBatches(self.training, self.images, self.labels, epoch)

    def train_labels(self) -> torch.Tensor:
        return self.labels

    def train_values(self) -> None:
        return None

    def watched(self) -> list[object]:
        return []


def whole_loop(work: Work) -> Variants:
    """One run on both cores, and two of one thread each, beside the published style: PIL images
    through two workers, float32, channels first, the loss fetched at every step."""
    pool = processes.pool(CORES, _one_thread, work)

    def packed(*, compiled: bool) -> int:
        return sum(pool.map(_packed_turn, [compiled] * CORES))

    return {
        "published style": _published(work),
        "one run, two threads": _plain(work, "bf16", CORES),
        "two runs, one thread each": partial(packed, compiled=False),
        "the same, compiled": partial(packed, compiled=True),
    }


def lightning(work: Work = TINY) -> Variants:
    """A network of 8 x 8 images, where a step is little more than what drives it."""
    return {
        "plain loop": _plain(work, "fp32", 1),
        "Lightning, a step per call": _driven(work, 1),
        f"Lightning, {module.CALL} steps per call": _driven(work, module.CALL),
    }


def _published(work: Work) -> Callable[[], int]:
    some = Some(work, "fp32")
    learner = Learner(some.training)
    network = learner.network.to(memory_format=torch.contiguous_format)
    optimizer = learner.optimizers()[0]
    images = PilImages(some.images, some.labels, pil_transform(some.training, some.images))
    size = some.training.components["batches"].params["size"]

    def run() -> int:
        with _threads(CORES):
            for inputs, labels in DataLoader(images, size, shuffle=True, num_workers=2):
                loss = network.head.loss(network.backbone(inputs), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                loss.item()
        return len(images)

    return run


def _plain(
    work: Work, precision: str, threads: int, *, compiled: bool = False
) -> Callable[[], int]:
    some = Some(work, precision)
    learner = Learner(some.training)
    if compiled:
        learner.compile(print)
    optimizer = learner.optimizers()[0]

    def run() -> int:
        with _threads(threads):
            learner.begin_epoch(0, optimizer)
            for batch in some.batches(0):
                learner.loss_sum += learner.step(optimizer, *batch)
            learner.loss_sum.item()
        return some.number

    return run


def _driven(work: Work, steps_per_call: int) -> Callable[[], int]:
    some = Some(work, "fp32")

    def run() -> int:
        module.CALL, usual = steps_per_call, module.CALL
        try:
            with quiet(), _threads(1):
                trainer = pl.Trainer(
                    accelerator="cpu", devices=1, max_epochs=1, limit_val_batches=0, logger=False,
                    enable_progress_bar=False, enable_model_summary=False,
                    enable_checkpointing=False, plugins=[LightningEnvironment()],
                )  # fmt: skip
                trainer.fit(TrainingModule(Learner(some.training), some))
        finally:
            module.CALL = usual
        return some.number

    return run


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_turns: list[Callable[[], int]]  # of a worker process: as it is, and compiled


def _one_thread(work: Work) -> None:
    global _turns
    torch.set_num_threads(1)
    _turns = [_plain(work, "bf16", 1, compiled=compiled) for compiled in (False, True)]


def _packed_turn(compiled: bool) -> int:
    return _turns[compiled]()
