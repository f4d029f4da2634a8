#!/usr/bin/env python
"""Speed figures as ratios, variants taking turns in one run.

python scripts/bench.py [--rounds 5] [--only WORDS] [--scale]

Absolute rates belong to the machine and the moment; the ratios are what to quote. What was measured
goes into results/bench/<processor>.json, line by line; lines not asked for stay as they were.
"""

from __future__ import annotations

import argparse

import torch
from benches import data, few_shot, loops, many_runs, pairs, placement, scale, startup, steps
from benches.measure import Bench

from hypersphere import provenance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="lines whose title has these words")
    parser.add_argument("--scale", action="store_true", help="the largest sizes of 'scale:' too")
    options = parser.parse_args()
    machine = provenance.hardware("cpu")
    bench = Bench(options.rounds, options.only, machine)
    amx = "yes" if machine["amx"] else "no"
    print(f"{machine['processor']}, {machine['cores']} cores, AMX: {amx}")
    torch.set_num_threads(1)  # as in a packed run: the published style has its workers beside that
    line = bench.line
    images, labels, source = data.cifar()
    line(
        f"data stage, CIFAR-10 ({source}), crop + flip + normalise, batch 128",
        lambda: data.data_stage(images, labels, data.CIFAR, 128),
    )
    small = torch.randint(0, 256, (3200, 1, 28, 28), dtype=torch.uint8)
    of_small = torch.arange(3200) % 8
    line(
        "data stage, 28 x 28, to [0, 1], batch 32",
        lambda: data.data_stage(small, of_small, ["paper=nsl/paper"], steps.BATCH, workers=0),
    )
    line("whole training loop, ResNet-32, batch 128", lambda: loops.whole_loop(loops.RESNET))
    line("whole training loop, VGG with 2 blocks, 28 x 28", lambda: loops.whole_loop(loops.VGG))
    line("what drives a step, 8 x 8 images, 1 core", loops.lightning)
    line("training step, VGG with 2 blocks, batch 32, 1 core", lambda: steps.steps(small, of_small))
    line("loss, gradient and update alone, 128 features of 64", steps.heads, "steps/s")
    line("training step, ResNet-32, batch 128, 1 core", steps.networks)
    line("training step, EfficientNet-Lite0, 96 pixels, batch 50, 1 core", steps.depthwise)
    for batch in (32, 128):
        title = f"loss and gradient, batch {batch}, 64 dimensions, all"
        line(f"{title} triplets", lambda batch=batch: pairs.triplet(batch), "1/s")
        line(f"{title} pairs", lambda batch=batch: pairs.contrastive(batch), "1/s")
    line(
        "new classes, 28 seen of 182, 30 draws of 7 sizes, joint balanced accuracy",
        few_shot.draws_of_classes,
        "draws/s",
    )
    for dim in (64, 512):
        line(
            f"few-shot in {dim} dimensions: 3 sizes x 5 shots x 30 draws, 10,000 queries",
            lambda dim=dim: few_shot.few_shot_settings(dim),
            "settings/s",
        )
    for classes, dim in ((100, 3), (100, 5), (100, 10), (100, 25), (100, 100), (1000, 100)):
        line(
            f"prototypes, {classes:,} classes in {dim} dimensions",
            lambda at=(classes, dim): placement.placed(*at),
            "placed/s",
            lambda at=(classes, dim): placement.largest_cosines(*at),
        )
    for classes in (100, 200):
        line(
            f"privileged loss and gradient, {classes} classes, 50 dimensions",
            lambda classes=classes: placement.triplets(classes),
            "1/s",
        )
    line("start-up, a process each", startup.startup, "1/s")
    bench.note("status of a plan of 10,000 runs", lambda: many_runs.measure(10_000))
    scale.lines(bench, options.scale)


if __name__ == "__main__":
    main()
