"""torchvision's classification networks with features or an embedding instead of classes."""

from __future__ import annotations

from types import ModuleType
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

Positive = Annotated[int, Field(gt=0)]


class TorchvisionResNet(nn.Module):
    """A ResNet (He et al. 2016) as torchvision builds and initialises it, from scratch: features
    (n, dim) after the global average pooling, 512 of ResNet-18 and -34, 2048 of ResNet-50.

    dim: of a linear layer with bias from those features, starting as torch has it; null for none.
    channels, size: of the input images. Raises ValueError for images that are not of 3 channels or
    smaller than 32 pixels, which its five halvings would use up.
    """

    revision = 1

    def __init__(
        self,
        channels: int,
        size: int,
        *,
        architecture: Literal["resnet18", "resnet34", "resnet50"],
        dim: Positive | None = None,
    ) -> None:
        super().__init__()
        check_images(architecture, channels, size)
        self.network = models().get_model(architecture, weights=None)
        features = self.network.fc.in_features
        self.network.fc = nn.Identity() if dim is None else nn.Linear(features, dim)
        self.dim = dim or features

    def forward(self, images: Tensor) -> Tensor:
        """images: (n, 3, size, size) -> features (n, dim), not normalised."""
        return self.network(images)


def models() -> ModuleType:
    """torchvision's networks, imported when they are built: that takes seconds.

    With some versions (torch 2.6) it brings torch's compiler, which computes as it is imported and
    fails where tensors have no memory, as when a configuration is checked.
    """
    with torch.device("cpu"):
        from torchvision import models

    return models


def check_images(architecture: str, channels: int, size: int) -> None:
    """Raise ValueError for images that a network made for ImageNet cannot take."""
    if channels != 3 or size < 32:
        raise ValueError(
            f"{architecture} needs 3 channels of at least 32 x 32 pixels, got {channels} of"
            f" {size} x {size}"
        )
