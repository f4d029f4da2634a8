"""VGG-style blocks: two 3x3 convolutions and a 2x2 max-pooling each."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

Positive = Annotated[int, Field(gt=0)]


class VGG(nn.Module):
    """`len(filters)` blocks, then flatten and one linear layer without activation.

    Section 4.2 and appendix B.1 of the normalised-softmax paper (arXiv 2102.03243): a block is
    two 3x3 convolutions and a 2x2 max-pooling. The paper leaves open: 'same' padding, ReLU, no
    batch normalisation (none is mentioned), a linear embedding of `dim`, and Keras' default
    initialisation (Glorot uniform, zero bias), since its experiments ran in Keras.

    channels, size: of the input images. Raises ValueError when the image is too small for the
    number of blocks.
    """

    revision = 1

    def __init__(
        self,
        channels: int,
        size: int,
        *,
        filters: Annotated[list[Positive], Field(min_length=1)],
        dim: Positive,
    ) -> None:
        super().__init__()
        side = size >> len(filters)
        if side == 0:
            raise ValueError(f"{len(filters)} blocks halve an image of {size} pixels to nothing")
        layers: list[nn.Module] = []
        for width in filters:
            layers += [
                nn.Conv2d(channels, width, 3, padding=1),
                nn.ReLU(inplace=True),
                nn.Conv2d(width, width, 3, padding=1),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(2),
            ]
            channels = width
        self.blocks = nn.Sequential(*layers)
        self.embedding = nn.Linear(channels * side * side, dim)
        self.dim = dim
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """images: (n, channels, size, size) -> embeddings (n, dim), not normalised."""
        return self.embedding(self.blocks(images).flatten(1))
