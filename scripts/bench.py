#!/usr/bin/env python
"""Speed figures as ratios, variants taking turns in one run on random pixels; one thread.

python scripts/bench.py [--rounds 5]

Absolute rates belong to the machine and the moment; the ratios are what to quote.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import torchvision
from torch.utils.data import DataLoader, TensorDataset

from hypersphere import provenance
from hypersphere.config import compose, split_config
from hypersphere.training.images import EpochBatches
from hypersphere.training.module import TrainingModule

BATCH = 32


class PilImages(torch.utils.data.Dataset):
    """The published style: one PIL image at a time, ToTensor, collated by a DataLoader."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.images, self.labels = images[:, 0].numpy(), labels.tolist()
        self.transform = torchvision.transforms.ToTensor()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = torchvision.transforms.functional.to_pil_image(self.images[index])
        return self.transform(image), self.labels[index]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    machine = provenance.hardware("cpu")
    print(f"{machine['processor']}, AMX: {'yes' if machine['amx'] else 'no'}, one thread")
    images = torch.randint(0, 256, (3200, 1, 28, 28), dtype=torch.uint8)
    labels = torch.arange(3200) % 8
    report("data stage, 28 x 28, batch 32", data_stage(images, labels), rounds)
    report("training step, VGG with 2 blocks, batch 32", steps(images, labels), rounds)


def data_stage(images: torch.Tensor, labels: torch.Tensor) -> dict[str, Callable[[], int]]:
    """One pass over the images, as each style feeds a network."""
    module = TrainingModule(training("bf16"))

    def published() -> int:
        return sum(len(y) for _, y in DataLoader(PilImages(images, labels), BATCH, shuffle=True))

    def tensors() -> int:
        return sum(
            len(y) for _, y in DataLoader(TensorDataset(images, labels), BATCH, shuffle=True)
        )

    def ours() -> int:
        batches = EpochBatches(training("bf16"), images, labels, epoch=0)
        return sum(len(module.network.to_input(x)) for x, _ in batches)

    return {"PIL, DataLoader": published, "tensors, DataLoader": tensors, "in memory": ours}


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
    print(f"\n{title}\n{'':<24}{'img/s min':>12}{'median':>12}{'max':>12}{'ratio':>8}")
    first = np.array(next(iter(rates.values())))
    for name, found in rates.items():
        ratio = statistics.median(np.array(found) / first)
        low, mid, high = min(found), statistics.median(found), max(found)
        print(f"{name:<24}{low:>12,.0f}{mid:>12,.0f}{high:>12,.0f}{ratio:>8.1f}")


if __name__ == "__main__":
    main()
