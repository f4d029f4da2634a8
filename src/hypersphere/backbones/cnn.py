"""A plain convolutional network that ends in an embedding of few dimensions."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

Positive = Annotated[int, Field(gt=0)]

ACTIVATIONS = {"linear": nn.Identity, "sigmoid": nn.Sigmoid, "relu": nn.ReLU, "selu": nn.SELU}


class CNN(nn.Module):
    """Convolutions with a 2x2 max-pooling between them, a fully connected layer, the embedding
    (arXiv 2408.01767, section II-A: Conv 32 - Pool - Conv 64 - Pool - Conv 128 - FC 256 - FC 2).

    filters: of each convolution; hidden: of the fully connected layer; activation: of the
    embedding itself (`linear` has none); pool_last: max-pooling after the last convolution too. The
    paper leaves open: 3x3 kernels, 'same' padding, ReLU inside, Glorot uniform initialisation with
    zero bias. channels, size: of the input images. Raises ValueError when the image is too
    small for the number of poolings.
    """

    revision = 1

    def __init__(
        self,
        channels: int,
        size: int,
        *,
        filters: Annotated[list[Positive], Field(min_length=1)],
        hidden: Positive,
        dim: Positive,
        activation: Literal["linear", "sigmoid", "relu", "selu"],
        pool_last: bool = False,
    ) -> None:
        super().__init__()
        side = size >> (len(filters) - (not pool_last))
        if side == 0:
            raise ValueError(
                f"{len(filters)} convolutions pool an image of {size} pixels to nothing"
            )
        layers: list[nn.Module] = []
        for width in filters:
            if layers:
                layers.append(nn.MaxPool2d(2))
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        if pool_last:
            layers.append(nn.MaxPool2d(2))
        layers += [
            nn.Flatten(),
            nn.Linear(channels * side * side, hidden),
            nn.ReLU(inplace=True),
        ]
        self.layers = nn.Sequential(*layers)
        self.embedding = nn.Linear(hidden, dim)
        self.activation = ACTIVATIONS[activation]()
        self.dim = dim
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """images: (n, channels, size, size) -> embeddings (n, dim)."""
        hidden = self.layers(images)
        # In float32 under autocast too: with two coordinates, bfloat16's 8 bits would show as a
        # grid in the plane.
        with torch.autocast(images.device.type, enabled=False):
            return self.activation(self.embedding(hidden.float()))
