"""Convolutions of each channel by itself, which networks of inverted residuals are made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Depthwise(nn.Conv2d):
    """A convolution without bias of each channel by itself: (n, channels, h, w) -> (n, channels,
    h', w').

    On a CPU it works in float32 under autocast too, and gives what autocast asks for: oneDNN takes
    many times as long for the gradients of such a convolution in bfloat16, so that whole networks
    would train slower in it than in float32 (a line of `make bench` shows it).
    """

    def __init__(self, channels: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__(channels, channels, kernel, stride, padding, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float()).to(torch.get_autocast_dtype("cpu"))
