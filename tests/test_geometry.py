"""The measures of an embedding against slow restatements, and at shapes whose answer is known."""

import math

import numpy as np
import pytest
import torch

from hypersphere.data.splits import Split
from hypersphere.evaluation import geometry
from hypersphere.evaluation.embeddings import Embeddings
from hypersphere.heads import Regression, Softmax, Triplet

K = 10
SPLIT = Split(tuple(range(K)), ())


def cloud(dim=2, n=300, seed=0, spread=0.3):
    g = torch.Generator().manual_seed(seed)
    centers = 4 * torch.randn(K, dim, generator=g)
    labels = torch.arange(n) % K
    points = [centers[labels] + spread * torch.randn(n, dim, generator=g) for _ in range(2)]
    return Embeddings(points[0], labels, points[1], labels.clone())


def on_circle(angles, lengths=None):
    """One test image per class, at these angles in degrees."""
    radians = torch.tensor(angles, dtype=torch.float).deg2rad()
    z = torch.stack([radians.cos(), radians.sin()], 1)
    if lengths is not None:
        z = z * torch.tensor(lengths)[:, None]
    labels = torch.arange(len(angles)).repeat(2)  # silhouette needs two of a class
    return Embeddings(z.repeat(2, 1), labels, z.repeat(2, 1), labels)


def softmax(dim=2, classes=K):
    torch.manual_seed(0)
    return Softmax(dim, classes, bias=True)


def measured(head, embeddings, split=SPLIT, points=5000):
    return geometry(head, embeddings, split, 0, points=points)


def test_against_loops():
    e, head = cloud(), softmax()
    found = measured(head, e)
    z, labels = e.test.double().numpy(), e.test_labels.numpy()
    means = np.array([z[labels == c].mean(0) for c in range(K)])
    train = np.array([e.train[e.train_labels == c].double().numpy().mean(0) for c in range(K)])
    nearest = [min(range(K), key=lambda c: math.dist(p, train[c])) for p in z]
    assert found["accuracy/nearest_mean"] == pytest.approx(np.mean(nearest == labels))
    own = head.logits(e.test).argmax(1).numpy()
    assert found["accuracy/own"] == pytest.approx(np.mean(own == labels))
    within = np.mean([math.dist(p, means[c]) ** 2 for p, c in zip(z, labels, strict=True)])
    between = np.mean([math.dist(m, means.mean(0)) ** 2 for m in means])
    assert found["scatter/within_over_between"] == pytest.approx(within / between)
    angles = []
    for c in range(K):
        unit = [p / math.hypot(*p) for p in z[labels == c]]
        mean = sum(unit) / math.hypot(*sum(unit))
        squares = [math.degrees(math.acos(min(1.0, float(u @ mean)))) ** 2 for u in unit]
        angles.append(math.sqrt(sum(squares) / len(squares)))
    assert found["angle/within"] == pytest.approx(np.mean(angles), rel=1e-6)
    around = sorted(math.degrees(math.atan2(m[1], m[0])) for m in means)
    gaps = [b - a for a, b in zip(around, [*around[1:], around[0] + 360], strict=True)]
    assert sum(gaps) == pytest.approx(360)
    assert found["angle/gaps"] == pytest.approx(np.std(gaps))
    lengths = [math.hypot(*m) for m in means]
    assert found["norms/spread"] == pytest.approx(np.std(lengths) / np.mean(lengths))
    assert (found["range/lowest"], found["range/highest"]) == (z.min(), z.max())


def test_silhouette_against_a_loop():
    e = cloud(n=60)
    z, labels = e.test.double().numpy(), e.test_labels.numpy()
    values = []
    for i, p in enumerate(z):
        apart = [
            np.mean([math.dist(p, q) for j, q in enumerate(z) if labels[j] == c and j != i])
            for c in range(K)
        ]
        own = apart.pop(labels[i])
        values.append((min(apart) - own) / max(min(apart), own))
    assert measured(softmax(), e)["silhouette"] == pytest.approx(np.mean(values))


def test_a_regular_circle_is_regular_wherever_it_starts():
    for start in (0, 7, 180, 355):
        found = measured(softmax(), on_circle([start + 36 * k for k in range(K)]))
        assert found["angle/gaps"] == pytest.approx(0, abs=1e-4)
        assert found["norms/spread"] == pytest.approx(0, abs=1e-6)
        assert found["angle/within"] == pytest.approx(0, abs=0.1)
        assert found["scatter/within_over_between"] == pytest.approx(0)


