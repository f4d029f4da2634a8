"""The networks of the CIFAR family: parameters counted by hand, sizes, torchvision's numbers."""

import pytest
import torch
from torch import nn
from torchvision import models

from hypersphere.backbones import MobileNetV2, PreActResNet18, ResNet18
from hypersphere.config import compose, split_config
from hypersphere.errors import UserError
from tests.test_networks import parameters, shapes_of
from tests.test_random_vectors import quick


def conv(channels, filters, kernel, norm=True):
    return channels * filters * kernel**2 + (2 * filters if norm else 0)


WIDE = {"filters": [64, 128, 256, 512], "blocks": 2, "pool": 4}
STAGES = [
    [1, 16, 1, 1],
    [6, 24, 2, 1],
    [6, 32, 3, 2],
    [6, 64, 4, 2],
    [6, 96, 3, 1],
    [6, 160, 3, 2],
    [6, 320, 1, 1],
]
MOBILE = {"stem": 32, "stages": STAGES, "features": 1280, "pool": 4}


def test_options_are_the_published_networks():
    for option, expected in (
        ("cifar_resnet18", {**WIDE, "last_relu": True}),
        ("cifar_preact_resnet18", WIDE),
        ("cifar_mobilenet_v2", MOBILE),
    ):
        words = ["data=cifar10", "split=all_classes", "evaluations=none", f"backbone={option}"]
        assert split_config(compose(words))[0].components["backbone"].params == expected


def test_resnet18_by_hand():
    """11,173,962 with a linear layer for ten classes, as is often printed."""
    expected, before = conv(3, 64, 3), 64
    for width in WIDE["filters"]:
        expected += conv(before, width, 3) + 3 * conv(width, width, 3)
        expected += conv(before, width, 1) if before != width else 0
        before = width
    assert parameters(ResNet18(3, 32, **WIDE)) == expected == 11_173_962 - 5_130
    # torchvision's has a 7x7 stem, else the same layers
    theirs = parameters(models.resnet18()) - 513_000
    assert expected == theirs - conv(3, 64, 7) + conv(3, 64, 3)


def test_preact_resnet18_by_hand():
    """A normalisation of its input and its middle per block, none on the shortcuts or the stem."""
    expected, before = conv(3, 64, 3, norm=False), 64
    for width in WIDE["filters"]:
        expected += 2 * before + conv(before, width, 3) + conv(width, width, 3, norm=False)
        expected += conv(before, width, 1, norm=False) if before != width else 0
        expected += 2 * width + conv(width, width, 3) + conv(width, width, 3, norm=False)
        before = width
    assert parameters(PreActResNet18(3, 32, **WIDE)) == expected == 11_171_146 - 5_130


def test_mobilenet_v2_by_hand():
    expected, before = conv(3, 32, 3), 32
    for expansion, width, blocks, stride in STAGES:
        for block in range(blocks):
            inner = expansion * before
            expected += conv(before, inner, 1) + conv(1, inner, 3) + conv(inner, width, 1)
            if before != width and (block or stride == 1):
                expected += conv(before, width, 1)
            before = width
    expected += conv(320, 1280, 1)
    assert parameters(MobileNetV2(3, 32, **MOBILE)) == expected == 2_296_922 - 12_810


@pytest.mark.parametrize(("size", "places"), [(32, 1), (64, 4), (96, 9)])
def test_features_by_the_size_of_the_image(size, places):
    for build, options, channels in (
        (ResNet18, WIDE, 512),
        (PreActResNet18, WIDE, 512),
        (MobileNetV2, MOBILE, 1280),
    ):
        network = build(3, size, **options)
        assert network.dim == channels * places
        found = shapes_of(network, [network.stem, network.blocks, network], 3, size, size)
        assert found[0][1] == size and found[1][1] == size // 8 and found[2] == (network.dim,)


