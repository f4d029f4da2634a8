"""Each loss against a slow float64 loop written from its definition, and against
pytorch-metric-learning where it has the same loss."""

import math

import numpy as np
import pytest
import torch
from pytorch_metric_learning import losses as pml
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.reducers import DoNothingReducer
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from hypersphere import losses

# All angles, with exactly coincident (0), orthogonal (90) and opposite (180) points among them.
ANGLES = [0, 0, 90, 180, 37, 121, 90, 180, 5, 64]
LABELS = [0, 1, 0, 0, 1, 1, 2, 2, 2, 0]
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-10}
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def at(angles, dtype=torch.float64, exact=True):
    """Unit vectors in the plane; the right angles without the rounding of sin and cos."""
    points = [(math.cos(math.radians(a)), math.sin(math.radians(a))) for a in angles]
    right = {0: (1.0, 0.0), 90: (0.0, 1.0), 180: (-1.0, 0.0)}
    return torch.tensor([right.get(a, p) for a, p in zip(angles, points, strict=True)], dtype=dtype)


def random_batch(seed, n=24, dim=6, classes=4, dtype=torch.float64):
    rng = np.random.default_rng(seed)
    z = torch.tensor(rng.normal(size=(n, dim)), dtype=dtype)
    return F.normalize(z, dim=1), torch.tensor(rng.permutation(np.arange(n) % classes))


# The slow references: Python floats (float64), one loop per sum.


def slow_distance(a, b):
    return math.sqrt(math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True)))


def slow_cosine(a, b):
    length = math.sqrt(math.fsum(x * x for x in a)) * math.sqrt(math.fsum(y * y for y in b))
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / length


def slow_normalized_softmax(z, w, labels, scale):
    total = 0.0
    for embedding, label in zip(z, labels, strict=True):
        logits = [scale * slow_cosine(embedding, vector) for vector in w]
        top = max(logits)
        total += top + math.log(math.fsum(math.exp(x - top) for x in logits)) - logits[label]
    return total / len(labels)


def slow_semihard(z, labels, margin, squared):
    """TensorFlow Addons' triplet_semihard_loss: for each ordered positive pair the smallest
    negative distance above the positive one (`negatives_outside`), else the largest negative
    distance (`negatives_inside`); mean over the positive pairs."""
    n, terms = len(labels), []
    power = 2 if squared else 1
    d = [[slow_distance(a, b) ** power for b in z] for a in z]
    for anchor in range(n):
        for positive in range(n):
            if anchor == positive or labels[anchor] != labels[positive]:
                continue
            negatives = [d[anchor][k] for k in range(n) if labels[k] != labels[anchor]]
            outside = [x for x in negatives if x > d[anchor][positive]]
            chosen = min(outside) if outside else max(negatives)
            terms.append(max(0.0, margin + d[anchor][positive] - chosen))
    return math.fsum(terms) / len(terms)


def slow_all_triplets(z, labels, margin, squared):
    n, active = len(labels), []
    power = 2 if squared else 1
    for a in range(n):
        for p in range(n):
            for k in range(n):
                if a == p or labels[a] != labels[p] or labels[a] == labels[k]:
                    continue
                term = (
                    margin + slow_distance(z[a], z[p]) ** power - slow_distance(z[a], z[k]) ** power
                )
                if term > 0:
                    active.append(term)
    return math.fsum(active) / max(len(active), 1)


def slow_contrastive(z, labels, margin, pairs):
    n, terms = len(labels), []
    for i in range(n):
        for j in range(i + 1, n):
            if pairs == "consecutive" and not (i % 2 == 0 and j == i + 1):
                continue
            d = slow_distance(z[i], z[j])
            terms.append(d**2 if labels[i] == labels[j] else max(0.0, margin - d) ** 2)
    return math.fsum(terms) / len(terms)


# Normalised softmax


@both_dtypes
@pytest.mark.parametrize("scale", [1.0, 16.0, 64.0])
def test_normalized_softmax_at_known_angles(dtype, scale):
    z, w = at(ANGLES, dtype), at([0, 90, 180], dtype)
    labels = torch.tensor(LABELS)
    expected = slow_normalized_softmax(z.tolist(), w.tolist(), LABELS, scale)
    got = losses.normalized_softmax(z, w, labels, scale)
    assert got.dtype == dtype
    assert got.item() == pytest.approx(expected, rel=TOLERANCE[dtype])


