"""Placements of prototypes against closed forms, known packings and restatements in loops."""

import hashlib
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hypersphere import prototypes
from hypersphere.data.inventory import unready
from hypersphere.errors import UserError
from hypersphere.papers.plan import make_plan
from hypersphere.prototypes import RankingLoss, best_bound, separation
from hypersphere.prototypes.placements import measured, place
from hypersphere.prototypes.privileged import TERMS
from hypersphere.prototypes.published import separation_loss


def cosines(points):
    unit = F.normalize(points.double(), dim=1)
    rows, columns = np.triu_indices(len(points), 1)
    return (unit @ unit.T)[rows, columns]


def random_unit(n, dim, seed=0):
    g = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, dim, generator=g, dtype=torch.double), dim=1)


# Closed forms


@pytest.mark.parametrize(("n", "dim"), [(2, 2), (3, 2), (4, 3), (5, 9), (100, 99), (100, 100)])
def test_a_simplex_has_one_cosine(n, dim):
    points = prototypes.simplex(n, dim)
    assert points.shape == (n, dim) and torch.allclose(points.norm(dim=1), torch.ones(n))
    assert torch.allclose(cosines(points), torch.tensor(-1 / (n - 1)).double(), atol=1e-6)
    if dim > 2:  # the paper's 1.0101 of 100 classes in 100 dimensions is 1 + 1/99
        assert torch.equal(prototypes.optimal(n, dim), points)


def test_a_simplex_that_does_not_fit():
    with pytest.raises(ValueError, match="a simplex of 5 points needs 4 dimensions, not 3"):
        prototypes.simplex(5, 3)


def test_an_orthoplex_is_at_right_angles():
    points = prototypes.optimal(17, 9)  # dim + 2 .. 2 dim
    assert cosines(points).max() == 0 and cosines(points).min() == -1
    with pytest.raises(ValueError, match="an orthoplex in 9 dimensions has 18 points"):
        prototypes.orthoplex(19, 9)


@pytest.mark.parametrize("place", [prototypes.optimal, prototypes.published])
def test_two_dimensions_are_equal_slices(place):
    points = place(7, 2)
    angles = torch.atan2(points[:, 1], points[:, 0]).rad2deg() % 360
    assert torch.allclose(angles, 360 / 7 * torch.arange(7), atol=1e-3)


def test_one_hot_and_semantic():
    assert torch.equal(prototypes.one_hot(3, 5), torch.eye(5)[:3])
    with pytest.raises(ValueError, match="one-hot vectors of 5 classes need as many dimensions"):
        prototypes.one_hot(5, 4)
    vectors = torch.randn(20, 30, generator=torch.Generator().manual_seed(0))
    points = prototypes.semantic(vectors, 19)  # all that centring leaves: distances are kept
    centred = vectors - vectors.mean(0)
    assert torch.allclose(cosines(points), cosines(centred), atol=1e-5)


@pytest.mark.parametrize("place", [prototypes.published, prototypes.optimal, prototypes.one_hot])
def test_too_few(place):
    with pytest.raises(ValueError, match="1 prototypes in 3 dimensions: needs two of both"):
        place(1, 3)


# The published procedure


def test_the_published_step_by_hand():
    """The gradient of the mean of the largest cosines is the sum over nearest pairs."""
    before = prototypes.published(5, 4, steps=0).double()
    nearest = (before @ before.T).fill_diagonal_(-2).max(1).indices.tolist()
    moved = before.clone()
    for i, j in enumerate(nearest):
        moved[i] -= 0.1 * before[j] / 5
        moved[j] -= 0.1 * before[i] / 5
    after = prototypes.published(5, 4, steps=1)
    assert torch.allclose(after, F.normalize(moved, dim=1).float(), atol=1e-6)
    # a step that a fall comes before goes a tenth as far
    less = prototypes.published(5, 4, steps=1, falls=[0])
    tenth = before + (moved - before) / 10
    assert torch.allclose(less, F.normalize(tenth, dim=1).float(), atol=1e-6)
    assert torch.equal(prototypes.published(5, 4, steps=1, falls=[1]), after)


def test_the_published_loss_is_eq_5():
    points = random_unit(6, 3)
    matrix = points @ points.T - 2 * torch.eye(6)
    assert separation_loss(points).item() == pytest.approx(matrix.max(1).values.mean().item())


def test_placements_do_not_depend_on_global_randomness():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = [prototypes.published(6, 3, steps=20, seed=3), prototypes.optimal(9, 3, seed=3)]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    again = [prototypes.published(6, 3, steps=20, seed=3), prototypes.optimal(9, 3, seed=3)]
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], prototypes.published(6, 3, steps=20, seed=4))


# The search


