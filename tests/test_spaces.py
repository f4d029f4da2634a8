"""What shapes an embedded space: margins, unit class vectors, centers, targets, class-balanced
batches, and the network with its embedding of two dimensions."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hypersphere import losses, prototypes
from hypersphere.backbones import CNN
from hypersphere.config import compose, split_config
from hypersphere.data.batches import ClassBalanced
from hypersphere.errors import UserError
from hypersphere.heads import (
    CenterLoss,
    Contrastive,
    NormalizedSoftmax,
    Prototypes,
    Regression,
    Softmax,
    Triplet,
)
from hypersphere.training.diagram import network
from hypersphere.training.learner import Learner
from hypersphere.training.network import Network


def batch(n=12, dim=2, classes=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(n, dim, generator=g), torch.arange(n) % classes


# CosFace


def test_cosface_by_hand():
    """One image at 60 degrees from its class vector, 30 from the other: s (cos - m) for its own."""
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    z = 7 * torch.tensor([[math.cos(math.pi / 3), math.sin(math.pi / 3)]])
    own, other = 4 * (0.5 - 0.2), 4 * math.cos(math.pi / 6)
    expected = math.log(1 + math.exp(other - own))
    found = losses.normalized_softmax(z, vectors, torch.tensor([0]), 4.0, margin=0.2)
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_the_margin_counts_while_training_only():
    torch.manual_seed(0)
    head, (z, y) = NormalizedSoftmax(2, 4, scale=16.0, margin=0.2), batch()
    plain = F.cross_entropy(head.logits(z), y)
    assert head.loss(z, y) > plain
    head.margin = 0.0
    assert head.loss(z, y).item() == pytest.approx(plain.item())


def test_the_largest_margin_of_ten_classes_in_the_plane():
    """1 - cos(36 degrees): the gap between the own and the next class vector on a circle of ten."""
    vectors = prototypes.published(10, 2)
    cos = losses.cosine(vectors, vectors)
    gap = (1 - cos.fill_diagonal_(-1).max(1).values).min()
    assert gap.item() == pytest.approx(1 - math.cos(math.pi / 5), abs=1e-6)
    assert gap.item() == pytest.approx(0.191, abs=5e-4) and gap < 0.2


# Unit class vectors, centers


def test_unit_class_vectors():
    torch.manual_seed(0)
    head, (z, _) = Softmax(2, 4, bias=False, unit_vectors=True), batch()
    unit = head.class_vectors / head.class_vectors.norm(dim=1, keepdim=True)
    assert torch.allclose(head.logits(z), z @ unit.T)
    assert torch.allclose(head.logits(3 * z), 3 * head.logits(z)), "features keep their length"
    trained = head.trained(z, torch.arange(12) % 4, torch.arange(4), False)
    assert torch.allclose(trained.norm(dim=1), torch.ones(4))


def center_head(**choices):
    torch.manual_seed(0)
    defaults = {"bias": True, "unit_vectors": False, "weight": 0.1, "rate": 0.5}
    return CenterLoss(2, 4, **{**defaults, **choices})


def test_center_loss_against_a_loop():
    head, (z, y) = center_head(), batch()
    z.requires_grad_()
    centers = [[0.0, 0.0] for _ in range(4)]
    for _ in range(3):
        plain = F.cross_entropy(head.logits(z), y).item()
        square = sum(
            sum((a - b) ** 2 for a, b in zip(p, centers[c], strict=True))
            for p, c in zip(z.tolist(), y.tolist(), strict=True)
        )
        loss = head.loss(z, y)
        loss.backward()  # the old centers are still there for the gradient
        assert loss.item() == pytest.approx(plain + 0.05 * square / 12, rel=1e-5)
        for c in range(4):
            mine = [p for p, k in zip(z.tolist(), y.tolist(), strict=True) if k == c]
            for d in range(2):
                move = sum(p[d] - centers[c][d] for p in mine) / (1 + len(mine))
                centers[c][d] += 0.5 * move
        assert torch.allclose(head.centers, torch.tensor(centers), atol=1e-6)


def test_centers_rest_outside_training_and_are_saved():
    head, (z, y) = center_head(), batch()
    head.loss(z, y)
    moved = head.centers.clone()
    assert moved.abs().min() > 0
    head.eval().loss(z, y)
    assert torch.equal(head.centers, moved)
    other = center_head()
    other.load_state_dict(head.state_dict())
    assert torch.equal(other.centers, moved)
    assert "centers" not in dict(head.named_parameters()), "the optimiser must not move them"


def test_a_class_that_is_not_in_the_batch_keeps_its_center():
    head, (z, _) = center_head(), batch()
    head.loss(z, torch.zeros(12, dtype=torch.long))
    assert head.centers[0].abs().sum() > 0 and not head.centers[1:].any()


# Distances without unit length


def test_distances_as_they_are():
    z, y = batch()
    triplet = Triplet(2, 4, margin=1.0, squared=True, mining="semihard", normalize=False)
    assert triplet.loss(z, y) == losses.triplet(z, y, 1.0, True, "semihard")
    pairs = Contrastive(2, 4, margin=2.0, pairs="all", normalize=False, factor=0.5)
    assert pairs.loss(z, y) == losses.contrastive(z, y, 2.0, "all") / 2
    for head in (triplet, pairs):
        means = head.trained(z, y, torch.arange(4), True)
        assert torch.allclose(means[1], z[y == 1].mean(0), atol=1e-6)
        expected = -torch.cdist(z, means).square()
        assert torch.allclose(head.scores(z, means), expected, atol=1e-4)


# Targets


def test_regression_by_hand():
    head, (z, y) = Regression(2, 4, targets="sphere"), batch()
    circle = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    assert torch.allclose(head.targets, circle, atol=1e-6)
    error = [sum((a - b) ** 2 for a, b in zip(p, circle[c].tolist(), strict=True))
             for p, c in zip(z.tolist(), y.tolist(), strict=True)]  # fmt: skip
    assert head.loss(z, y).item() == pytest.approx(sum(error) / 12, rel=1e-5)
    assert torch.equal(head.logits(z).argmax(1), torch.cdist(z, circle).argmin(1))
    assert not list(head.parameters()) and "class_vectors" in head.state_dict()


def test_a_raster():
    points = Regression(2, 10, targets="raster").targets
    assert points.shape == (10, 2) and points.mean(0).tolist() == [0.0, 0.0]
    apart = torch.cdist(points, points).fill_diagonal_(9)
    assert torch.equal(apart.min(1).values, torch.ones(10))
    with pytest.raises(ValueError, match="targets=raster is for two dimensions, not 3"):
        Regression(3, 10, targets="raster")


def test_points_on_the_sphere():
    points = prototypes.published(10, 3)
    assert torch.allclose(points.norm(dim=1), torch.ones(10))
    assert torch.equal(points, prototypes.published(10, 3)), "the same for every run"
    nearest = (points @ points.T).fill_diagonal_(-1).max(1).values.acos().rad2deg()
    # the best ten points are 66.1468 degrees apart (Sloane's tables); 1,000 steps come near
    assert nearest.min() > 62 and nearest.max() < 66.15 + 1
    with pytest.raises(ValueError, match="1 prototypes in 3 dimensions"):
        prototypes.published(1, 3)


# Prototypes


def test_the_squared_cosine_loss_by_hand():
    head = Prototypes(2, 4, placement="published", placement_seed=0, reduction="sum")
    z = torch.tensor([[3.0, 0.0], [0.0, 2.0], [0.5, 0.5], [-1.0, 0.0]])
    cosines = [1, 0, math.sqrt(0.5), -1]  # to (1, 0); pointing away costs most
    expected = sum((1 - c) ** 2 for c in cosines)
    labels = torch.zeros(4, dtype=torch.long)
    assert head.loss(z, labels).item() == pytest.approx(expected)
    head.reduction = "mean"
    assert head.loss(z, labels).item() == pytest.approx(expected / 4)
    weights = torch.tensor([0.0, 1.0, 0.0, 2.0])
    assert head.loss(z, labels, weights).item() == pytest.approx((1 + 2 * 4) / 4)
    head.absolute = True  # as eq. 1 is printed: pointing away costs nothing
    assert head.loss(z, labels).item() == pytest.approx((expected - 4) / 4)
    assert head.logits(z).argmax(1).tolist()[:2] == [0, 1]


def test_prototypes_never_move():
    words = ["paper=embedded-spaces", "head=prototypes", "backbone.dim=4"]
    chosen, _ = split_config(compose(words))
    module = Learner(chosen)
    head = module.network.head
    before = head.class_vectors.clone()
    assert not list(head.parameters()) and "head.class_vectors" in module.network.state_dict()
    optimizer = module.optimizers()[0]
    images = torch.randint(0, 256, (30, 1, 8, 8), dtype=torch.uint8)
    module.loss(images, torch.arange(30) % 10).backward()
    optimizer.step()
    assert torch.equal(head.class_vectors, before)
    assert torch.equal(before, prototypes.published(10, 4))


# Batches


def test_class_balanced_batches():
    labels = np.repeat([0, 1, 2, 3, 4], [40, 30, 20, 10, 3])
    batches = list(ClassBalanced(classes=4, images=5).epoch(labels, np.random.default_rng(0)))
    assert len(batches) == 103 // 20
    for each in batches:
        assert sorted(np.unique(labels[each], return_counts=True)[1]) == [5, 5, 5, 5]
    smallest = np.concatenate([each[labels[each] == 4] for each in batches])
    times = np.unique(smallest, return_counts=True)[1]
    assert len(times) == 3 and times.max() - times.min() <= 1, "oversampled, each image alike"
    largest = np.concatenate([each[labels[each] == 0] for each in batches])
    assert len(set(largest)) == len(largest), "no image twice before all were shown"
    again = list(ClassBalanced(classes=4, images=5).epoch(labels, np.random.default_rng(0)))
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))
    with pytest.raises(ValueError, match="classes=6: there are 5 classes"):
        list(ClassBalanced(classes=6, images=5).epoch(labels, np.random.default_rng(0)))


# The network


def test_the_papers_network():
    found = CNN(1, 28, filters=[32, 64, 128], hidden=256, dim=2, activation="linear")
    counted = (9 * 32 + 32) + (9 * 32 * 64 + 64) + (9 * 64 * 128 + 128)
    counted += (7 * 7 * 128 * 256 + 256) + (256 * 2 + 2)
    assert sum(p.numel() for p in found.parameters()) == counted
    kinds = [type(layer).__name__ for layer in found.layers]
    assert kinds == ["Conv2d", "ReLU", "MaxPool2d", "Conv2d", "ReLU", "MaxPool2d", "Conv2d", "ReLU",
                     "Flatten", "Linear", "ReLU"]  # fmt: skip
    with pytest.raises(ValueError, match="3 convolutions pool an image of 3 pixels to nothing"):
        CNN(1, 3, filters=[4, 4, 4], hidden=4, dim=2, activation="linear")


@pytest.mark.parametrize(
    ("activation", "low", "high"),
    [("linear", -99, 99), ("sigmoid", 0, 1), ("relu", 0, 99), ("selu", -1.7581, 99)],
)
def test_activation_bounds_the_embedding(activation, low, high):
    torch.manual_seed(0)
    net = CNN(1, 8, filters=[4], hidden=8, dim=2, activation=activation)
    with torch.no_grad():
        net.embedding.weight.mul_(30)
        z = net(torch.rand(64, 1, 8, 8) * 10 - 5)
    assert low <= z.min() and z.max() <= high
    assert (z < 0).any() == (activation in ("linear", "selu"))


def test_the_embedding_is_float32_under_autocast():
    """bfloat16 would put the points of a plane on a grid of 8 bits."""
    net = CNN(1, 8, filters=[4], hidden=8, dim=2, activation="linear")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        z = net(torch.rand(64, 1, 8, 8))
    assert z.dtype == torch.float32
    assert not torch.equal(z, z.bfloat16().float())


# Through the configuration


SPACES = {
    "cosface": ["head=cosface"],
    "unit": ["head=softmax", "head.bias=false", "head.unit_vectors=true"],
    "center": ["head=center"],
    "contrastive": ["head=contrastive", "batches=shuffled", "head.pairs=all",
                    "head.normalize=false"],
    "triplet": ["head=triplet", "batches=class_balanced", "head.normalize=false"],
    "regression": ["head=regression", "backbone.dim=3"],
    "prototypes": ["head=prototypes", "backbone.dim=3", "head.steps=100"],
}  # fmt: skip


@pytest.mark.parametrize("name", SPACES)
def test_every_space_learns(name):
    chosen, _ = split_config(compose(["paper=embedded-spaces", *SPACES[name]]))
    module = Learner(chosen)
    optimizer = module.optimizers()[0]
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 10
    images = torch.randint(0, 256, (60, 1, 8, 8), dtype=torch.uint8, generator=g)
    first = module.loss(images, labels).item()
    for _ in range(60):
        optimizer.zero_grad()
        loss = module.loss(images, labels)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.97 * first
    other = Network(chosen)
    other.load_state_dict(module.network.state_dict())
    assert torch.equal(other.eval()(images), module.network.eval()(images))


def test_new_parameters_orphan_no_run():
    """A head with the values it always had has the identity it always had."""
    words = {"head=nsl": {"scale"}, "head=softmax": {"bias"},
             "head=triplet": {"margin", "squared", "mining"},
             "head=contrastive": {"margin", "pairs"}}  # fmt: skip
    for word, expected in words.items():
        chosen, _ = split_config(compose(["paper=nsl", word]))
        assert chosen.components["head"].identity().keys() - {"name", "revision"} == expected


def test_a_raster_in_three_dimensions_is_refused():
    words = ["paper=embedded-spaces", "head=regression", "head.targets=raster", "backbone.dim=3"]
    chosen, _ = split_config(compose(words))
    with pytest.raises(UserError, match=r"head \(3 dimensions\): targets=raster is for two dim"):
        Network(chosen)


# The schematic


def test_the_schematic_shows_the_network():
    found = network(overrides=["paper=embedded-spaces/paper", "backbone.dim=3"])
    assert (found["dim"], found["classifier"]) == (3, 3 * 10 + 10)
    diagram = found["diagram"]
    assert list(diagram["details"]) == [
        "1 x 28 x 28", "32 x 14 x 14", "64 x 7 x 7", "128 x 7 x 7", "256", "3 dimensions",
        "10 class scores",
    ]  # fmt: skip
    assert len(diagram["sources"]) == len(diagram["labels"]) - 1