def test_normalized_softmax_by_hand():
    # One class vector at the embedding's own angle, one opposite: log(1 + exp(-2 * scale)).
    z, w = at([90]), at([90, 270])
    loss = losses.normalized_softmax(z, w, torch.tensor([0]), 3.0)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-6.0)), rel=1e-12)
    wrong = losses.normalized_softmax(z, w, torch.tensor([1]), 3.0)
    assert wrong.item() == pytest.approx(6.0 + math.log1p(math.exp(-6.0)), rel=1e-12)


@both_dtypes
def test_normalized_softmax_ignores_lengths(dtype):
    z, labels = random_batch(0, dtype=dtype)
    w = random_batch(1, n=4, dtype=dtype)[0]
    plain = losses.normalized_softmax(z, w, labels, 16.0)
    lengths = torch.linspace(0.1, 9, len(z), dtype=dtype)[:, None]
    stretched = losses.normalized_softmax(z * lengths, w * 7, labels, 16.0)
    torch.testing.assert_close(plain, stretched)


@both_dtypes
def test_normalized_softmax_matches_pytorch_metric_learning(dtype):
    # Their W is (dim, classes) and their temperature 1 / scale; both normalise z and W.
    z, labels = random_batch(2, dtype=dtype)
    w = random_batch(3, n=4, dtype=dtype)[0] * 3
    oracle = pml.NormalizedSoftmaxLoss(num_classes=4, embedding_size=6, temperature=1 / 16).to(
        dtype
    )
    with torch.no_grad():
        oracle.W.copy_(w.T)
    ours = losses.normalized_softmax(2 * z, w, labels, 16.0)
    assert ours.item() == pytest.approx(oracle(2 * z, labels).item(), rel=TOLERANCE[dtype])


# Distances


@both_dtypes
def test_distances_at_known_angles(dtype):
    # The chord over an angle is 2 sin(angle / 2): 0, sqrt 2 and 2 at 0, 90 and 180 degrees.
    angles = list(range(0, 181, 15))
    d = losses.distances(at([0], dtype), at(angles, dtype))[0]
    expected = torch.tensor([2 * math.sin(math.radians(a) / 2) for a in angles], dtype=dtype)
    # |a|^2 + |b|^2 - 2ab cancels near zero, hence the absolute bound.
    torch.testing.assert_close(d, expected, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-12)
    assert d[0] == 0 and d[-1] == 2
    squared = losses.distances(at([0], dtype), at(angles, dtype), squared=True)[0]
    torch.testing.assert_close(squared, expected**2, rtol=0, atol=1e-6)


def test_gradient_of_a_zero_distance_is_zero():
    a = at([0, 90]).requires_grad_()
    losses.distances(a, at([0, 90])).diagonal().sum().backward()
    assert torch.equal(a.grad, torch.zeros_like(a))


# Triplet


@both_dtypes
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("mining", ["semihard", "all"])
@pytest.mark.parametrize("margin", [0.2, 1.0])
def test_triplet_against_loops(dtype, squared, mining, margin):
    slow = slow_semihard if mining == "semihard" else slow_all_triplets
    for seed in range(5):
        z, labels = random_batch(seed, dtype=dtype)
        expected = slow(z.tolist(), labels.tolist(), margin, squared)
        assert expected > 0
        got = losses.triplet(z, labels, margin, squared, mining)
        assert got.dtype == dtype
        assert got.item() == pytest.approx(expected, rel=1e-4 if dtype == torch.float32 else 1e-10)


@pytest.mark.parametrize("mining", ["semihard", "all"])
@pytest.mark.parametrize("squared", [False, True])
def test_triplet_at_known_angles(mining, squared):
    # Right angles alone: distances are exact in both the fast and the slow way, ties included.
    angles = [0, 0, 90, 180, 90, 180, 0, 90]
    labels = [0, 1, 0, 0, 1, 2, 2, 1]
    z = at(angles)
    slow = slow_semihard if mining == "semihard" else slow_all_triplets
    expected = slow(z.tolist(), labels, 1.0, squared)
    got = losses.triplet(z, torch.tensor(labels), 1.0, squared, mining)
    assert got.item() == pytest.approx(expected, rel=1e-12)


