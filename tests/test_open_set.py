"""Episodes, open-set and retrieval measures against loops, scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from hypersphere.evaluation.fewshot import episodes, open_set, open_set_scores, retrieval
from hypersphere.seeds import generator
from tests.points import BASE, NOVEL, clusters, module, points, unit


@pytest.fixture
def data():
    return points()


def test_episodes_recognise_what_is_separate_and_guess_what_is_not():
    z, y = clusters(4, noise=0.01)
    found = episodes(z, y, ways=5, shots=1, queries=5, number=50)
    assert found.mean == 1 and found.interval == 0
    noise = np.random.default_rng(0).standard_normal(z.shape)
    found = episodes(noise, y, ways=5, shots=1, queries=5, number=400)
    assert abs(found.mean - 0.2) < 2 * found.interval < 0.05


def test_episodes_against_a_loop_with_the_interval_of_students_t(monkeypatch):
    z, y = clusters(5, noise=1.5)
    found = episodes(z, y, [1, 2, 5, 6], ways=3, shots=2, queries=4, number=30, seed=3)
    draws = generator("episodes", 3)
    members = [np.flatnonzero(y == c) for c in (1, 2, 5, 6)]
    accuracies = []
    for _ in range(30):
        chosen = draws.choice(4, 3, replace=False)
        images = [draws.choice(members[c], 6, replace=False) for c in chosen]
        means = [unit(sum(unit(z[i]) for i in own[:2])) for own in images]
        right = [
            np.argmax([z[i] @ m for m in means]) == k
            for k, own in enumerate(images)
            for i in own[2:]
        ]
        accuracies.append(np.mean(right))
    np.testing.assert_allclose(found.accuracies, accuracies, atol=1e-12)
    # t(29) = 2.0452
    assert found.interval == pytest.approx(2.0452 * np.std(accuracies, ddof=1) / 30**0.5, rel=1e-4)
    monkeypatch.setattr(module("episodes"), "CHUNK", 1000)
    parts = episodes(z, y, [1, 2, 5, 6], ways=3, shots=2, queries=4, number=30, seed=3)
    np.testing.assert_array_equal(parts.accuracies, found.accuracies)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"ways": 8}, "ways=8: there are 7 classes"),
        ({"ways": 1}, "ways=1: needs at least 2"),
        ({"queries": 99}, "class 0 has .* images, shots .* queries = 100 are needed"),
        ({"number": 1}, "number=1: needs at least 2"),
    ],
)
def test_impossible_episodes(change, message):
    with pytest.raises(ValueError, match=message):
        episodes(*clusters(4), **({"queries": 3} | change))


# Open set


def test_open_set_measures_against_scikit_learn_and_a_sweep_of_thresholds():
    g = np.random.default_rng(0)
    known, unknown = g.normal(1, 1, 200).round(1), g.normal(0, 1, 150).round(1)  # with ties
    correct = g.random(200) < 0.8
    found = open_set_scores(known, unknown, correct)
    truth = np.repeat([1, 0], [200, 150])
    scores = np.concatenate([known, unknown])
    assert found["auroc"] == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
    assert found["fpr95"] == pytest.approx(fpr[np.argmax(tpr >= 0.95)], abs=1e-12)
    rates = [(0.0, 0.0)]
    for threshold in np.unique(scores)[::-1]:
        rates.append((np.mean(unknown >= threshold), np.mean(correct & (known >= threshold))))
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in zip(rates, rates[1:]))
    assert found["oscr"] == pytest.approx(area, abs=1e-12)
    assert found["oscr"] < min(found["auroc"], correct.mean())


def test_open_set_by_hand():
    found = open_set_scores([0.9, 0.8, 0.4], [0.5, 0.1], np.array([True, False, True]))
    # 0.9 and 0.8 beat both, 0.4 beats one; all known are accepted from 0.4 on, and so is 0.5
    assert found == {"auroc": 5 / 6, "fpr95": 0.5, "oscr": 0.5}


def test_open_set_of_embeddings(data):
    found = open_set(**data, base=BASE, novel=NOVEL)
    train, test = [np.stack([unit(v) for v in data[k]]) for k in ("embeddings", "test")]
    means = np.stack([unit(train[data["labels"] == c].sum(0)) for c in BASE])
    best = (test @ means.T).max(1)
    given = np.array(BASE)[(test @ means.T).argmax(1)]
    known = np.isin(data["test_labels"], BASE)
    expected = open_set_scores(best[known], best[~known], (given == data["test_labels"])[known])
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12)
    assert found["accuracy"] == np.mean(given[known] == data["test_labels"][known])


@pytest.mark.parametrize(
    "known, unknown, correct, message",
    [
        ([], [1.0], np.array([], bool), "known: needs finite scores"),
        ([1.0], [np.inf], np.array([True]), "unknown: needs finite scores"),
        ([1.0], [0.0], np.array([1]), "correct: needs a bool per known score"),
        ([1.0], [0.0], np.array([True, False]), "correct: needs a bool per known score"),
    ],
)
def test_bad_open_set_scores(known, unknown, correct, message):
    with pytest.raises(ValueError, match=message):
        open_set_scores(known, unknown, correct)


# Retrieval


def test_retrieval_by_hand_with_negative_cosines():
    """Every cosine is negative but one; a nearest neighbour at -0.2 is a match all the same."""
    angles = np.radians([0, 102, 250])
    z = np.stack([np.cos(angles), np.sin(angles)], 1)
    found = retrieval(z, [1, 1, 1])
    assert found["recall@1"] == 1 and found["map@r"] == 1
    found = retrieval(z[:2], ["a", "b"], z[2:], ["a"])
    assert found == {"recall@1": 1.0, "map@r": 1.0, "queries": 1.0, "without_match": 1.0}


def test_retrieval_takes_each_querys_own_number_of_matches(monkeypatch):
    z, y = clusters(6, noise=1.5)
    y[0] = 99  # alone in its class
    found = retrieval(z, y, at=[1, 3])
    points = np.stack([unit(v) for v in z])
    recalls, precisions = {1: [], 3: []}, []
    for i in range(1, len(z)):
        order = [j for j in np.argsort(-(points @ points[i])) if j != i]
        r = int((y == y[i]).sum()) - 1
        same = [y[j] == y[i] for j in order]
        for k in recalls:
            recalls[k].append(any(same[:k]))
        precisions.append(sum(np.mean(same[: k + 1]) for k in range(r) if same[k]) / r)
    assert found["recall@1"] == pytest.approx(np.mean(recalls[1]), abs=1e-12)
    assert found["recall@3"] == pytest.approx(np.mean(recalls[3]), abs=1e-12)
    assert found["map@r"] == pytest.approx(np.mean(precisions), abs=1e-12)
    assert found["queries"] == len(z) - 1 and found["without_match"] == 1
    assert 0.1 < found["map@r"] < found["recall@1"] < 0.95
    monkeypatch.setattr(module("retrieval"), "SCORES", 1000)
    assert retrieval(z, y, at=[1, 3]) == pytest.approx(found)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((np.eye(3), [1, 2, 3]), "no query has an image of its class"),
        ((np.eye(3), [1, 1, 3], np.eye(3)), "gallery and gallery_labels: both or neither"),
        ((np.eye(3), [1, 1, 3], np.eye(2), [1, 1]), "gallery: 2 dimensions"),
    ],
)
def test_impossible_retrieval(arguments, message):
    with pytest.raises(ValueError, match=message):
        retrieval(*arguments)