@pytest.mark.parametrize("n", [7, 8, 10, 12, 14, 16, 20, 24])
def test_the_search_finds_the_best_known_packings(n):
    found = separation(prototypes.optimal(n, 3, starts=16))
    assert found.known == "best known" and 0 <= found.gap < 5e-5


@pytest.mark.parametrize(("dim", "most"), [(3, 0.9335), (5, 0.687), (10, 0.341), (25, 0.112)])
def test_a_hundred_classes(dim, most):
    """Where the published procedure ends at 1.0, .78, .44 and .19 (1,000 steps)."""
    found = separation(prototypes.optimal(100, dim))
    assert found.bound < found.largest_cosine < most


# Separation and bounds


def test_separation_against_loops():
    points = random_unit(9, 4)
    apart = [1 - float(a @ b) for i, a in enumerate(points) for b in points[:i]]
    found = separation(7 * points)
    assert found.smallest == pytest.approx(min(apart))
    assert found.mean == pytest.approx(sum(apart) / len(apart))
    assert found.largest == pytest.approx(max(apart))
    assert found.largest_cosine == pytest.approx(1 - min(apart))


def test_bounds_that_are_known():
    assert best_bound(5, 2) == (pytest.approx(math.cos(2 * math.pi / 5)), "attained")
    assert best_bound(100, 100) == (pytest.approx(-1 / 99), "attained")
    assert best_bound(100, 50) == (0.0, "attained")
    # kissing configurations meet Levenshtein's bound: 240 points in 8, 196,560 in 24 dimensions
    assert best_bound(240, 8)[0] == pytest.approx(0.5, abs=1e-6)
    assert best_bound(196_560, 24)[0] == pytest.approx(0.5, abs=1e-6)
    # the icosahedron meets Fejes Toth's, and the table
    assert best_bound(12, 3)[0] == pytest.approx(1 / math.sqrt(5), abs=1e-8)
    assert best_bound(100, 3) == (pytest.approx(0.92819, abs=1e-5), "bound")
    assert best_bound(100, 25) == (pytest.approx(0.0688, abs=5e-5), "bound")
    assert best_bound(1000, 100) == (pytest.approx(0.0542, abs=5e-5), "bound")


@pytest.mark.parametrize("dim", [3, 4, 7, 20])
def test_a_bound_rises_with_the_number_of_points(dim):
    counts = [*range(2, 4 * dim), 10 * dim, 100 * dim]
    bounds = [best_bound(n, dim)[0] for n in counts]
    assert all(b >= a - 1e-9 for a, b in zip(bounds, bounds[1:], strict=False))
    assert bounds[0] >= -1 and bounds[-1] < 1


# Privileged information


def slow_ranking(points, words):
    """Eq. 6, a triplet at a time."""
    total = number = 0
    for i, p in enumerate(points):
        for j, q in enumerate(points):
            for k, r in enumerate(points):
                if len({i, j, k}) == 3:
                    s = 1 / (1 + math.exp(-float(p @ q - p @ r)))
                    truth = words[i][j] >= words[i][k]
                    total -= math.log(s if truth else 1 - s)
                    number += 1
    return total / number


@pytest.mark.parametrize("tie", [False, True])
def test_the_ranking_loss_against_a_loop(tie):
    vectors, points = random_unit(8, 5, seed=1), random_unit(8, 3, seed=2)
    if tie:
        vectors[2] = 3 * vectors[5]  # two class names with one word vector
    unit = F.normalize(vectors, dim=1)
    words = (unit @ unit.T).round(decimals=12).tolist()
    found = RankingLoss(vectors)(points @ points.T)
    assert found.item() == pytest.approx(slow_ranking(points, words), abs=1e-8)


def test_the_gradient_of_the_ranking_loss():
    vectors = random_unit(6, 5, seed=1)
    unit = F.normalize(vectors, dim=1)
    words, loss = unit @ unit.T, RankingLoss(vectors)
    points = random_unit(6, 3, seed=2).requires_grad_()
    (ours,) = torch.autograd.grad(loss(points @ points.T), points)
    i, j, k = torch.cartesian_prod(*[torch.arange(6)] * 3).T
    keep = (i != j) & (j != k) & (i != k)
    i, j, k = i[keep], j[keep], k[keep]
    c = points @ points.T
    cube = F.binary_cross_entropy_with_logits(
        c[i, j] - c[i, k], (words[i, j] >= words[i, k]).double()
    )
    (theirs,) = torch.autograd.grad(cube, points)
    assert torch.allclose(ours, theirs, atol=1e-9)