def test_the_last_relu():
    torch.manual_seed(0)
    images = torch.rand(8, 3, 32, 32)
    narrow = {**WIDE, "filters": [8, 16, 16, 16]}
    signs = {}
    for name, network in (
        ("resnet", ResNet18(3, 32, **narrow)),
        ("resnet without", ResNet18(3, 32, **narrow, last_relu=False)),
        ("preact", PreActResNet18(3, 32, **narrow)),
        ("mobilenet", MobileNetV2(3, 32, **MOBILE)),
    ):
        with torch.no_grad():
            signs[name] = bool((network(images) < 0).any())
    assert signs == {"resnet": False, "resnet without": True, "preact": True, "mobilenet": False}


def test_leaving_out_the_last_relu_leaves_out_nothing_else():
    narrow = {**WIDE, "filters": [4, 8, 8, 8]}
    torch.manual_seed(0)
    whole, without = ResNet18(3, 32, **narrow), ResNet18(3, 32, **narrow, last_relu=False)
    without.load_state_dict(whole.state_dict())
    seen = []
    whole.blocks[-1].register_forward_hook(lambda m, _, out: seen.append(out))
    without.blocks[-1].register_forward_hook(lambda m, _, out: seen.append(out))
    images = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        assert whole.eval()(images).shape == without.eval()(images).shape
    assert torch.equal(seen[0], seen[1].relu()) and (seen[1] < 0).any()


def test_resnet18_computes_what_torchvisions_does():
    """The same weights in the same layers, with a stem for small images and no max-pooling."""
    ours = ResNet18(3, 32, **WIDE).eval()
    theirs = models.resnet18().eval()
    theirs.conv1, theirs.maxpool, theirs.fc = (
        nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity(), nn.Identity()
    )  # fmt: skip
    g = torch.Generator().manual_seed(0)

    def by_module(network):
        kinds = (nn.Conv2d, nn.BatchNorm2d)
        return [m for m in network.modules() if isinstance(m, kinds)]

    # ours: stem, blocks, norm; theirs: conv1, bn1, layers
    mine = by_module(ours)
    mine = [mine[0], mine[-1], *mine[1:-1]]
    with torch.no_grad():
        for one, other in zip(_as_torchvision(mine), by_module(theirs), strict=True):
            for name, value in one.state_dict().items():
                if value.is_floating_point():
                    drawn = torch.rand(value.shape, generator=g) - (0.5 if value.ndim > 1 else 0)
                    value.copy_(drawn / max(value[0].numel(), 1) ** 0.5)
                other.state_dict()[name].copy_(value)
        images = torch.rand(2, 3, 32, 32, generator=g)
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-5)
        assert ours(images).std(0).max() > 0


def _as_torchvision(modules):
    """Ours hold conv, norm, conv, norm, shortcut's conv and norm, as torchvision's do."""
    return modules


def test_mobilenet_of_other_sizes():
    small = {"stem": 4, "stages": [[1, 4, 1, 1], [2, 6, 2, 2]], "features": 7, "pool": 4}
    network = MobileNetV2(1, 8, **small)
    assert network.dim == 7 and network(torch.rand(2, 1, 8, 8)).shape == (2, 7)
    kinds = [None if b.shortcut is None else type(b.shortcut).__name__ for b in network.blocks]
    assert kinds == ["Identity", None, "Identity"]
    assert type(MobileNetV2(1, 8, **{**small, "stem": 5}).blocks[0].shortcut) is nn.Sequential
    with pytest.raises(ValueError, match="the stages leave 3 of 6 pixels, less than pool=4"):
        MobileNetV2(1, 6, **small)


def test_images_too_small_to_pool():
    with pytest.raises(ValueError, match="3 halvings leave 2 of 16 pixels, less than pool=4"):
        ResNet18(1, 16, **WIDE)
    with pytest.raises(UserError, match=r"backbone \(digits, 8 pixels\): 3 halvings leave 1 of 8"):
        quick("backbone.filters=[4,4,4,4]")
