"""Heads own their class vectors, infer new ones, and score; the VGG network's shapes and sizes."""

import copy
import math
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from hypersphere import heads
from hypersphere.backbones import VGG
from hypersphere.heads import (
    Contrastive,
    LiftedStructured,
    NormalizedSoftmax,
    Triplet,
    class_means,
)
from hypersphere.training.learner import Learner
from hypersphere.training.network import Network

HEADS = {
    "nsl": lambda: NormalizedSoftmax(5, 4, scale=16.0),
    "triplet": lambda: Triplet(5, 4, margin=1.0, squared=False, mining="semihard"),
    "contrastive": lambda: Contrastive(5, 4, margin=1.0, pairs="all"),
    "lifted structured": lambda: LiftedStructured(5, 4, margin=1.0, normalize=True),
}
every_head = pytest.mark.parametrize("name", HEADS)


def batch(n=30, dim=5, classes=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, dim, generator=g) * 4, torch.arange(n) % classes


def slow_unit(v):
    length = math.sqrt(sum(x * x for x in v))
    return [x / length for x in v]


def slow_mean(embeddings, labels, c):
    members = [
        slow_unit(z) for z, y in zip(embeddings.tolist(), labels.tolist(), strict=True) if y == c
    ]
    return [sum(column) / len(members) for column in zip(*members, strict=True)]


# Class vectors belong to the head


def test_class_vectors_are_seen_by_optimizer_and_checkpoint(small):
    module = Learner(small())
    vectors = module.network.head.class_vectors
    assert vectors.shape == (8, 32)  # (classes, dim): 10 - 2 unseen
    optimizer = module.optimizers()[0]
    assert any(p is vectors for group in optimizer.param_groups for p in group["params"])
    assert "head.class_vectors" in module.network.state_dict()
    before = vectors.detach().clone()
    module.loss(
        torch.randint(0, 256, (16, 1, 8, 8), dtype=torch.uint8), torch.arange(16) % 8
    ).backward()
    optimizer.step()
    assert not torch.equal(before, vectors)


def test_save_and_load_gives_identical_logits(small, tmp_path):
    training = small()
    network = Network(training)
    with torch.no_grad():  # away from the initialisation, which a new network would have anyway
        for p in network.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    images = torch.randint(0, 256, (7, 1, 8, 8), dtype=torch.uint8)
    logits = network.head.logits(network(images))
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    fresh = Network(training)
    assert not torch.equal(fresh.head.logits(fresh(images)), logits)
    fresh.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(fresh.head.logits(fresh(images)), logits)


def test_initialisation_depends_on_the_seed_alone(small):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = Network(small()).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    second, other = Network(small()).state_dict(), Network(small("seed=1")).state_dict()
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert not torch.equal(first["head.class_vectors"], other["head.class_vectors"])
    assert not torch.equal(first["backbone.embedding.weight"], other["backbone.embedding.weight"])


# Inferring new classes


@every_head
def test_inferred_vectors_equal_a_loop(name):
    head, (z, y) = HEADS[name](), batch()
    classes = torch.tensor([4, 1, 5])
    raw = head.infer(z, y, classes, False)
    unit = head.infer(z, y, classes, True)
    for row, c in enumerate(classes.tolist()):
        mean = slow_mean(z, y, c)
        assert raw[row].tolist() == pytest.approx(mean, abs=1e-6)
        assert unit[row].tolist() == pytest.approx(slow_unit(mean), abs=1e-6)
    assert (raw.norm(dim=1) < 1).all()
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(3))


@every_head
def test_one_example_is_its_own_class_vector(name):
    z = torch.tensor([[3.0, 4.0, 0, 0, 0]])
    for renormalize in (True, False):
        vector = HEADS[name]().infer(z, torch.tensor([7]), torch.tensor([7]), renormalize)
        torch.testing.assert_close(vector, z / 5)


@every_head
def test_inferring_without_an_example_names_the_class(name):
    z, y = batch()
    with pytest.raises(ValueError, match=r"no example of class \[8, 9\]"):
        HEADS[name]().infer(z, y, torch.tensor([2, 8, 9]), True)


def test_class_means_in_the_order_asked():
    z, y = batch()
    means = class_means(z, y, torch.tensor([3, 0]))
    torch.testing.assert_close(means, torch.stack([z[y == 3].mean(0), z[y == 0].mean(0)]))


# Scores


def test_nsl_scores_and_trained_vectors_equal_a_loop():
    head, (z, y) = HEADS["nsl"](), batch()
    vectors = torch.cat(
        [head.trained(z, y, torch.arange(4), True), head.infer(z, y, torch.tensor([4, 5]), False)]
    )
    scores = head.scores(z, vectors)
    for i, embedding in enumerate(z.tolist()):
        unit = slow_unit(embedding)
        # The raw mean keeps its length: a dot product, not a cosine.
        expected = [
            16.0 * sum(a * b for a, b in zip(unit, v, strict=True)) for v in vectors.tolist()
        ]
        assert scores[i].tolist() == pytest.approx(expected, abs=1e-4)
    trained = head.class_vectors.tolist()
    for row in range(4):
        assert vectors[row].tolist() == pytest.approx(slow_unit(trained[row]), abs=1e-6)
    torch.testing.assert_close(scores[:, :4], head.logits(z))


def test_nsl_raw_means_score_lower_than_unit_ones():
    head, (z, y) = HEADS["nsl"](), batch()
    raw, unit = (head.scores(z, head.infer(z, y, torch.tensor([4]), r)) for r in (False, True))
    length = head.infer(z, y, torch.tensor([4]), False).norm()
    torch.testing.assert_close(raw, unit * length)
    assert (raw.abs() < unit.abs()).all()


