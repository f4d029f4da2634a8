"""Incremental learning, random draws of classes and class vectors of the closed set, each against a
slow restatement."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hypersphere.data.splits import Split, support
from hypersphere.evaluation import class_vectors, incremental, random_classes
from hypersphere.evaluation.random_classes import unbeaten
from hypersphere.heads import NormalizedSoftmax, Triplet
from tests.test_evaluation import DIM, SEED, SPLIT, random_embeddings


def head(seen=4, seed=0):
    torch.manual_seed(seed)
    return NormalizedSoftmax(DIM, seen, scale=16.0)


# Incremental learning

CHOICES = {"shots": [1, 3], "draws": 3, "steps": 60, "epochs": 2, "batch": 8, "lr": 0.05}


def test_optimised_vectors_have_unit_length_and_lower_the_loss_to_a_minimum():
    e, h = random_embeddings(), head()
    found = incremental(h, e, SPLIT, SEED, **{**CHOICES, "steps": 2000, "lr": 0.01})
    for draw in range(3):
        chosen = torch.from_numpy(support(e.train_labels.numpy(), SPLIT.unseen, 3, SEED, draw))
        z, y = e.train[chosen], e.train_labels[chosen]
        target = torch.tensor([4 + SPLIT.unseen.index(c) for c in y.tolist()])
        trained = h.trained(e.train, e.train_labels, torch.tensor(SPLIT.seen), True)

        def loss(new, z=z, target=target, trained=trained):
            return F.cross_entropy(h.scores(z, torch.cat([trained, new])), target)

        # an optimiser of another kind, on the sphere by construction
        raw = torch.randn(2, DIM, generator=torch.Generator().manual_seed(draw)).requires_grad_()
        lbfgs = torch.optim.LBFGS([raw], max_iter=500, line_search_fn="strong_wolfe")

        def closure(raw=raw, lbfgs=lbfgs, loss=loss):
            lbfgs.zero_grad()
            value = loss(F.normalize(raw, dim=-1))
            value.backward()
            return value

        lbfgs.step(closure)
        assert found["3/loss"][draw] == pytest.approx(closure().item(), abs=2e-3)
        assert found["3/loss"][draw] <= found["3/loss_before"][draw] + 1e-4


def test_draws_do_not_touch_each_other():
    e, h = random_embeddings(), head()
    few = incremental(h, e, SPLIT, SEED, **{**CHOICES, "draws": 1})
    many = incremental(h, e, SPLIT, SEED, **{**CHOICES, "draws": 3})
    for key, value in few.items():
        if isinstance(value, list):
            assert many[key][:1] == pytest.approx(value, abs=1e-5), key


def test_everything_else_is_frozen_and_global_state_is_left_alone():
    e, h = random_embeddings(), head()
    before = h.class_vectors.detach().clone()
    torch.manual_seed(3)
    state = torch.get_rng_state()
    with torch.no_grad():  # as evaluations are called
        first = incremental(h, e, SPLIT, SEED, **CHOICES)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(h.class_vectors, before) and h.class_vectors.grad is None
    torch.manual_seed(4)
    assert incremental(h, e, SPLIT, SEED, **CHOICES) == first


def test_the_ratio_is_of_the_accuracies():
    found = incremental(head(), random_embeddings(), SPLIT, SEED, **CHOICES)
    for group in ("disjoint/unseen", "joint/unseen", "joint/all"):
        ratio = found[f"all/optimized/{group}"] / found[f"all/inferred/{group}"]
        assert found[f"all/ratio@2/{group}"] == pytest.approx(ratio)
    assert -1 <= found["all/cosine"] <= 1 and len(found["1/cosine"]) == 3
    assert "all/cosine" not in incremental(
        head(), random_embeddings(), SPLIT, SEED, **{**CHOICES, "epochs": 0}
    )


def test_one_new_class_alone_is_optimised_to_its_inferred_vector():
    """Eq. 3 of the paper: with nothing to compete with, the mean maximises the dot product."""
    e, split = random_embeddings(), Split((0, 1, 2, 3, 5), (4,))
    torch.manual_seed(0)
    # a small scale keeps the cross-entropy from saturating, where no gradient would be left
    h = NormalizedSoftmax(DIM, 5, scale=0.1)
    choices = {"shots": [12], "draws": 2, "steps": 3000, "epochs": 0, "batch": 8, "lr": 0.01}
    found = incremental(h, e, split, SEED, **choices)
    assert min(found["12/cosine"]) > 0.999


def test_incremental_needs_new_classes_and_class_vectors():
    e = random_embeddings()
    with pytest.raises(ValueError, match="no unseen classes"):
        incremental(head(6), e, Split((0, 1, 2, 3, 4, 5), ()), SEED, **CHOICES)
    triplet = Triplet(DIM, 4, margin=1.0, squared=False, mining="semihard")
    with pytest.raises(ValueError, match="no class vectors"):
        incremental(triplet, e, SPLIT, SEED, **CHOICES)


# Random draws of novel classes


def by_loops(h, e, split, sets):
    """Balanced accuracies of each set of novel classes by argmax, one set after the other."""
    seen = torch.tensor(split.seen)
    trained = h.trained(e.train, e.train_labels, seen, True)
    results = []
    for drawn in sets:
        inferred = h.infer(e.train, e.train_labels, torch.tensor(drawn), True)
        row = {}
        for scenario, classes, vectors in (
            ("disjoint", [*drawn], inferred),
            ("joint", [*split.seen, *drawn], torch.cat([trained, inferred])),
        ):
            keep = torch.isin(e.test_labels, torch.tensor(classes))
            guess = torch.tensor(classes)[h.scores(e.test[keep], vectors).argmax(1)]
            label = e.test_labels[keep]
            recall = {c: (guess[label == c] == c).double().mean().item() for c in classes}
            groups = {"all": classes, "seen": split.seen, "unseen": drawn}
            for group, members in groups.items():
                if scenario == "joint" or group == "unseen":
                    row[f"{scenario}/{group}"] = np.mean([recall[c] for c in members])
        results.append(row)
    return results


def test_random_classes_against_loops():
    split = Split((0, 2, 5, 7), (1, 3, 4, 6, 8, 9))
    e, h = random_embeddings(classes=10, n=400), head()
    sizes, draws = [1, 3, 6], 5
    found = random_classes(h, e, split, SEED, sizes=sizes, totals=[2, 7, 11], draws=draws)
    assert found["total@7/joint/all"] == found["3/joint/all"]
    assert not any(key.startswith(("total@2/", "total@11/")) for key in found)
    from hypersphere.evaluation.random_classes import _chosen

    chosen = _chosen(split, sizes, draws, SEED)
    order = np.array([*split.seen, *split.unseen])
    sets = [order[row.numpy()].tolist() for row in chosen]
    assert [len(s) for s in sets] == [1] * 5 + [3] * 5 + [6] * 5
    assert all(set(a) < set(b) < set(c) for a, b, c in zip(sets[:5], sets[5:10], sets[10:]))
    assert len({tuple(s) for s in sets[5:10]}) > 1
    expected = by_loops(h, e, split, sets)
    for number, size in enumerate(sizes):
        for key in expected[0]:
            slow = [row[key] for row in expected[number * draws : (number + 1) * draws]]
            assert found[f"{size}/{key}"] == pytest.approx(slow, abs=1e-6), (size, key)


def test_unbeaten_is_argmax_with_ties():
    g = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 4, (200, 7), generator=g).float()  # many ties
    own = torch.randint(0, 7, (200,), generator=g)
    sets = torch.rand(30, 7, generator=g) < 0.6
    found = unbeaten(scores, own, sets.float())
    for number, among in enumerate(sets):
        guess = scores.masked_fill(~among, -math.inf).argmax(1)
        inside = among[own]
        assert torch.equal(found[inside, number], (guess == own)[inside])


def test_sizes_that_do_not_fit():
    e, h = random_embeddings(), head()
    found = random_classes(h, e, SPLIT, SEED, sizes=[2, 5], totals=[], draws=2)
    assert not any(key.startswith("5/") for key in found)
    with pytest.raises(ValueError, match=r"2 unseen classes: none of sizes=\[5\]"):
        random_classes(h, e, SPLIT, SEED, sizes=[5], totals=[90], draws=2)


# The closed set

CLOSED = Split((0, 1, 2, 3, 4, 5), ())


def test_f1_and_accuracy_against_scikit_learn():
    from sklearn.metrics import accuracy_score, f1_score

    e, h = random_embeddings(), head(6)
    found = class_vectors(h, e, CLOSED, SEED, draws=3)
    seen = torch.arange(6)
    kinds = {
        "trained": [h.trained(e.train, e.train_labels, seen, True)],
        "prototype": [h.infer(e.train, e.train_labels, seen, True)],
        "prototype_raw": [h.infer(e.train, e.train_labels, seen, False)],
        "anchor": [],
    }
    for draw in range(3):
        one = torch.from_numpy(support(e.train_labels.numpy(), CLOSED.seen, 1, SEED, draw))
        kinds["anchor"].append(h.infer(e.train[one], e.train_labels[one], seen, True))
    for kind, drawn in kinds.items():
        guesses = [h.scores(e.test, vectors).argmax(1) for vectors in drawn]
        for name, score in (("f1", f1_score), ("accuracy", accuracy_score)):
            extra = {"average": "macro", "zero_division": 0} if name == "f1" else {}
            slow = [score(e.test_labels, guess, **extra) for guess in guesses]
            value = found[f"{kind}/{name}"]
            assert (value if kind == "anchor" else [value]) == pytest.approx(slow)


def test_where_class_vectors_point():
    e, h = random_embeddings(), head(6)
    with torch.no_grad():
        h.class_vectors.copy_(5 * h.infer(e.train, e.train_labels, torch.arange(6), False))
        h.class_vectors[2] *= -1
    found = class_vectors(h, e, CLOSED, SEED, draws=1)
    assert found["cosine_to_mean/0"] == pytest.approx(1)
    assert found["cosine_to_mean/smallest"] == found["cosine_to_mean/2"] == pytest.approx(-1)
    assert "scatter" not in found  # six dimensions are no picture


def test_a_plane_is_kept_for_its_picture():
    e = random_embeddings()
    flat = type(e)(e.train[:, :2], e.train_labels, e.test[:, :2], e.test_labels)
    torch.manual_seed(0)
    h = NormalizedSoftmax(2, 3, scale=16.0)
    found = class_vectors(h, flat, Split((1, 3, 4), (0, 2, 5)), SEED, draws=1)["scatter"]
    assert found["class_vectors"].shape == (3, 2) and set(found["labels"]) == {0, 1, 2}
    assert len(found["embeddings"]) == len(found["labels"]) == 48
