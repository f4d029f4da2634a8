#!/usr/bin/env python
"""Speed figures as ratios, variants taking turns in one run.

python scripts/bench.py [--rounds 5]

Absolute rates belong to the machine and the moment; the ratios are what to quote.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import PIL.Image
import torch
from torch.utils.data import DataLoader
from torchvision import transforms as v1

from hypersphere import provenance
from hypersphere.config import compose, split_config
from hypersphere.data.listing import available
from hypersphere.data.load import load
from hypersphere.data.transforms import ToInput
from hypersphere.training.images import EpochBatches
from hypersphere.training.module import TrainingModule

BATCH = 32


class PilImages(torch.utils.data.Dataset):
    """The published style: one PIL image at a time through torchvision's transforms."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, transform: object) -> None:
        pixels = images.permute(0, 2, 3, 1).numpy()
        self.images = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
        self.labels, self.transform = labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(PIL.Image.fromarray(self.images[index])), self.labels[index]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    machine = provenance.hardware("cpu")
    amx = "yes" if machine["amx"] else "no"
    print(f"{machine['processor']}, {machine['cores']} cores, AMX: {amx}")
    torch.set_num_threads(1)  # as in a packed run: the published style has its workers beside that
    images, labels, source = cifar()
    report(
        f"data stage, CIFAR-10 ({source}), crop + flip + normalise, batch 128",
        data_stage(images, labels, CIFAR, 128),
        rounds,
    )
    images = torch.randint(0, 256, (3200, 1, 28, 28), dtype=torch.uint8)
    labels = torch.arange(3200) % 8
    report(
        "data stage, 28 x 28, to [0, 1], batch 32",
        data_stage(images, labels, ["paper=nsl/paper"], BATCH, workers=0),
        rounds,
    )
    report("training step, VGG with 2 blocks, batch 32, 1 core", steps(images, labels), rounds)


CIFAR = [
    "data=cifar10", "data.augmentation={crop_padding: 4, flip: true}", "data.normalize=true",
    "split=all_classes", "batches=shuffled", "batches.size=128", "evaluations=none",
]  # fmt: skip


def cifar() -> tuple[torch.Tensor, torch.Tensor, str]:
    """CIFAR-10's training images where they are at hand, else as many random ones."""
    if available("cifar10") is None:
        data = load("cifar10")
        return data.train_images, data.train_labels, "real images"
    images = torch.randint(0, 256, (50_000, 3, 32, 32), dtype=torch.uint8)
    labels = torch.arange(50_000) % 10
    return images.contiguous(memory_format=torch.channels_last), labels, "random pixels"


def data_stage(
    images: torch.Tensor, labels: torch.Tensor, config: list[str], batch: int, workers: int = 2
) -> dict[str, Callable[[], int]]:
    """One pass over the images, as each style feeds a network: the same augmentations."""
    chosen = split_config(compose(config))[0]
    to_input = ToInput(None, *chosen.data.statistics(chosen.dataset))
    steps: list[object] = [v1.ToTensor()]
    if chosen.data.augmentation:
        padding = chosen.data.augmentation.crop_padding
        steps = [v1.RandomCrop(images.shape[-1], padding), v1.RandomHorizontalFlip(), *steps]
    if chosen.data.normalize:
        steps.append(v1.Normalize(chosen.dataset.mean, chosen.dataset.std))
    pil = PilImages(images, labels, v1.Compose(steps))

    def published() -> int:
        loader = DataLoader(pil, batch, shuffle=True, num_workers=workers)
        return sum(len(y) for _, y in loader)

    def alone() -> int:
        some = torch.utils.data.Subset(pil, range(len(pil) // 4))  # slower: a quarter will do
        return sum(len(y) for _, y in DataLoader(some, batch, shuffle=True))

    def ours() -> int:
        batches = EpochBatches(chosen, images, labels, epoch=0)
        return sum(len(to_input(x)) for x, _ in batches)

    found = {f"PIL, DataLoader with {workers} workers": published} if workers else {}
    return {**found, "PIL, DataLoader without workers": alone, "in memory, one thread": ours}


def steps(images: torch.Tensor, labels: torch.Tensor) -> dict[str, Callable[[], int]]:
    """Ten training steps in each precision: forward, backward, Adam."""

    def stepper(precision: str) -> Callable[[], int]:
        module = TrainingModule(training(precision))
        optimizer = module.configure_optimizers()

        def run() -> int:
            for i in range(10):
                part = slice(i * BATCH, (i + 1) * BATCH)
                with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                    loss = module.step(images[part], labels[part])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            return 10 * BATCH

        return run

    return {"float32": stepper("fp32"), "bfloat16": stepper("bf16")}


def training(precision: str):  # noqa: ANN201  (a checked Training)
    return split_config(compose(["paper=nsl/paper", f"precision={precision}"]))[0]


def report(title: str, variants: dict[str, Callable[[], int]], rounds: int) -> None:
    """Take turns, then print images per second and the ratio to the first variant."""
    rates: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds + 1):  # the first round warms up
        for name, work in variants.items():
            started = time.perf_counter()
            images = work()
            if turn:
                rates[name].append(images / (time.perf_counter() - started))
    print(f"\n{title}\n{'':<36}{'img/s min':>12}{'median':>12}{'max':>12}{'ratio':>8}")
    first = np.array(next(iter(rates.values())))
    for name, found in rates.items():
        ratio = statistics.median(np.array(found) / first)
        low, mid, high = min(found), statistics.median(found), max(found)
        print(f"{name:<36}{low:>12,.0f}{mid:>12,.0f}{high:>12,.0f}{ratio:>8.1f}")


if __name__ == "__main__":
    main()