@both_dtypes
@pytest.mark.parametrize(
    ("angles", "expected"),
    [
        # anchor-positive chord at 60 degrees is 1; both negatives' chords in comments
        ([0, 60, 90], 1.0 + 1 - math.sqrt(2) + 1.0 + 1 - 2 * math.sin(math.radians(15))),
        ([0, 0, 180], 0.0),  # coincident positives, opposite negative: 1 + 0 - 2 < 0
        ([0, 180, 90], 2 * (1 + 2 - math.sqrt(2))),  # none farther: the farthest negative
    ],
)
def test_semihard_by_hand(dtype, angles, expected):
    loss = losses.triplet(at(angles, dtype), torch.tensor([0, 0, 1]), 1.0)
    assert loss.item() == pytest.approx(expected / 2, rel=1e-5, abs=1e-7)


def test_semihard_takes_the_nearest_negative_beyond_the_positive():
    # From 0: positive at 60 (1.0), negatives at 30 (nearer, 0.518), 90 (1.414), 150 (1.932).
    # From 60: positive 0 (1.0), negatives at 30 (0.518), 90 (0.518), 150 (1.414).
    z, labels = at([0, 60, 30, 90, 150]), torch.tensor([0, 0, 1, 2, 3])
    expected = ((1 + 1 - math.sqrt(2)) + (1 + 1 - math.sqrt(2))) / 2
    assert losses.triplet(z, labels, 1.0).item() == pytest.approx(expected, rel=1e-12)


def test_all_triplets_match_pytorch_metric_learning():
    # Their default: Euclidean distance of normalised embeddings, every triplet of the batch, mean
    # over those above zero (AvgNonZeroReducer). Their margin and squared (power=2) are ours.
    for seed in range(3):
        z, labels = random_batch(seed, n=16)
        for power in (1, 2):
            oracle = pml.TripletMarginLoss(margin=0.3, distance=LpDistance(power=power))
            ours = losses.triplet(z, labels, 0.3, power == 2, "all")
            assert ours.item() == pytest.approx(oracle(z, labels).item(), rel=1e-6)


@pytest.mark.parametrize("squared", [False, True])
def test_gradient_of_all_triplets_is_that_of_their_list(squared):
    """Right angles: many terms are exactly 0 and 1, and the terms at the kink count as ever."""
    on_axes = at([0, 0, 90, 180, 90, 180, 0, 90]), [0, 1, 0, 0, 1, 2, 2, 1]
    for z, labels in (on_axes, random_batch(8, n=18, classes=3)):
        y = torch.as_tensor(labels)
        z = z.clone().requires_grad_()
        d = losses.distances(z, z, squared)
        same = y[:, None] == y[None]
        other = same & ~torch.eye(len(y), dtype=torch.bool)
        terms = (1.0 + d[:, :, None] - d[:, None])[other[:, :, None] & ~same[:, None]].clamp_min(0)
        listed = terms.sum() / (terms > 0).sum()
        got = losses.triplet(z, y, 1.0, squared, "all")
        torch.testing.assert_close(got, listed, rtol=1e-14, atol=0)
        expected, found = (torch.autograd.grad(loss, z)[0] for loss in (listed, got))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
        assert expected.abs().max() > 0.01


