"""Backbones: images (n, channels, size, size) -> features (n, dim)."""

from hypersphere.backbones.blocks import MLP, VGG, InceptionBlocks, ResidualBlocks
from hypersphere.backbones.cnn import CNN
from hypersphere.backbones.densenet import DenseNet
from hypersphere.backbones.mobilenet import MobileNetV2
from hypersphere.backbones.pretrained import PretrainedNetwork
from hypersphere.backbones.resnet import CifarResNet
from hypersphere.backbones.resnet18 import PreActResNet18, ResNet18
from hypersphere.backbones.torchvision import TorchvisionResNet

__all__ = [
    "CNN",
    "MLP",
    "VGG",
    "CifarResNet",
    "DenseNet",
    "InceptionBlocks",
    "MobileNetV2",
    "PreActResNet18",
    "PretrainedNetwork",
    "ResNet18",
    "ResidualBlocks",
    "TorchvisionResNet",
]
