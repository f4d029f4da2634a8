"""What recipes ask of a training beyond the ordinary: class weights, equal epochs, the best weights,
long-tailed data, and the networks of the ablation."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hypersphere import losses
from hypersphere.backbones import (
    MLP,
    VGG,
    CifarResNet,
    InceptionBlocks,
    ResidualBlocks,
    TorchvisionResNet,
)
from hypersphere.config import compose, split_config
from hypersphere.data.batches import Shuffled
from hypersphere.data.load import class_counts, count_classes, load
from hypersphere.errors import UserError
from hypersphere.heads import NormalizedSoftmax, Softmax
from hypersphere.store import Store
from hypersphere.training.images import SmallImages
from hypersphere.training.learner import Learner
from hypersphere.training.train import load_network, train

# Class weights


def test_weighted_cross_entropy_is_keras():
    """Sum of weight times loss, over the number of images (not over the sum of weights)."""
    logits, labels = torch.randn(7, 3), torch.tensor([0, 0, 0, 0, 1, 1, 2])
    weights = torch.tensor([0.5, 1.0, 3.0])[labels]
    each = [-F.log_softmax(z, 0)[y] * w for z, y, w in zip(logits, labels, weights, strict=True)]
    found = losses.cross_entropy(logits, labels, weights)
    assert found.item() == pytest.approx(sum(each).item() / 7)
    assert losses.cross_entropy(logits, labels).item() == pytest.approx(
        F.cross_entropy(logits, labels).item()
    )


@pytest.mark.parametrize("preset", ["small", "paper"])
def test_plants_are_seen_as_published(preset):
    """Section 4.4.1: "normalizing it to [0, 1] range and reshaping it to a <96, 96, 3> shape"."""
    data = compose([f"paper=nsl/plants/{preset}"])["data"]
    assert (data["normalize"], data["views"]["resize"], data["views"]["crop"]) == (False, 96, None)


@pytest.mark.parametrize("head", ["nsl", "softmax"])
def test_balanced_weights_of_a_long_tail(head):
    words = ["paper=nsl/plants/quick", f"head={head}", "schedule.epochs=1", "split.at_least=60"]
    chosen, _ = split_config(compose(words))
    module, images = Learner(chosen), SmallImages(chosen)
    images.setup()
    counts = images.train_labels().bincount()
    module.class_weights = len(images.train_labels()) / (6 * counts)
    assert (counts * module.class_weights).tolist() == pytest.approx([counts.sum().item() / 6] * 6)
    pixels, labels = images.train[0][:40], images.train[1][:40]
    embeddings = module.network(pixels)
    logits = module.network.head.logits(embeddings)
    each = F.cross_entropy(logits, labels, reduction="none") * module.class_weights[labels]
    assert module.loss(pixels, labels).item() == pytest.approx(each.mean().item(), rel=1e-5)


def test_class_weights_are_taken_from_the_images_trained_on(monkeypatch, tmp_path):
    seen = []
    prepare = Learner.prepare

    def watched(self, labels, values):
        prepare(self, labels, values)
        seen.append((self.class_weights, labels))

    monkeypatch.setattr(Learner, "prepare", watched)
    words = ["paper=nsl/plants/quick", "schedule.epochs=1", "split.at_least=85"]
    train(split_config(compose(words))[0], Store(tmp_path), say=lambda line: None)
    weights, labels = seen[0]
    assert torch.equal(weights, len(labels) / (4 * labels.bincount()))
    assert len(labels) == sum(n - round(0.1 * n) for n in (140, 120, 102, 87))  # held out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["head=triplet", "class_weights=balanced"], "class_weights=balanced: weighs a classific"),
        (["select=lowest_validation_loss"], "select=lowest_validation_loss: needs held-out images"),
        (
            ["backbone=inception_blocks", "backbone.filters=[32,40]"],
            "backbone (inception_blocks): filters [40] are no multiples of 16",
        ),
        (["select=best"], "select='best': input should be 'last', 'lowest_validation_loss' or"),
    ],
)
def test_what_does_not_go_together(words, says):
    with pytest.raises(UserError) as error:
        split_config(compose(["paper=nsl", *words]))
    assert str(error.value).startswith(says)


# The weights of the lowest validation loss


def test_the_weights_of_the_lowest_validation_loss_are_kept(small, tmp_path):
    chosen = small(
        "schedule.epochs=5", "optimizer.lr=0.03", "data.validation={share: 0.2}",
        "select=lowest_validation_loss",
    )  # fmt: skip
    store = Store(tmp_path / "runs")
    record = train(chosen, store, say=lambda line: None)
    curve = [epoch["validation_loss"] for epoch in record["epochs"]]
    best = curve.index(min(curve))
    assert best < len(curve) - 1, "this training is meant to overshoot; give it a larger lr"
    assert record["metrics"]["validation_loss"] == curve[best]
    assert record["metrics"]["test_accuracy"] == record["epochs"][best]["test_accuracy"]
    images = SmallImages(chosen)
    images.setup()
    network = load_network(chosen, store.folder(chosen.id)).eval()
    with torch.no_grad():
        logits = network.head.logits(network(images.held[0]))
    assert F.cross_entropy(logits, images.held[1]).item() == pytest.approx(curve[best], rel=1e-4)
    assert chosen.id != small(*"schedule.epochs=5 optimizer.lr=0.03".split()).id


# Epochs of equal length


def test_an_epoch_as_long_as_the_large_classes_make_it():
    labels = np.repeat([0, 1, 2, 3], [50, 40, 10, 3])
    epochs = [
        np.concatenate(list(Shuffled(size=16, images_of_classes_with=40).epoch(labels, generator)))
        for generator in (np.random.default_rng(0), np.random.default_rng(1))
    ]
    assert [len(epoch) for epoch in epochs] == [90, 90] and len(set(epochs[0])) == 90
    assert set(epochs[0]) != set(epochs[1])
    with pytest.raises(ValueError, match="images_of_classes_with=60: no class .* largest has 50"):
        list(Shuffled(size=16, images_of_classes_with=60).epoch(labels, np.random.default_rng(0)))


def test_networks_with_more_classes_see_equally_many_images():
    lengths = set()
    for at_least in (85, 60, 45, 30):
        words = ["paper=nsl/plants/quick", f"split.at_least={at_least}"]
        images = SmallImages(split_config(compose(words))[0])
        images.setup()
        lengths.add(sum(len(labels) for _, labels in images.batches(0)))
    assert lengths == {sum(n - round(0.1 * n) for n in (140, 120, 102, 87))}


# A long tail


def test_long_tailed_digits():
    found, digits = load("long_tail_digits"), load("digits")
    counts = class_counts("long_tail_digits")
    assert counts[0] == 140 and counts[-1] == 7 and list(counts) == sorted(counts, reverse=True)
    by_pixels = {i.numpy().tobytes() for i in digits.train_images[digits.train_labels == 3]}
    upright = found.train_images[found.train_labels == 3]
    turned = found.train_images[found.train_labels == 13].rot90(-1, (2, 3))
    for images in (upright, turned):
        assert {i.contiguous().numpy().tobytes() for i in images} <= by_pixels
    assert len(found.test_labels) == 2 * len(digits.test_labels)


def test_counts_of_classes():
    found = count_classes(data="long_tail_digits", thresholds=[85, 30, 1])
    assert (found["at_least@85"], found["at_least@30"], found["at_least@1"]) == (4, 10, 20)
    assert found["counts"]["counts"].tolist() == list(class_counts("long_tail_digits"))


# Networks

SIZES = [
    # parameters counted by hand: weights and biases of every convolution, and of the embedding
    (InceptionBlocks, {"filters": [32], "dim": 128}, 3, 32,
     (3 * 8 + 8) + (3 * 12 + 12) + (12 * 16 * 9 + 16) + (3 * 2 + 2) + (2 * 4 * 25 + 4)
     + (3 * 4 + 4) + (32 * 256 + 1) * 128),
    (ResidualBlocks, {"filters": [32, 64], "dim": 128}, 3, 32,
     (3 * 32 * 9 + 32) + (3 * 32 + 32) + (32 * 64 * 9 + 64) + (32 * 64 + 64)
     + (64 * 64 + 1) * 128),
    (VGG, {"filters": [[4, 8]], "dim": 10}, 1, 8, (9 * 4 + 4) + (4 * 8 * 9 + 8) + (8 * 16 + 1) * 10),
    (MLP, {"hidden": [256, 256], "dim": 128}, 1, 28,
     784 * 256 + 256 + 256 * 256 + 256 + 256 * 128 + 128),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "choices", "channels", "size", "number"), SIZES)
def test_networks_of_the_ablation(kind, choices, channels, size, number):
    network = kind(channels, size, **choices)
    assert sum(p.numel() for p in network.parameters()) == number
    assert network(torch.rand(2, channels, size, size)).shape == (2, choices["dim"]) == (
        2, network.dim,
    )  # fmt: skip
    for name, value in network.named_parameters():
        if name.endswith("bias"):
            assert not value.any(), name  # as Keras initialises


def test_the_network_of_the_plants():
    with torch.device("meta"):
        filters = [[64, 64], [256, 256], [256, 512], [512, 1024]]
        network = VGG(3, 96, filters=filters, dim=1024)
        assert network(torch.empty(1, 3, 96, 96)).shape == (1, 1024)
        assert network.embedding.in_features == 1024 * 6 * 6


def test_a_residual_block_adds_its_input():
    block = ResidualBlocks(4, 8, filters=[4], dim=3).blocks[0]
    with torch.no_grad():
        block.three.weight.zero_()
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(block(x), x.relu())


def test_resnet50_from_torchvision():
    network = TorchvisionResNet(3, 32, architecture="resnet50").eval()
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, network.dim) == (2, 2048)
    for channels, size in ((1, 32), (3, 28)):
        with pytest.raises(ValueError, match="needs 3 channels of at least 32 x 32 pixels"):
            TorchvisionResNet(channels, size, architecture="resnet50")


def test_resnet32_as_published():
    """Parameters counted by hand: convolutions without bias, two numbers per filter of each batch
    normalisation, 3x3 shortcuts where the shape changes."""
    network = CifarResNet(3, 32, depth=32, width=16, dim=100, shortcut="conv3x3").eval()

    def conv(a, b, k=3):
        return a * b * k * k + 2 * b

    stages = 5 * 2 * conv(16, 16)
    for before, here in ((16, 32), (32, 64)):
        stages += conv(before, here) + 9 * conv(here, here) + conv(before, here)
    expected = conv(3, 16) + stages + (64 * 100 + 100)
    assert sum(p.numel() for p in network.parameters()) == expected == 493_236
    sizes = []
    for block in network.blocks:
        block.register_forward_hook(lambda m, _, out: sizes.append(tuple(out.shape[1:])))
    with torch.no_grad():
        assert network(torch.rand(2, 3, 32, 32)).shape == (2, 100)
    assert sizes == [(16, 32, 32)] * 5 + [(32, 16, 16)] * 5 + [(64, 8, 8)] * 5
    shortcuts = [b.shortcut for b in network.blocks if isinstance(b.shortcut, torch.nn.Sequential)]
    assert [(s[0].kernel_size, s[0].stride) for s in shortcuts] == [((3, 3), (2, 2))] * 2
    spread = network.blocks[8].first.weight.std().item()
    assert spread == pytest.approx((2 / (9 * 32)) ** 0.5, rel=0.05)
    other = CifarResNet(1, 8, depth=8, width=4, dim=5, shortcut="conv1x1")
    assert other(torch.rand(2, 1, 8, 8)).shape == (2, 5)
    with pytest.raises(UserError, match=r"depth=9: needs 6 n \+ 2"):
        split_config(compose(["backbone=cifar_resnet", "backbone.depth=9"]))


def test_the_softmax_head():
    head = Softmax(6, 4, bias=True)
    z, y = torch.randn(5, 6), torch.tensor([0, 1, 2, 3, 0])
    with torch.no_grad():
        head.bias.copy_(torch.tensor([0.0, 1.0, 2.0, 3.0]))
    expected = z @ head.class_vectors.T + head.bias
    assert torch.allclose(head.logits(z), expected)
    assert head.loss(z, y).item() == pytest.approx(F.cross_entropy(expected, y).item())
    assert torch.allclose(head.scores(z, head.class_vectors), expected - head.bias)
    assert Softmax(6, 4, bias=False).bias is None
    for bias in (True, False):
        torch.manual_seed(0)
        head = Softmax(6, 4, bias=bias, initialisation="torch")
        torch.manual_seed(0)
        layer = torch.nn.Linear(6, 4, bias)
        assert torch.equal(head.logits(z), layer(z)) and not torch.equal(head.logits(z), expected)
        assert head.state_dict().keys() == Softmax(6, 4, bias=bias).state_dict().keys()
    assert isinstance(NormalizedSoftmax(6, 4, scale=1.0).loss(z, y), torch.Tensor)
