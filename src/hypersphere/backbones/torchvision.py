"""torchvision's classification networks without their classifier."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn


class TorchvisionResNet(nn.Module):
    """A ResNet (He et al. 2016) as torchvision builds and initialises it, from scratch: features
    (n, dim) after the global average pooling, 512 of ResNet-18 and -34, 2048 of ResNet-50.

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
    ) -> None:
        from torchvision import models  # takes seconds, and plans only check the configuration

        super().__init__()
        if channels != 3 or size < 32:
            raise ValueError(
                f"{architecture} needs 3 channels of at least 32 x 32 pixels, got {channels} of"
                f" {size} x {size}"
            )
        self.network = getattr(models, architecture)(weights=None)
        self.dim = self.network.fc.in_features
        self.network.fc = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """images: (n, 3, size, size) -> features (n, dim), not normalised."""
        return self.network(images)
