"""Convolutions of each channel by itself, which a CPU works out in float32."""

import pytest
import torch
from torch import nn

from hypersphere.backbones import MobileNetV2, PretrainedNetwork
from hypersphere.backbones.depthwise import Depthwise


@pytest.fixture
def pair():
    """Ours, torch's own with the same weights, and an image that bfloat16 holds exactly."""
    torch.manual_seed(0)
    ours, theirs = Depthwise(6, 3, 2, 1), nn.Conv2d(6, 6, 3, 2, 1, groups=6, bias=False)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs, torch.randn(4, 6, 9, 9).bfloat16().float()


def test_without_autocast_it_is_torchs_own(pair):
    ours, theirs, images = pair
    assert torch.equal(ours(images), theirs(images))


def test_under_autocast_it_is_float32_rounded_once(pair):
    ours, theirs, images = pair
    with torch.autocast("cpu", torch.bfloat16):
        found = ours(images.bfloat16())
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, theirs(images).bfloat16())


def test_its_gradient_under_autocast_is_that_of_float32(pair):
    ours, theirs, images = pair
    with torch.autocast("cpu", torch.bfloat16):
        found = ours(images.bfloat16())
        rounded = theirs(images.bfloat16())
    above = torch.randn(found.shape).bfloat16()
    exact = torch.autograd.grad(theirs(images), theirs.weight, above.float())[0]
    (gradient,) = torch.autograd.grad(found, ours.weight, above)
    assert torch.equal(gradient, exact)
    # bfloat16 throughout is not: else nothing here would be shown.
    assert not torch.equal(torch.autograd.grad(rounded, theirs.weight, above)[0], exact)


def test_the_networks_that_have_such_convolutions_have_these():
    for network in (
        PretrainedNetwork(3, 32, architecture="efficientnet_lite0", dim=4, weights="none"),
        MobileNetV2(3, 8, stem=4, stages=[[1, 4, 1, 1], [2, 4, 2, 2]], features=8, pool=4),
    ):
        found = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
        assert found and all(isinstance(m, Depthwise) for m in found)