def test_an_irregular_circle():
    found = measured(
        softmax(classes=4), on_circle([0, 30, 180, 270], [1.0, 1.0, 1.0, 3.0]),
        Split((0, 1, 2, 3), ()),
    )  # fmt: skip
    assert found["angle/gaps"] == pytest.approx(np.std([30, 150, 90, 90]), rel=1e-5)
    assert found["norms/spread"] == pytest.approx(np.std([1, 1, 1, 3]) / 1.5, rel=1e-5)


def test_gaps_in_space_are_to_the_nearest_class():
    z = torch.eye(3).repeat(2, 1)
    labels = torch.arange(3).repeat(2)
    found = measured(softmax(3, 3), Embeddings(z, labels, z, labels), Split((0, 1, 2), ()))
    assert found["angle/gaps"] == pytest.approx(0, abs=1e-9)
    moved = z.clone()
    moved[labels == 2] = torch.tensor([0.0, 1.0, 1.0])  # 45 degrees from the second
    found = measured(softmax(3, 3), Embeddings(moved, labels, moved, labels), Split((0, 1, 2), ()))
    assert found["angle/gaps"] == pytest.approx(np.std([90, 45, 45]))


def test_turning_and_scaling_change_no_relative_measure():
    e, head = cloud(), Triplet(2, K, margin=1.0, squared=True, mining="all", normalize=False)
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]])
    turned = Embeddings(3 * e.train @ turn, e.train_labels, 3 * e.test @ turn, e.test_labels)
    before, after = measured(head, e), measured(head, turned)
    for name, value in before.items():
        if name.split("/")[0] not in ("range", "scatter") or name == "scatter/within_over_between":
            assert after[name] == pytest.approx(value, rel=1e-4), name


def test_targets_count_in_units_of_half_their_smallest_distance():
    head = Regression(2, K, targets="raster")
    z = head.targets.repeat(2, 1)
    labels = torch.arange(K).repeat(2)
    shifted = z + torch.tensor([0.3, 0.4])  # half of spacing 1
    found = measured(head, Embeddings(z, labels, shifted, labels))
    assert found["target/points"] == pytest.approx(1.0) == found["target/means"]
    assert found["accuracy/own"] == found["accuracy/nearest_mean"]
    found = measured(head, Embeddings(z, labels, z, labels))
    assert found["target/means"] == 0 and found["accuracy/own"] == 1
    assert not [name for name in measured(softmax(), cloud()) if name.startswith("target")]


def test_what_the_picture_needs():
    e, head = cloud(n=2000), Regression(2, K, targets="sphere")
    kept = measured(head, e, points=500)["scatter"]
    assert kept["embeddings"].shape == (500, 2) and kept["embeddings"].dtype == np.float16
    assert np.array_equal(kept["targets"], head.targets.numpy())
    rows = {tuple(p) for p in e.test.numpy().astype(np.float16).tolist()}
    assert {tuple(p) for p in kept["embeddings"].tolist()} <= rows
    by_point = {tuple(p): c for p, c in zip(e.test.numpy().astype(np.float16).tolist(),
                                            e.test_labels.tolist(), strict=True)}  # fmt: skip
    assert [by_point[tuple(p)] for p in kept["embeddings"].tolist()] == kept["labels"].tolist()
    assert "targets" not in measured(softmax(), e)["scatter"]
    wide = cloud(dim=5)
    assert "scatter" not in measured(softmax(5), wide)


def test_classes_that_were_not_trained_do_not_count():
    e = cloud()
    keep = e.test_labels < 4
    split = Split((0, 1, 2, 3), (4, 5, 6, 7, 8, 9))
    found = measured(softmax(classes=4), e, split)
    only = Embeddings(e.train, e.train_labels, e.test[keep], e.test_labels[keep])
    assert found["silhouette"] == measured(softmax(classes=4), only, split)["silhouette"]
    assert set(found["scatter"]["labels"].tolist()) == {0, 1, 2, 3}


def test_a_network_that_sends_every_image_to_one_point():
    """A dead ReLU: there is no ratio, and nothing is separated."""
    e = cloud()
    dead = Embeddings(0 * e.train, e.train_labels, 0 * e.test, e.test_labels)
    found = measured(softmax(), dead)
    assert math.isnan(found["scatter/within_over_between"]) and math.isnan(found["norms/spread"])
    assert found["accuracy/nearest_mean"] == 1 / K and found["silhouette"] <= 0