@pytest.mark.parametrize("name", ["triplet", "contrastive"])
def test_mean_classifier_scores_equal_a_loop(name):
    head, (z, y) = HEADS[name](), batch()
    vectors = head.trained(z, y, torch.arange(6), False)
    scores = head.scores(z, vectors)
    for i, embedding in enumerate(z.tolist()):
        unit = slow_unit(embedding)
        distances = [math.dist(unit, v) for v in vectors.tolist()]
        assert scores[i].tolist() == pytest.approx([-d * d for d in distances], abs=1e-5)
        # Higher fits better: the nearest mean first.
        nearest = sorted(range(6), key=lambda k: distances[k])
        assert scores[i].argsort(descending=True).tolist() == nearest
    assert not head.classifies and not list(head.parameters())


def test_loss_of_heads_does_not_depend_on_length():
    z, y = batch(classes=4)
    for build in HEADS.values():
        head = build()
        torch.testing.assert_close(head.loss(z, y), head.loss(F.normalize(z, dim=1), y))


# VGG


def test_glorot_bounds_and_zero_bias():
    torch.manual_seed(0)
    network = VGG(1, 28, filters=[32, 64], dim=128)
    # Glorot: uniform within sqrt(6 / (fan_in + fan_out)); a 3x3 filter counts 9 times.
    fans = [9 * (1 + 32), 9 * (32 + 32), 9 * (32 + 64), 9 * (64 + 64), 3136 + 128]
    layers = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(layers) == len(fans)
    for layer, fan in zip(layers, fans, strict=True):
        bound = math.sqrt(6 / fan)
        # 288 draws or more: the largest misses the bound by 3 % with probability 2e-4 at most.
        assert 0.97 * bound < layer.weight.abs().max().item() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
        assert not layer.bias.any()


def test_head_vectors_start_glorot():
    torch.manual_seed(0)
    vectors = NormalizedSoftmax(128, 8, scale=16.0).class_vectors
    bound = math.sqrt(6 / (128 + 8))
    assert 0.97 * bound < vectors.abs().max().item() <= bound


@pytest.mark.parametrize(
    ("channels", "size", "flat", "expected"),
    [
        # conv 3x3: 9 * in * out + out; linear: in * out + out
        # 1->32: 320, 32->32: 9248, 32->64: 18496, 64->64: 36928, linear 7*7*64=3136 -> 128: 401536
        (1, 28, 3136, 320 + 9248 + 18496 + 36928 + 401536),
        # 3->32: 896, then the same, linear 8*8*64=4096 -> 128: 524416
        (3, 32, 4096, 896 + 9248 + 18496 + 36928 + 524416),
    ],
)
def test_parameters_of_the_papers_network(channels, size, flat, expected):
    network = VGG(channels, size, filters=[32, 64], dim=128)
    assert network.embedding.in_features == flat
    assert sum(p.numel() for p in network.parameters()) == expected
    assert network(torch.rand(2, channels, size, size)).shape == (2, 128)
    assert network.dim == 128
    # No activation after the embedding: both signs occur. No normalisation: lengths differ.
    z = network(torch.rand(8, channels, size, size))
    assert (z < 0).any() and (z > 0).any()
    assert not [m for m in network.modules() if isinstance(m, torch.nn.modules.batchnorm._NormBase)]


def test_block_order():
    kinds = [type(m).__name__ for m in VGG(1, 8, filters=[4, 6], dim=3).blocks]
    assert kinds == ["Conv2d", "ReLU", "Conv2d", "ReLU", "MaxPool2d"] * 2


def test_odd_sizes_are_pooled_down():
    assert VGG(1, 7, filters=[4, 6], dim=3)(torch.rand(2, 1, 7, 7)).shape == (2, 3)


def test_too_many_blocks():
    VGG(1, 8, filters=[2, 2, 2], dim=3)  # 8 -> 4 -> 2 -> 1
    with pytest.raises(ValueError, match="4 blocks halve an image of 8 pixels to nothing"):
        VGG(1, 8, filters=[2, 2, 2, 2], dim=3)


@pytest.mark.parametrize(("build", "says"), [
    (lambda: heads.NormalizedSoftmax(4, 3, scale=-1.0), "NormalizedSoftmax: scale=-1.0: input should be greater than 0"),
    (lambda: heads.NormalizedSoftmax(4, 3, scale=1.0, learn_scale="yes"), "learn_scale='yes': input should be 'no', 'shared' or 'per_class'"),
    (lambda: heads.Triplet(4, 3, margin=1.0, squared=False, mining="semi-hard"), "mining='semi-hard'"),
    (lambda: heads.RandomVectors(4, 3, similarity="dot", scale=2.0, learned=False, draw="gaussian", bias=0.0), "similarity=dot it must be 1"),
    (lambda: heads.Prototypes.from_points(torch.zeros(3, 4)), "none at the origin"),
])  # fmt: skip
def test_heads_that_are_built_by_hand_are_checked_like_configured_ones(build, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        build()


def test_prototypes_of_ones_own():
    points = torch.randn(5, 3) * 7
    head = heads.Prototypes.from_points(points)
    unit = torch.nn.functional.normalize(points, dim=1)
    assert torch.allclose(head.class_vectors, unit) and "class_vectors" in head.state_dict()
    assert head.loss(unit, torch.arange(5)).item() == pytest.approx(0, abs=1e-6)
    assert torch.equal(copy.deepcopy(head).class_vectors, head.class_vectors)
