"""Backbones: images (n, channels, size, size) -> features (n, dim)."""

from hypersphere.backbones.vgg import VGG

__all__ = ["VGG"]