class Largest(TorchDispatchMode):
    """The largest tensor that comes to be."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for each in out if isinstance(out, tuple | list) else [out]:
            if isinstance(each, torch.Tensor):
                self.numel = max(self.numel, each.numel())
        return out


def test_all_triplets_take_a_row_per_positive_pair_and_no_cube():
    z, y = random_batch(9, n=60, classes=20)
    with Largest() as largest:
        losses.triplet(z.requires_grad_(), y, 1.0, mining="all").backward()
    assert largest.numel == 60 * 2 * 60


@pytest.mark.parametrize("mining", ["semihard", "all"])
@pytest.mark.parametrize(
    "labels", [[0, 0, 0, 0], [0, 1, 2, 3]], ids=["single class", "no positive pair"]
)
def test_triplet_without_a_triplet_is_zero_with_gradient(mining, labels):
    z = at([0, 0, 90, 180]).requires_grad_()
    loss = losses.triplet(z, torch.tensor(labels), 1.0, mining=mining)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(z.grad, torch.zeros_like(z))


@pytest.mark.parametrize("mining", ["semihard", "all"])
def test_triplet_with_no_active_triplet(mining):
    # Classes at 0 and 180 degrees: 0.5 + 0 - 2 < 0 everywhere.
    z = at([0, 0, 180, 180]).requires_grad_()
    loss = losses.triplet(z, torch.tensor([0, 0, 1, 1]), 0.5, mining=mining)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(z.grad, torch.zeros_like(z))


# Contrastive


@both_dtypes
@pytest.mark.parametrize("pairs", ["consecutive", "all"])
@pytest.mark.parametrize("margin", [0.5, 1.0, 2.5])
def test_contrastive_against_loops(dtype, pairs, margin):
    batches = [(at(ANGLES, dtype), torch.tensor(LABELS))]
    batches += [random_batch(seed, dtype=dtype) for seed in range(3)]
    for z, labels in batches:
        expected = slow_contrastive(z.tolist(), labels.tolist(), margin, pairs)
        got = losses.contrastive(z, labels, margin, pairs)
        assert got.dtype == dtype
        # Coincident points of two classes: float32 distances are only good to 1e-3 there (`all`).
        bound = 1e-3 if dtype == torch.float32 else 1e-7
        assert got.item() == pytest.approx(expected, rel=bound)


def test_contrastive_by_hand():
    # Pairs (0, 180) of one class: d^2 = 4; (0, 0) of two classes: margin^2 = 2.25; (0, 90) of
    # two classes: (1.5 - sqrt 2)^2.
    z, labels = at([0, 180, 0, 0, 0, 90]), torch.tensor([0, 0, 0, 1, 0, 1])
    expected = (4 + 2.25 + (1.5 - math.sqrt(2)) ** 2) / 3
    assert losses.contrastive(z, labels, 1.5).item() == pytest.approx(expected, rel=1e-12)


def test_contrastive_matches_pytorch_metric_learning():
    # Theirs: relu(d^p - pos_margin) and relu(neg_margin - d^p) per ordered pair, not squared,
    # averaged by kind. With pos_margin 0 and power 2 the first is our d^2; with power 1 the
    # second is the root of our max(0, m - d)^2. Ordered pairs count both ways, so the mean over
    # all of them is our mean over unordered pairs.
    margin, nothing = 1.1, DoNothingReducer()
    for seed in range(3):
        z, labels = random_batch(seed, n=16)
        square = pml.ContrastiveLoss(0, margin, distance=LpDistance(power=2), reducer=nothing)
        plain = pml.ContrastiveLoss(0, margin, distance=LpDistance(), reducer=nothing)
        positive = square(z, labels)["pos_loss"]["losses"]
        negative = plain(z, labels)["neg_loss"]["losses"]
        assert len(positive) + len(negative) == 16 * 15
        expected = (positive.sum() + negative.square().sum()) / (16 * 15)
        ours = losses.contrastive(z, labels, margin, "all")
        assert ours.item() == pytest.approx(expected.item(), rel=1e-6)


def test_contrastive_beyond_the_margin_is_zero():
    z = at([0, 180, 180, 0]).requires_grad_()
    loss = losses.contrastive(z, torch.tensor([0, 1, 0, 1]), 1.0)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(z.grad, torch.zeros_like(z))


@pytest.mark.parametrize("pairs", ["consecutive", "all"])
def test_contrastive_of_one_class_is_the_mean_square(pairs):
    z = at([0, 90, 180, 180])
    squares = {"consecutive": [2, 0], "all": [2, 4, 4, 2, 2, 0]}[pairs]
    loss = losses.contrastive(z, torch.zeros(4, dtype=torch.long), 1.0, pairs)
    assert loss.item() == pytest.approx(np.mean(squares), rel=1e-12)


def test_contrastive_refuses_an_odd_batch_of_consecutive_pairs():
    with pytest.raises(ValueError, match="even batch, got 3"):
        losses.contrastive(at([0, 90, 180]), torch.tensor([0, 1, 0]), 1.0)


# Lifted structured


@both_dtypes
@pytest.mark.parametrize("margin", [0.3, 1.0])
def test_lifted_structured_against_loops(dtype, margin):
    z, labels = random_batch(4, n=14, dtype=dtype)
    terms = []
    for i in range(14):
        for j in range(i + 1, 14):
            if labels[i] != labels[j]:
                continue
            pushed = [
                math.exp(margin - slow_distance(z[a], z[k]))
                for a in (i, j)
                for k in range(14)
                if labels[k] != labels[i]
            ]
            term = slow_distance(z[i], z[j]) + math.log(math.fsum(pushed))
            terms.append(max(0.0, term) ** 2)
    expected = math.fsum(terms) / (2 * len(terms))
    loss = losses.lifted_structured(z, labels, margin).item()
    assert loss == pytest.approx(expected, rel=1e-5 if dtype == torch.float32 else 1e-12)


def test_lifted_structured_matches_pytorch_metric_learning():
    raw = LpDistance(normalize_embeddings=False)
    theirs = pml.LiftedStructureLoss(neg_margin=1.0, pos_margin=0.0, distance=raw)
    for seed in range(3):
        z, labels = random_batch(seed, n=16)
        ours = losses.lifted_structured(3 * z, labels, 1.0)
        assert ours.item() == pytest.approx(theirs(3 * z, labels).item(), rel=1e-6)


def test_lifted_structured_by_hand():
    # On a line: 0 and 1 of one class, 3 of another; both are pushed by exp(1 - 3) + exp(1 - 2).
    z, labels = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([0, 0, 1])
    expected = (1 + math.log(math.exp(-2) + math.exp(-1))) ** 2 / 2
    assert losses.lifted_structured(z, labels, 1.0).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2]])
def test_lifted_structured_without_pairs_of_both_kinds_is_zero(labels):
    z = at([0, 90, 180]).requires_grad_()
    loss = losses.lifted_structured(z, torch.tensor(labels), 1.0)
    loss.backward()
    assert loss.item() == 0 and torch.equal(z.grad, torch.zeros_like(z))


# Gradients

LOSSES = {
    "normalized_softmax": lambda z, y: losses.normalized_softmax(
        z, at([0, 90, 180], z.dtype), y, 16.0
    ),
    "semihard": lambda z, y: losses.triplet(z, y, 1.0),
    "semihard squared": lambda z, y: losses.triplet(z, y, 1.0, True),
    "all triplets": lambda z, y: losses.triplet(z, y, 1.0, mining="all"),
    "contrastive": lambda z, y: losses.contrastive(z, y, 1.0),
    "contrastive all": lambda z, y: losses.contrastive(z, y, 1.0, "all"),
    "lifted structured": lambda z, y: losses.lifted_structured(z, y, 1.0),
}


@both_dtypes
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    "angles", [ANGLES, [0] * 10, [0, 180] * 5], ids=["all", "coincident", "opposite"]
)
def test_gradients_are_finite(dtype, name, angles):
    raw = (3 * at(angles, dtype)).requires_grad_()
    loss = LOSSES[name](F.normalize(raw, dim=1), torch.tensor(LABELS))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(raw.grad).all()


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_finite_at_zero_embeddings(name):
    raw = torch.zeros(10, 2, requires_grad=True)
    LOSSES[name](F.normalize(raw, dim=1), torch.tensor(LABELS)).backward()
    assert torch.isfinite(raw.grad).all()


@pytest.mark.parametrize("name", LOSSES)
def test_gradcheck(name):
    # Random points: no two coincide, no term lies within the check's step of its kink.
    z, _ = random_batch(11, n=10, dim=2)
    z.requires_grad_()
    y = torch.tensor(LABELS)
    value = LOSSES[name](z, y)
    assert value.item() > 0.01
    assert torch.autograd.gradcheck(lambda z: LOSSES[name](z, y), (z,), eps=1e-7, atol=1e-5)
