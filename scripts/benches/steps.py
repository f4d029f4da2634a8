"""One training step, and its parts."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import patch

import torch

from benches.measure import Variants
from hypersphere import precision
from hypersphere.backbones.depthwise import Depthwise
from hypersphere.config import Training, compose, split_config
from hypersphere.heads import DeepNCM, Head, Prototypes
from hypersphere.training.learner import Learner

BATCH = 32


def steps(images: torch.Tensor, labels: torch.Tensor) -> Variants:
    """Ten training steps in each precision: forward, backward, Adam. In bfloat16 by torch's own
    kernels, and by those of float32 with rounding, whichever of them this processor is given."""

    def stepper(name: str, has_bfloat16: bool = True) -> Callable[[], int]:
        module = Learner(training(name))
        optimizer = module.optimizers()[0]

        def run() -> int:
            with patch.object(precision, "has_bfloat16", lambda: has_bfloat16):
                for i in range(10):
                    part = slice(i * BATCH, (i + 1) * BATCH)
                    module.step(optimizer, images[part], labels[part])
            return 10 * BATCH

        return run

    return {
        "float32": stepper("fp32"),
        "bfloat16, torch's kernels": stepper("bf16"),
        "bfloat16, float32's kernels and rounding": stepper("bf16", has_bfloat16=False),
    }


def heads() -> Variants:
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


def networks() -> Variants:
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


def depthwise() -> Variants:
    """A training step of EfficientNet-Lite0 on crops of 96 pixels: float32, and bfloat16 with and
    without its convolutions of each channel by itself, whose gradients take long in bfloat16."""
    images = torch.randint(0, 256, (50, 3, 96, 96), dtype=torch.uint8)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(50) % 25

    def stepper(name: str, forward: Callable[..., torch.Tensor]) -> Callable[[], int]:
        words = ["paper=imprinting/small", "backbone.weights=none", "backbone.sha256=''"]
        learner = Learner(split_config(compose([*words, f"precision={name}"]))[0])
        optimizer = learner.optimizers()[0]

        def run() -> int:
            with patch.object(Depthwise, "forward", forward):
                learner.step(optimizer, images, labels)
            return len(images)

        return run

    return {
        "float32": stepper("fp32", Depthwise.forward),
        "bfloat16 throughout": stepper("bf16", torch.nn.Conv2d.forward),
        "bfloat16, these in float32": stepper("bf16", Depthwise.forward),
    }


def training(name: str) -> Training:
    return split_config(compose(["paper=nsl/paper", f"precision={name}"]))[0]
