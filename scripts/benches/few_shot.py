"""New classes from saved embeddings, beside a pass over the images for each setting."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F

from benches.loops import RESNET
from benches.measure import Variants
from benches.steps import training
from hypersphere.config import Training, compose, split_config
from hypersphere.data.splits import Split, support
from hypersphere.evaluation import random_classes
from hypersphere.evaluation.embeddings import Embeddings
from hypersphere.evaluation.fewshot import FewShot, evaluate
from hypersphere.heads import NormalizedSoftmax, class_means
from hypersphere.seeds import generator
from hypersphere.training.images import CHUNK
from hypersphere.training.learner import Learner


def draws_of_classes() -> Variants:
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

    embed = passing(training("bf16"), (1, 28), len(test_y))

    def passes() -> int:
        embed()
        one(30, 0)
        return 1

    return {"a pass over the images each": passes, "saved embeddings, a loop": loop,
            "saved embeddings, one call": one_call}  # fmt: skip


def few_shot_settings(dim: int) -> Variants:
    """450 settings: a pass over the images each, a loop over saved embeddings with one matrix
    product per setting, and one call per number of novel classes. Random embeddings. The pass is
    one of ResNet-32 in float32 (of a tenth of the images, which stands for them all), and one of a
    network that flatters that style (VGG with 2 blocks, 28 x 28, bfloat16). Nothing is timed unless
    the calls give the loop's accuracies, to 1e-6, for a draw of every size and number of shots."""
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
    found = {size: call(size) for size in sizes}
    away = max(
        abs(found[size].values[name][i, 0] - value)
        for size in sizes
        for i, n in enumerate(shots)
        for name, value in zip(names, one(size, n, 0), strict=True)
    )
    if away > 1e-6:
        raise SystemExit(f"the call and the loop differ by {away}")
    part = 0.1
    resnet = split_config(compose([*RESNET[0], "precision=fp32"]))[0]
    slow_pass = passing(resnet, RESNET[1], int(part * len(test)))
    fast_pass = passing(training("bf16"), (1, 28), len(test))

    def slow() -> float:
        slow_pass()
        return part

    def fast() -> int:
        fast_pass()
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

    return {
        "a pass of ResNet-32 each": slow,
        "a pass of VGG with 2 blocks each": fast,
        "saved embeddings, a loop": loop,
        "saved embeddings, one call per size": calls,
    }


def passing(training: Training, shape: tuple[int, int], number: int) -> Callable[[], None]:
    """What embeds so many random images of `shape` (channels, pixels), in the run's precision."""
    channels, size = shape
    images = torch.randint(0, 256, (number, channels, size, size), dtype=torch.uint8)
    learner = Learner(training)
    network = learner.network.eval()

    def run() -> None:
        with torch.no_grad(), learner.autocast():
            for some in images.split(CHUNK):
                network(some)

    return run
