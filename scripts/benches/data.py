"""Feeding a network: images as the published style loads them, and as ours are."""

from __future__ import annotations

import PIL.Image
import torch
from torch.utils.data import DataLoader
from torchvision import transforms as v1

from benches.measure import Variants
from hypersphere.config import Training, compose, split_config
from hypersphere.data.listing import available
from hypersphere.data.load import load
from hypersphere.data.transforms import ToInput
from hypersphere.training.images import EpochBatches

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


def data_stage(
    images: torch.Tensor, labels: torch.Tensor, config: list[str], batch: int, workers: int = 2
) -> Variants:
    """One pass over the images, as each style feeds a network: the same augmentations."""
    chosen = split_config(compose(config))[0]
    to_input = ToInput(None, *chosen.data.statistics(chosen.dataset))
    pil = PilImages(images, labels, pil_transform(chosen, images))

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


def pil_transform(training: Training, images: torch.Tensor) -> v1.Compose:
    """What `training` does to its images, as torchvision does it to one PIL image."""
    data = training.data
    steps: list[object] = [v1.ToTensor()]
    if data.augmentation:
        padding = data.augmentation.crop_padding
        steps = [v1.RandomCrop(images.shape[-1], padding), v1.RandomHorizontalFlip(), *steps]
    if data.normalize:
        steps.append(v1.Normalize(training.dataset.mean, training.dataset.std))
    return v1.Compose(steps)
