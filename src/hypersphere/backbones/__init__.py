"""Backbones: images (n, channels, size, size) -> features (n, dim)."""

from hypersphere.backbones.blocks import MLP, VGG, InceptionBlocks, ResidualBlocks
from hypersphere.backbones.torchvision import TorchvisionResNet

__all__ = ["MLP", "VGG", "InceptionBlocks", "ResidualBlocks", "TorchvisionResNet"]