def test_the_expansion_holds_at_the_corners():
    """Two prototypes that coincide and two that are opposite: cosines 1 and -1."""
    points = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]).double()
    vectors = random_unit(4, 3)
    words = (vectors @ vectors.T).tolist()
    found = RankingLoss(vectors)(points @ points.T).item()
    assert found == pytest.approx(slow_ranking(points, words), abs=1e-8) and TERMS >= 12


def test_privileged_prototypes_follow_the_order_of_words():
    vectors = random_unit(12, 6)
    plain = prototypes.published(12, 4, steps=300).double()
    ordered = prototypes.privileged(vectors, 4, steps=300).double()
    loss = RankingLoss(vectors)
    assert loss(ordered @ ordered.T) < loss(plain @ plain.T) - 0.05
    alike = [torch.corrcoef(torch.stack([cosines(p), cosines(vectors)]))[0, 1]
             for p in (plain, ordered)]  # fmt: skip
    assert alike[1] > alike[0] + 0.2
    with pytest.raises(ValueError, match="2 classes: an order of similarities needs three"):
        prototypes.privileged(vectors[:2], 4)


# Files


def test_prototypes_from_a_file(tmp_path):
    path = tmp_path / "points.npy"
    points = 20 * random_unit(5, 4).numpy()
    np.save(path, points.astype(np.float32))
    found = prototypes.from_file(path, 5, 4)
    assert torch.allclose(found, F.normalize(torch.from_numpy(points), dim=1).float(), atol=1e-6)


@pytest.mark.parametrize("what", ["missing", "damaged", "shape", "origin", "nan", "pickle"])
def test_a_bad_file_is_one_line(tmp_path, what):
    path = tmp_path / "points.npy"
    points = random_unit(5, 4).numpy()
    if what == "damaged":
        path.write_bytes(b"no array")
    elif what == "pickle":
        np.save(path, np.array([{}]), allow_pickle=True)
    elif what != "missing":
        points[2] = {"origin": 0, "nan": np.nan}.get(what, points[2])
        np.save(path, points[:4] if what == "shape" else points)
    with pytest.raises(UserError) as error:
        prototypes.from_file(path, 5, 4)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


# By name


def test_placements_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HYPERSPHERE_DATA", str(tmp_path))
    words = random_unit(9, 6).float()
    np.save(tmp_path / "words.npy", words.numpy())
    sha256 = hashlib.sha256((tmp_path / "words.npy").read_bytes()).hexdigest()
    named = {"file": "words.npy", "sha256": sha256}
    assert torch.equal(place("semantic", 9, 5, **named), prototypes.semantic(words, 5))
    ordered = prototypes.privileged(words, 4, steps=20, seed=2)
    assert torch.equal(place("privileged", 9, 4, steps=20, seed=2, **named), ordered)
    assert torch.equal(place("file", 9, 6, **named), F.normalize(words.double(), dim=1).float())
    assert torch.equal(place("one_hot", 3, 4), prototypes.one_hot(3, 4))
    for kind in ("semantic", "privileged", "file"):
        with pytest.raises(UserError, match="words.npy: is not the file of this run"):
            place(kind, 9, 6, file="words.npy", sha256="0" * 64)


# Table 2


def test_measured_placements(tmp_path, monkeypatch):
    found = measured(kind="published", num_classes=12, dim=4, seed=3, steps=20)
    direct = separation(prototypes.published(12, 4, steps=20, seed=3))
    assert found["smallest"] == direct.smallest and found["gap"] == direct.gap
    assert measured(kind="one_hot", num_classes=12, dim=12)["largest"] == 1
    means = measured(kind="semantic", num_classes=10, dim=9, data="digits")
    assert 0 < means["smallest"] < means["mean"] < means["largest"] < 2
    monkeypatch.setenv("HYPERSPHERE_DATA", str(tmp_path))
    np.save(tmp_path / "points.npy", random_unit(5, 4).numpy())
    with pytest.raises(
        UserError, match=r"points.npy: is not the file of this run \(whose sha256 is abc"
    ):
        measured(kind="file", num_classes=5, dim=4, file="points.npy", sha256="abc")


def test_table_2_is_planned_by_seed_and_from_released_files(monkeypatch, tmp_path):
    (item,) = make_plan("paper", ["hpn"], ["table2"]).items
    cells = {(c.keys["prototypes"], c.keys["statistic"]): c for c in item.cells}
    assert len({n.id for n in cells["hpn", "max"].nodes.values()}) == 30
    assert len({n.id for n in cells["one_hot", "max"].nodes.values()}) == 1
    assert len(cells["hpn", "max"].own["released"]) == 1
    monkeypatch.setenv("HYPERSPHERE_DATA", str(tmp_path / "nothing"))
    assert "hypersphere data get hpn_prototypes" in unready("hpn_prototypes")
