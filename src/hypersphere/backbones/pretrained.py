"""Backbones that may start from pretrained weights: GoogLeNet, ResNet-50, EfficientNet-Lite0."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from hypersphere.backbones import weights as pretrained
from hypersphere.backbones.depthwise import Depthwise
from hypersphere.backbones.torchvision import check_images, models
from hypersphere.errors import UserError

Positive = Annotated[int, Field(gt=0)]
Architecture = Literal["googlenet", "resnet18", "resnet50", "efficientnet_lite0"]
INCEPTION_HEADS = ("fc.", "aux1.", "aux2.", "_fc.")


class PretrainedNetwork(nn.Module):
    """An ImageNet classifier without its classes: the features after global average pooling, or a
    linear layer with bias from them to `dim`, starting as torch has it.

    architecture: `googlenet`, torchvision's InceptionV1 with batch normalisation (Szegedy et al.
    2015; auxiliary classifiers left out), 1024 features; `resnet18`, `resnet50`, 512 and 2048;
    `efficientnet_lite0` (Tan and Le 2019, without squeeze-and-excitation, with ReLU6; no drop
    connect), 1280. weights: `none` starts from scratch, as torch or torchvision initialises it; a
    name of torchvision's (`IMAGENET1K_V1`); `package`, of EfficientNet-Lite0; `file`, whose path
    below the data folder is `file`. sha256: of the file with the weights, which is checked. Inputs
    must be scaled as the weights expect: [-1, 1] for EfficientNet-Lite0 and what was ported from
    TensorFlow, ImageNet's statistics for ResNets. channels, size: of the input images.

    Raises ValueError for images that are not of 3 channels or smaller than 32 pixels.
    """

    revision = 1
    told_by = pretrained.TOLD_BY
    check_together = staticmethod(pretrained.check_together)
    missing = staticmethod(pretrained.missing)
    expected_inputs = staticmethod(pretrained.expected)

    def __init__(
        self,
        channels: int,
        size: int,
        *,
        architecture: Architecture,
        dim: Positive | None,
        weights: str,
        file: str = "",
        sha256: str = "",
    ) -> None:
        super().__init__()
        check_images(architecture, channels, size)
        pretrained.check_name(architecture, weights)
        self.architecture, self.source = architecture, (weights, file, sha256)
        self.network, features = _build(architecture)
        self.embedding = nn.Identity() if dim is None else nn.Linear(features, dim)
        self.dim = dim or features

    def forward(self, images: Tensor) -> Tensor:
        """images: (n, 3, size, size) -> features (n, dim), not normalised."""
        return self.embedding(self.network(images))

    def load_pretrained(self) -> tuple[str, set[str]]:
        """Take over the pretrained weights: their sha256 ("" for none) and the names of the tensors
        that are now theirs. Raises UserError when they are not here or do not fit."""
        if self.source[0] == "none":
            return "", set()
        found, digest = pretrained.read(self.architecture, *self.source)
        found = {k: v for k, v in found.items() if not k.startswith(INCEPTION_HEADS)}
        own = self.network.state_dict()
        if self.architecture == "efficientnet_lite0":
            # The package names its layers otherwise; their order is the network's.
            found = dict(zip(own, found.values(), strict=False)) if len(found) == len(own) else {}
        if {k: v.shape for k, v in found.items()} != {k: v.shape for k, v in own.items()}:
            odd = sorted(found.keys() ^ own.keys())
            raise UserError(
                f"backbone.weights={self.source[0]}: are not those of {self.architecture}"
                f" ({odd[0] if odd else 'other sizes'})"
            )
        self.network.load_state_dict(found)
        return digest, {f"network.{name}" for name in own}


def _build(architecture: Architecture) -> tuple[nn.Module, int]:
    """The network without its classes, and how many features it gives."""
    if architecture == "efficientnet_lite0":
        return EfficientNetLite0(), EfficientNetLite0.features
    choices = {"aux_logits": False, "init_weights": False} if architecture == "googlenet" else {}
    network = models().get_model(architecture, weights=None, **choices)
    features = network.fc.in_features
    network.fc = nn.Identity()
    return network, features


class EfficientNetLite0(nn.Module):
    """Features (n, 1280) of images (n, 3, size, size): a stem, 16 inverted residual blocks, and a
    last convolution, each with batch normalisation and ReLU6 (TensorFlow's: padding "same", epsilon
    0.001, momentum 0.99). After the pooling, dropout of 0.2, as where it was trained."""

    features = 1280
    # blocks, kernel, stride of the first, expansion, channels
    STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80),
              (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320))  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Convolution(3, 32, 3, stride=2)
        blocks, channels = [], 32
        for number, kernel, stride, expansion, out in self.STAGES:
            for i in range(number):
                blocks.append(_Block(channels, out, kernel, 1 if i else stride, expansion))
                channels = out
        self.blocks = nn.Sequential(*blocks)
        self.last = _Convolution(channels, self.features, 1)
        self.dropout = nn.Dropout(0.2)

    def forward(self, images: Tensor) -> Tensor:
        return self.dropout(self.last(self.blocks(self.stem(images))).mean((2, 3)))


class _Block(nn.Module):
    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        layers = [_Convolution(channels, wide, 1)] if expansion > 1 else []
        layers.append(_Convolution(wide, wide, kernel, stride, depthwise=True))
        self.layers = nn.Sequential(*layers, _Convolution(wide, out, 1, active=False))
        self.residual = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class _Convolution(nn.Module):
    """Convolution, batch normalisation, and ReLU6 where it is active."""

    def __init__(
        self, channels: int, out: int, kernel: int, stride: int = 1, depthwise: bool = False,
        active: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        # TensorFlow pads by what the size needs; of stride 1 that is the same on all sides.
        padding = kernel // 2 if stride == 1 else 0
        self.convolution = (
            Depthwise(channels, kernel, stride, padding)
            if depthwise
            else nn.Conv2d(channels, out, kernel, stride, padding, bias=False)
        )
        self.norm = nn.BatchNorm2d(out, eps=1e-3, momentum=0.01)
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        (kernel, _), (stride, _) = self.convolution.kernel_size, self.convolution.stride
        if stride > 1:  # the odd pixel stands on the right and below
            short = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[2:]]
            x = F.pad(x, [n for total in reversed(short) for n in (total // 2, total - total // 2)])
        x = self.norm(self.convolution(x))
        return F.relu6(x) if self.active else x
