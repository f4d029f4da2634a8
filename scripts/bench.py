#!/usr/bin/env python
"""Speed figures as ratios, variants taking turns in one run.

python scripts/bench.py [--rounds 5] [--only WORDS]

Absolute rates belong to the machine and the moment; the ratios are what to quote. What was measured
goes into results/bench/<processor>.json, line by line; lines not asked for stay as they were.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import transforms as v1

from hypersphere import paths, prototypes, provenance
from hypersphere.config import compose, split_config
from hypersphere.data.listing import available
from hypersphere.data.load import load
from hypersphere.data.splits import Split, support
from hypersphere.data.transforms import ToInput
from hypersphere.evaluation import random_classes
from hypersphere.evaluation.embeddings import Embeddings
from hypersphere.evaluation.fewshot import FewShot, evaluate
from hypersphere.files import write_text
from hypersphere.heads import DeepNCM, Head, NormalizedSoftmax, Prototypes, class_means
from hypersphere.prototypes import Separation, best_bound, separation
from hypersphere.seeds import generator
from hypersphere.training.images import EpochBatches
from hypersphere.training.learner import Learner

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
    parser.add_argument("--only", default="", help="lines whose title has these words")
    options = parser.parse_args()
    machine = provenance.hardware("cpu")
    bench = Bench(options.rounds, options.only, machine)
    amx = "yes" if machine["amx"] else "no"
    print(f"{machine['processor']}, {machine['cores']} cores, AMX: {amx}")
    torch.set_num_threads(1)  # as in a packed run: the published style has its workers beside that
    images, labels, source = cifar()
    bench.line(
        f"data stage, CIFAR-10 ({source}), crop + flip + normalise, batch 128",
        lambda: data_stage(images, labels, CIFAR, 128),
    )
    images = torch.randint(0, 256, (3200, 1, 28, 28), dtype=torch.uint8)
    labels = torch.arange(3200) % 8
    bench.line(
        "data stage, 28 x 28, to [0, 1], batch 32",
        lambda: data_stage(images, labels, ["paper=nsl/paper"], BATCH, workers=0),
    )
    bench.line("training step, VGG with 2 blocks, batch 32, 1 core", lambda: steps(images, labels))
    bench.line("loss, gradient and update alone, 128 features of 64", heads, "steps/s")
    bench.line("training step, ResNet-32, batch 128, 1 core", networks)
    bench.line(
        "new classes, 28 seen of 182, 30 draws of 7 sizes, joint balanced accuracy",
        draws_of_classes,
        "draws/s",
    )
    for dim in (64, 512):
        bench.line(
            f"few-shot in {dim} dimensions: 3 sizes x 5 shots x 30 draws, 10,000 queries",
            lambda dim=dim: few_shot_settings(dim),
            "settings/s",
        )
    for dim in (3, 10, 25, 100):
        bench.line(
            f"prototypes, 100 classes in {dim} dimensions",
            lambda dim=dim: {
                name: lambda place=place: bool(place()) for name, place in placements(dim).items()
            },
            "placed/s",
            lambda dim=dim: largest_cosines(dim),
        )
    for classes in (100, 200):
        bench.line(
            f"privileged loss and gradient, {classes} classes, 50 dimensions",
            lambda classes=classes: triplets(classes),
            "1/s",
        )


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
        module = Learner(training(precision))
        optimizer = module.optimizers()[0]

        def run() -> int:
            for i in range(10):
                part = slice(i * BATCH, (i + 1) * BATCH)
                module.step(optimizer, images[part], labels[part])
            return 10 * BATCH

        return run

    return {"float32": stepper("fp32"), "bfloat16": stepper("bf16")}


def heads() -> dict[str, Callable[[], int]]:
    """Fixed prototypes beside running class means, on the same features of 100 classes."""
    g = torch.Generator().manual_seed(0)
    features = torch.randn(128, 64, generator=g).requires_grad_()
    labels = torch.randint(100, (128,), generator=g)

    def stepper(head: Head) -> Callable[[], int]:
        def run() -> int:
            for _ in range(200):
                torch.autograd.grad(head.loss(features, labels), features)
            return 200

        return run

    fixed = Prototypes(64, 100, placement="published", placement_seed=0, steps=0, reduction="sum")
    return {"HPN": stepper(fixed)} | {
        f"Deep NCM, {means}": stepper(DeepNCM(64, 100, means=means, decay=0.95, every=781))
        for means in ("online", "decay", "condensation")
    }


def networks() -> dict[str, Callable[[], int]]:
    """Two training steps of the same network with each head: forward, backward, SGD."""
    images = torch.randint(0, 256, (128, 3, 32, 32), dtype=torch.uint8)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(128) % 100

    def stepper(*words: str) -> Callable[[], int]:
        module = Learner(split_config(compose(["paper=hpn/paper", *words]))[0])
        optimizer = module.optimizers()[0]

        def run() -> int:
            for _ in range(2):
                module.step(optimizer, images, labels)
            return 2 * len(images)

        return run

    return {
        "HPN, 100 dimensions": stepper("backbone.dim=100", "head.steps=0"),
        "Deep NCM, 64 features": stepper("head=deep_ncm", "backbone.dim=null"),
    }


def draws_of_classes() -> dict[str, Callable[[], int]]:
    """210 settings of figures 4-6: a pass over the images each, a loop over saved embeddings, and
    one call. Random embeddings of as many classes as there are species; the network and images of
    the first are small (VGG with 2 blocks, 28 x 28), so that it flatters that style."""
    classes, dim, sizes, draws = 182, 256, [5, 10, 20, 30, 40, 50, 60], 30
    g = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, dim, generator=g)
    train_y, test_y = torch.arange(25 * classes) % classes, torch.arange(10 * classes) % classes

    def around(labels: torch.Tensor) -> torch.Tensor:
        return centres[labels] + 2 * torch.randn(len(labels), dim, generator=g)

    embeddings = Embeddings(around(train_y), train_y, around(test_y), test_y)
    split = Split(tuple(range(28)), tuple(range(28, classes)))
    head = NormalizedSoftmax(dim, 28, scale=16.0).requires_grad_(False)
    seen = torch.tensor(split.seen)

    def one(size: int, draw: int) -> float:
        order = generator("novel classes", 0, draw).permutation(len(split.unseen))[:size]
        drawn = torch.tensor(split.unseen)[torch.from_numpy(order)]
        trained = head.trained(embeddings.train, train_y, seen, True)
        inferred = head.infer(embeddings.train, train_y, drawn, True)
        among = torch.cat([seen, drawn])
        keep = torch.isin(test_y, among)
        scores = head.scores(embeddings.test[keep], torch.cat([trained, inferred]))
        right = among[scores.argmax(1)] == test_y[keep]
        return sum(right[test_y[keep] == c].double().mean().item() for c in among) / len(among)

    def one_call() -> int:
        random_classes(head, embeddings, split, 0, sizes=sizes, totals=[], draws=draws)
        return len(sizes) * draws

    def loop() -> int:
        for size in sizes:
            one(size, 0)  # a draw of each size stands for its 30
        return len(sizes)

    images = torch.randint(0, 256, (len(test_y), 1, 28, 28), dtype=torch.uint8)
    network = Learner(training("bf16")).network.eval()

    def passes() -> int:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            for part in images.split(500):
                network(part)
        one(30, 0)
        return 1

    return {"a pass over the images each": passes, "saved embeddings, a loop": loop,
            "saved embeddings, one call": one_call}  # fmt: skip


def few_shot_settings(dim: int) -> dict[str, Callable[[], int]]:
    """450 settings: a pass over the images each, a loop over saved embeddings with one matrix
    product per setting, and one call per number of novel classes. Random embeddings; the network
    and images of the first are small (VGG with 2 blocks, 28 x 28), which flatters that style."""
    classes, shots, sizes, draws = 200, [1, 2, 5, 10, 20], [25, 50, 100], 30
    g = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, dim, generator=g)
    train_y, test_y = torch.arange(40 * classes) % classes, torch.arange(10_000) % classes
    train, test = (
        centres[y] + 0.23 * dim**0.5 * torch.randn(len(y), dim, generator=g)
        for y in (train_y, test_y)
    )  # as hard as birds: 70 to 85 % of the queries are right among all 200 classes
    given = {"embeddings": train, "labels": train_y, "test": test, "test_labels": test_y}
    unit, unit_test = F.normalize(train, dim=1), F.normalize(test, dim=1)
    every = torch.arange(classes)
    means = F.normalize(class_means(unit, train_y, every), dim=1)

    def one(size: int, n: int, draw: int) -> tuple[float, float, float, float]:
        base = classes - size
        novel = range(base, classes)
        chosen = torch.from_numpy(support(train_y.numpy(), novel, n, 0, draw))
        vectors = class_means(unit[chosen], train_y[chosen], every[base:])
        scores = unit_test @ torch.cat([means[:base], F.normalize(vectors, dim=1)]).T
        right = scores.argmax(1) == test_y
        of_novel = test_y >= base
        alone = scores[of_novel, base:].argmax(1) + base == test_y[of_novel]
        parts = (right, right[~of_novel], right[of_novel], alone)
        return tuple(part.double().mean().item() for part in parts)

    def call(size: int) -> FewShot:
        base = classes - size
        return evaluate(**given, base=range(base), novel=range(base, classes), shots=shots,
                        draws=draws)  # fmt: skip

    names = ("joint/all", "joint/base", "joint/novel", "disjoint/novel")
    found = call(50)
    away = max(
        abs(found.values[name][i, 0] - value)
        for i, n in enumerate(shots)
        for name, value in zip(names, one(50, n, 0), strict=True)
    )
    if away > 1e-6:
        raise SystemExit(f"the call and the loop differ by {away}")
    images = torch.randint(0, 256, (len(test), 1, 28, 28), dtype=torch.uint8)
    network = Learner(training("bf16")).network.eval()

    def passes() -> int:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            for part in images.split(500):
                network(part)
        one(50, 5, 0)
        return 1

    def loop() -> int:
        for size in sizes:  # a draw of each stands for its 30
            for n in shots:
                one(size, n, 0)
        return len(sizes) * len(shots)

    def calls() -> int:
        for size in sizes:
            call(size)
        return len(sizes) * len(shots) * draws

    return {"a pass over the images each": passes, "saved embeddings, a loop": loop,
            "saved embeddings, one call per size": calls}  # fmt: skip


def placements(dim: int) -> dict[str, Callable[[], Separation]]:
    """The published procedure beside the search (or the closed form)."""
    return {
        "published, 1,000 steps": lambda: separation(prototypes.published(100, dim)),
        "optimal": lambda: separation(prototypes.optimal(100, dim)),
    }


def largest_cosines(dim: int) -> dict[str, float]:
    """What each placement comes to, and the bound that none falls below."""
    found = {name: place().largest_cosine for name, place in placements(dim).items()}
    return found | {"bound": best_bound(100, dim)[0]}


def triplets(classes: int) -> dict[str, Callable[[], int]]:
    """Eq. 6 over all triplets (970,200 of 100 classes): as a list, and as sums of powers."""
    g = torch.Generator().manual_seed(0)
    words = F.normalize(torch.randn(classes, 300, generator=g), dim=1)
    points = F.normalize(torch.randn(classes, 50, generator=g), dim=1).requires_grad_()
    similar, ranking = words @ words.T, prototypes.RankingLoss(words)
    i, j, k = torch.cartesian_prod(*[torch.arange(classes)] * 3).T
    keep = (i != j) & (j != k) & (i != k)
    i, j, k = i[keep], j[keep], k[keep]
    truth = (similar[i, j] >= similar[i, k]).float()

    def listed() -> int:
        cosines = points @ points.T
        loss = F.binary_cross_entropy_with_logits(cosines[i, j] - cosines[i, k], truth)
        torch.autograd.grad(loss, points)
        return 1

    def moments() -> int:
        for _ in range(10):
            torch.autograd.grad(ranking(points @ points.T), points)
        return 10

    return {"a list of triplets": listed, "sums of powers": moments}


def training(precision: str):  # noqa: ANN201  (a checked Training)
    return split_config(compose(["paper=nsl/paper", f"precision={precision}"]))[0]


class Bench:
    """Measures lines, prints each and keeps it in the file of this processor."""

    def __init__(self, rounds: int, only: str, machine: dict[str, Any]) -> None:
        self.rounds, self.only, self.machine = rounds, only, machine
        name = re.sub(r"[^a-z0-9]+", "-", machine["processor"].lower()).strip("-")
        self.file = paths.results_dir() / "bench" / f"{name}.json"

    def line(
        self,
        title: str,
        variants: Callable[[], dict[str, Callable[[], int]]],
        unit: str = "img/s",
        quality: Callable[[], dict[str, float]] = dict,
    ) -> None:
        """Take turns, then print what was done per second and the ratio to the first variant.

        quality: numbers of what came out (largest cosines, say), by name.
        """
        if self.only not in title:
            return
        work = variants()
        rates: dict[str, list[float]] = {name: [] for name in work}
        for turn in range(self.rounds + 1):  # the first round warms up
            for name, once in work.items():
                started = time.perf_counter()
                done = once()
                if turn:
                    rates[name].append(done / (time.perf_counter() - started))
        print(f"\n{title}\n{'':<36}{f'{unit} min':>12}{'median':>12}{'max':>12}{'ratio':>8}")
        first, kept = np.array(next(iter(rates.values()))), {}
        for name, found in rates.items():
            ratio = statistics.median(np.array(found) / first)
            low, mid, high = min(found), statistics.median(found), max(found)
            print(f"{name:<36}{low:>12,.0f}{mid:>12,.0f}{high:>12,.0f}{ratio:>8.2f}", flush=True)
            kept[name] = {"min": low, "median": mid, "max": high, "ratio": ratio}
        came_out = quality()
        if came_out:
            print(", ".join(f"{name} {number:.4f}" for name, number in came_out.items()))
        self._keep(
            title, {"unit": unit, "rounds": self.rounds, "variants": kept, "quality": came_out}
        )

    def _keep(self, title: str, found: dict[str, Any]) -> None:
        known = json.loads(self.file.read_text()) if self.file.exists() else {"lines": {}}
        known |= {"machine": self.machine, "versions": provenance.versions()}
        # What is true of the moment goes with the line: how busy the machine was, and by what code.
        found |= {"load": round(os.getloadavg()[0], 1), "commit": provenance.git()["commit"]}
        known["lines"][title] = found
        write_text(self.file, json.dumps(known, indent=2) + "\n")


if __name__ == "__main__":
    main()
