"""Networks of the prototype experiments, counted by hand and against torchvision's own."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torchvision import models

from hypersphere.backbones import CNN, CifarResNet, DenseNet, TorchvisionResNet
from hypersphere.config import compose, split_config
from hypersphere.errors import UserError
from hypersphere.training.network import Network

DENSENET_121 = {"growth": 32, "blocks": [6, 12, 24, 16]}


def composed(*words):
    return split_config(compose(["split=all_classes", "evaluations=none", *words]))[0]


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def shapes_of(network, layers, *shape):
    """What leaves each of `layers` when an image of `shape` passes."""
    found = []
    for layer in layers:
        layer.register_forward_hook(lambda m, _, out: found.append(tuple(out.shape[1:])))
    with torch.no_grad():
        network.eval()(torch.rand(1, *shape))
    return found


# DenseNet


@pytest.mark.parametrize("dim", [100, None])
def test_densenet_121_by_hand(dim):
    """Convolutions have no bias, a batch normalisation two numbers per channel."""
    expected, width = 3 * 64 * 9, 64
    for number, layers in enumerate(DENSENET_121["blocks"]):
        if number:
            expected += 2 * width + width * (width // 2)
            width //= 2
        for _ in range(layers):
            expected += 2 * width + width * 128 + 2 * 128 + 128 * 32 * 9
            width += 32
    expected += 2 * width
    network = DenseNet(3, 32, **DENSENET_121, dim=dim)
    assert width == 1024 and network.dim == (dim or 1024)
    assert parameters(network) == expected + (1024 * 100 + 100 if dim else 0)
    # torchvision's has a 7x7 stem with batch normalisation, else the same layers
    theirs = parameters(models.densenet121(num_classes=dim or 1))
    stem = 3 * 64 * 49 + 2 * 64 - 3 * 64 * 9
    assert parameters(network) == theirs - stem - (0 if dim else 1024 + 1)


@pytest.mark.parametrize("size", [32, 64])
def test_densenet_keeps_the_image_up_to_the_first_transition(size):
    network = DenseNet(3, size, **DENSENET_121, dim=10)
    kinds = [type(layer).__name__ for layer in network.blocks]
    runs = [["DenseLayer"] * layers for layers in DENSENET_121["blocks"]]
    assert kinds == [
        *runs[0],
        "Transition",
        *runs[1],
        "Transition",
        *runs[2],
        "Transition",
        *runs[3],
    ]
    transitions = [i for i, kind in enumerate(kinds) if kind == "Transition"]
    ends = [network.stem, *(network.blocks[i + d] for i in transitions for d in (-1, 0))]
    found = shapes_of(network, [*ends, network.blocks[-1], network], 3, size, size)
    expected = [(64, 1), (256, 1), (128, 2), (512, 2), (256, 4), (1024, 4), (512, 8), (1024, 8)]
    assert found == [(c, size // k, size // k) for c, k in expected] + [(10,)]


def test_densenet_computes_what_torchvisions_does():
    """The same weights in the same layers, with a stem for small images."""
    ours = DenseNet(3, 16, growth=6, blocks=[3, 2, 4], dim=5).eval()
    theirs = models.DenseNet(6, (3, 2, 4), 12, bn_size=4, num_classes=5).eval()
    theirs.features.conv0 = nn.Conv2d(3, 12, 3, padding=1, bias=False)
    for name in ("norm0", "relu0", "pool0"):
        setattr(theirs.features, name, nn.Identity())
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        pairs = zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True)
        for mine, other in pairs:
            if mine.is_floating_point():
                mine.copy_(torch.randn(mine.shape, generator=g))
            other.copy_(mine)
        for layer in [*ours.modules(), *theirs.modules()]:
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_var.abs_()
        images = torch.rand(4, 3, 16, 16, generator=g)
        assert torch.allclose(ours(images), theirs(images), rtol=1e-4)
        assert ours(images).std(0).min() > 0


def test_densenet_starts_as_torch_does():
    torch.manual_seed(0)
    network = DenseNet(3, 8, growth=16, blocks=[2, 2], dim=9)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            bound = layer.weight[0].numel() ** -0.5  # uniform, variance a third of its square
            assert 0.97 * bound < layer.weight.abs().max() <= bound and layer.bias is None
    assert network.embedding.bias.any()


def test_densenet_of_small_images():
    assert DenseNet(1, 8, growth=4, blocks=[1] * 4, dim=3)(torch.rand(2, 1, 8, 8)).shape == (2, 3)
    with pytest.raises(ValueError, match="4 transitions leave nothing of an image of 8 pixels"):
        DenseNet(1, 8, growth=4, blocks=[1] * 5, dim=3)
    with pytest.raises(UserError, match="backbone.*4 transitions leave nothing of an image"):
        assert composed("backbone=densenet", "backbone.blocks=[1,1,1,1,1]").id


def test_densenet_through_the_configuration():
    network = Network(composed("backbone=densenet", "head=softmax", "backbone.dim=null"))
    features = (2 * 8 + 2 * 8) // 2 + 2 * 8
    assert network.head.class_vectors.shape == (10, features)
    images = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8)
    assert network(images).shape == (4, features)


# Features without an embedding, and an embedding on features


def test_a_resnet_without_its_linear_layer():
    whole = CifarResNet(3, 32, depth=32, width=16, dim=7, shortcut="conv3x3").eval()
    bare = CifarResNet(3, 32, depth=32, width=16, dim=None, shortcut="conv3x3").eval()
    bare.load_state_dict({k: v for k, v in whole.state_dict().items() if "embedding" not in k})
    assert (bare.dim, parameters(whole) - parameters(bare)) == (64, 64 * 7 + 7)
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        features = bare(images)
        assert features.shape == (2, 64) and (features >= 0).all()
        assert torch.equal(whole.embedding(features), whole(images))


def test_shortcuts_of_both_kinds():
    def kernels(shortcut):
        blocks = CifarResNet(3, 8, depth=14, width=4, dim=None, shortcut=shortcut).blocks
        return [
            b.shortcut[0].kernel_size if len(list(b.shortcut.children())) else 0 for b in blocks
        ]

    assert kernels("conv3x3") == [0, 0, (3, 3), 0, (3, 3), 0]
    assert kernels("conv1x1") == [0, 0, (1, 1), 0, (1, 1), 0]


def test_resnet34_with_an_embedding():
    def conv(a, b, k):
        return a * b * k * k + 2 * b

    expected = conv(3, 64, 7)
    for before, width, blocks in ((64, 64, 3), (64, 128, 4), (128, 256, 6), (256, 512, 3)):
        expected += conv(before, width, 3) + (2 * blocks - 1) * conv(width, width, 3)
        expected += conv(before, width, 1) if before != width else 0
    network = TorchvisionResNet(3, 64, architecture="resnet34", dim=47)
    assert parameters(network) == expected + 512 * 47 + 47 and network.dim == 47
    assert expected == parameters(models.resnet34()) - 513_000
    inner = network.network
    layers = [inner.conv1, inner.maxpool, inner.layer1, inner.layer4, inner]
    assert shapes_of(network, layers, 3, 64, 64) == [
        (64, 32, 32), (64, 16, 16), (64, 16, 16), (512, 2, 2), (47,)
    ]  # fmt: skip
    chosen = composed("data=cifar10", "backbone=resnet34", "backbone.dim=10").components["backbone"]
    assert chosen.build(3, 32).network.fc.out_features == 10


def test_max_pooling_after_the_last_convolution():
    """The network of figure 5 of arXiv 1901.10514: two convolutions, two fully connected layers."""
    network = CNN(1, 28, filters=[32, 64], hidden=128, dim=3, activation="linear", pool_last=True)
    counted = (9 * 32 + 32) + (9 * 32 * 64 + 64) + (7 * 7 * 64 * 128 + 128) + (128 * 3 + 3)
    assert parameters(network) == counted
    kinds = [type(layer).__name__ for layer in network.layers]
    assert kinds == ["Conv2d", "ReLU", "MaxPool2d"] * 2 + ["Flatten", "Linear", "ReLU"]
    found = shapes_of(network, [*network.layers[2:6:3], network], 1, 28, 28)
    assert found == [(32, 14, 14), (64, 7, 7), (3,)]
    options = {"filters": [4, 4], "hidden": 4, "dim": 2, "activation": "linear"}
    assert CNN(1, 4, **options, pool_last=True)(torch.rand(2, 1, 4, 4)).shape == (2, 2)
    assert CNN(1, 3, **options)(torch.rand(2, 1, 3, 3)).shape == (2, 2)
    with pytest.raises(ValueError, match="2 convolutions pool an image of 3 pixels to nothing"):
        CNN(1, 3, **options, pool_last=True)


# Identity


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["paper=hpn/quick"], "646e806f57b3"),
        (["paper=hpn/small"], "3578a9db8fd8"),
        (["paper=hpn/paper"], "fec538dad6c7"),
        (["paper=hpn/small", "head=softmax"], "cd9f80b24d42"),
        (["paper=nsl/small", "head=softmax"], "b4456b4fb001"),
        (["paper=embedded-spaces/paper"], "7b9a610c6570"),
    ],
)
def test_new_parameters_orphan_no_run(words, expected):
    """Ids of before networks and heads had the parameters that these tests are about."""
    assert split_config(compose(words))[0].id == expected


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        (["backbone=cifar_resnet"], "backbone.dim=null"),
        (["backbone=resnet34", "data=cifar10"], "backbone.dim=64"),
        (["backbone=cnn"], "backbone.pool_last=true"),
        (["head=softmax"], "head.initialisation=torch"),
        (["head=deep_ncm"], "head.means=online"),
    ],
)
def test_what_is_not_neutral_is_another_run(words, changed):
    assert composed(*words).id != composed(*words, changed).id


WATCHED = """
import sys, torch

class Watch:
    def find_spec(self, name, *rest):
        if name == "torchvision":
            print(torch.empty(0).device.type)

sys.meta_path.insert(0, Watch())
from hypersphere.backbones.torchvision import models
with torch.device("meta"):
    models()
"""


def test_torchvision_is_imported_with_memory_where_networks_are_checked_without():
    """torch 2.6 computes while torchvision is imported, and failed."""
    said = subprocess.run(
        [sys.executable, "-c", WATCHED], capture_output=True, text=True, check=True
    )
    assert said.stdout == "cpu\n"
