"""Splits and draws: nested, equal for every method, frozen, never from global state."""

import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import hypersphere
from hypersphere.data.load import load
from hypersphere.data.splits import (
    all_classes,
    base_novel,
    by_count,
    choose_by_count,
    holdout,
    imbalanced,
    imbalanced_counts,
    seen_unseen,
    support,
)
from hypersphere.seeds import derive, generator

GOLDEN = Path(__file__).parent / "golden"
PERMUTATIONS, UNSEEN = range(10), range(2, 9)

# Training images of 400 species, falling as they do in Pl@ntNet: few have many.
COUNTS = np.array([3000 // (c + 1) for c in range(400)])
THRESHOLDS = {200: 10, 100: 16, 50: 28, 25: 43}
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(100), 220))


# What the golden files freeze. Regenerate them only with a revision of the components.


def drawn() -> dict:
    """golden/splits.json, in full."""
    unseen = {
        str(p): {str(k): list(seen_unseen(10, num_unseen=k, permutation=p).unseen) for k in UNSEEN}
        for p in PERMUTATIONS
    }
    labels = load("digits").train_labels.numpy()
    shots = {
        f"class {c}, seed {s}, draw {d}": support(labels, (c,), 10, s, d).tolist()
        for c in (0, 3, 9)
        for s in (0, 1)
        for d in (0, 1)
    }
    return {"unseen": unseen, "shots": shots}


def sha256(values):
    return hashlib.sha256(json.dumps(np.asarray(values).tolist()).encode()).hexdigest()


def drawn_hashes() -> dict:
    """golden/draws.json: hashes, for more classes and images."""
    counts = imbalanced_counts(100, 2, 200)
    return {
        "base_novel": sha256(base_novel(200, num_base=100).unseen),
        "by_count": sha256(by_count(COUNTS.tolist(), at_least=100).seen),
        "choose_by_count": [
            sha256(choose_by_count(COUNTS, total=182, at_least=THRESHOLDS, draw=d)) for d in (0, 1)
        ],
        "holdout": [sha256(np.flatnonzero(holdout(LABELS, 0.1, d))) for d in (0, 1)],
        "imbalanced": [sha256(imbalanced(LABELS, counts, d)) for d in (0, 1)],
        "seen_unseen": sha256(seen_unseen(200, num_unseen=100, permutation=0).unseen),
        "support": sha256(support(LABELS, range(50), 5, 0, 0)),
    }


@pytest.mark.parametrize("num_classes", [4, 10, 100])
def test_disjoint_complete_sorted(num_classes):
    for permutation in range(5):
        for num_unseen in range(1, min(num_classes - 2, 8) + 1):
            split = seen_unseen(num_classes, num_unseen=num_unseen, permutation=permutation)
            assert len(split.unseen) == num_unseen
            assert sorted(split.seen + split.unseen) == list(range(num_classes))
            assert list(split.seen) == sorted(split.seen)
            assert list(split.unseen) == sorted(split.unseen)


def test_nested_in_the_number_of_unseen_classes():
    for permutation in PERMUTATIONS:
        before: set[int] = set()
        for k in range(1, 9):
            unseen = set(seen_unseen(10, num_unseen=k, permutation=permutation).unseen)
            assert before < unseen
            before = unseen


def test_permutations_differ():
    assert len({seen_unseen(10, num_unseen=4, permutation=p).unseen for p in range(20)}) > 15


def test_closed_set():
    assert all_classes(4).seen == (0, 1, 2, 3) and all_classes(4).unseen == ()


@pytest.mark.parametrize(("classes", "unseen"), [(10, 9), (3, 2), (2, 1)])
def test_two_classes_must_be_left(classes, unseen):
    with pytest.raises(ValueError, match=f"num_unseen={unseen} leaves fewer than two of {classes}"):
        seen_unseen(classes, num_unseen=unseen, permutation=0)


def test_base_and_novel_classes():
    split = base_novel(200, num_base=100)
    assert split.seen == tuple(range(100)) and split.unseen == tuple(range(100, 200))
    for num_base in (4, 5):
        with pytest.raises(ValueError, match=f"num_base={num_base} leaves no novel class of 4"):
            base_novel(4, num_base=num_base)


def test_classes_by_count():
    split = by_count([5, 100, 99, 101, 0], at_least=100)
    assert (split.seen, split.unseen) == ((1, 3), (0, 2, 4))
    assert by_count([1, 2, 3], at_least=1).unseen == ()
    with pytest.raises(ValueError, match=r"at_least=101: 1 of 5 .*the largest has 101\)"):
        by_count([5, 100, 99, 101, 0], at_least=101)


def test_classes_with_the_counts_of_plantnet():
    chosen = choose_by_count(COUNTS, total=182, at_least=THRESHOLDS)
    assert len(chosen) == len(set(chosen)) == 182 and chosen == sorted(chosen)
    have = COUNTS[chosen]
    assert [int((have >= n).sum()) for n in (200, 100, 50, 25)] == [10, 16, 28, 43]
    # ... which are the classes that the paper's splits train on
    assert [len(by_count(have, at_least=n).seen) for n in (200, 100, 50, 25)] == [10, 16, 28, 43]
    assert choose_by_count(COUNTS, total=182, at_least=THRESHOLDS, draw=1) != chosen
    with pytest.raises(ValueError, match="3 classes with 200 or more .*10 are needed"):
        choose_by_count(np.array([200] * 3 + [30] * 300), total=182, at_least=THRESHOLDS)


def test_the_same_for_every_method(small):
    expected = small("split.num_unseen=4", "seed=3").split()
    for other in (
        ["head=triplet"],
        ["head=contrastive"],
        ["batches.size=7"],
        ["batches=pairs"],
        ["optimizer=sgd"],
        ["precision=bf16"],
        ["backbone.dim=5"],
        ["data=mnist"],  # ten classes as well
    ):
        assert small("split.num_unseen=4", "seed=3", *other).split() == expected
    assert small("split.num_unseen=4", "seed=4").split() != expected
    assert small("split.num_unseen=4", "seed=4", "split.permutation=3").split() == expected


def golden(name):
    return json.loads((GOLDEN / f"{name}.json").read_text())


def test_golden():
    assert drawn() == golden("splits")


def test_golden_draws():
    assert drawn_hashes() == golden("draws")


def elsewhere(code: str):
    """What `code` prints (as JSON) in a process with another hash seed."""
    here, source = Path(__file__).parent, Path(hypersphere.__file__).parents[1]
    environment = {**os.environ, "PYTHONHASHSEED": "4242", "PYTHONPATH": f"{here}:{source}"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_splits_are_the_same_in_another_process():
    code = """
import json
from hypersphere.data.splits import seen_unseen
print(json.dumps([seen_unseen(10, num_unseen=3, permutation=p).unseen for p in range(10)]))
"""
    unseen = golden("splits")["unseen"]
    assert elsewhere(code) == [unseen[str(p)]["3"] for p in range(10)]


@pytest.mark.slow
def test_everything_is_the_same_in_another_process():
    code = "import json, test_splits as t; print(json.dumps([t.drawn(), t.drawn_hashes()]))"
    assert elsewhere(code) == [drawn(), drawn_hashes()]


def test_shots_are_nested_and_of_their_class():
    labels = load("digits").train_labels.numpy()
    for draw in range(3):
        one, five, many = (support(labels, (2, 7), n, 0, draw).reshape(2, n) for n in (1, 5, 25))
        assert np.array_equal(many[:, :5], five) and np.array_equal(five[:, :1], one)
        for row, c in zip(many, (2, 7), strict=True):
            assert (labels[row] == c).all()
            assert len(set(row)) == 25


def test_shots_do_not_depend_on_the_other_classes():
    labels = load("digits").train_labels.numpy()
    together = support(labels, (1, 4, 8), 5, 0, 0).reshape(3, 5)
    for row, c in enumerate((1, 4, 8)):
        assert np.array_equal(support(labels, (c,), 5, 0, 0), together[row])


def test_draws_seeds_and_classes_differ():
    labels = load("digits").train_labels.numpy()
    rank = {c: np.flatnonzero(labels == c)[0] for c in range(10)}
    draws = {tuple(support(labels, (c,), 10, s, d) - rank[c])
             for c in (0, 1) for s in (0, 1) for d in range(3)}  # fmt: skip
    assert len(draws) == 12


def test_too_few_images_for_the_shots():
    with pytest.raises(ValueError, match="class 1 has 2 training images, 3 shots asked"):
        support(np.array([0, 0, 0, 1, 1]), (0, 1), 3, 0, 0)


def test_all_images_of_a_class_that_has_fewer_than_the_shots():
    labels = np.array([1, 0, 0, 1, 0, 0])
    few = support(labels, (0, 1), 3, 0, 0, or_fewer=True)
    assert labels[few].tolist() == [0, 0, 0, 1, 1] and set(few[3:]) == {0, 3}
    assert np.array_equal(few[:3], support(labels, (0,), 3, 0, 0))
    with pytest.raises(ValueError, match="class 2 has 0 training images"):
        support(labels, (0, 2), 3, 0, 0, or_fewer=True)


def test_a_validation_part_has_a_share_of_each_class():
    labels = np.repeat([0, 1, 2, 3], [20, 10, 2, 5])
    for draw in range(3):
        held = holdout(labels, 0.1, draw)
        assert np.bincount(labels[held], minlength=4).tolist() == [2, 1, 1, 1]
    assert np.bincount(labels[holdout(labels, 0.99, 0)]).tolist() == [19, 9, 1, 4]  # never all
    assert not np.array_equal(holdout(labels, 0.1, 0), holdout(labels, 0.1, 1))
    # a class's draw does not depend on the other classes
    alone = holdout(labels[:20], 0.1, 0)
    assert np.array_equal(holdout(labels, 0.1, 0)[:20], alone)
    with pytest.raises(ValueError, match="class 7 has a single image"):
        holdout(np.array([1, 1, 7]), 0.5, 0)


def test_imbalanced_training_images():
    counts = imbalanced_counts(100, 2, 200)
    assert counts.tolist() == [2 * k for k in range(1, 101)]
    chosen = imbalanced(LABELS, counts, 0)
    assert np.bincount(LABELS[chosen]).tolist() == counts.tolist()
    assert np.array_equal(chosen, np.unique(chosen))
    fewer = imbalanced(LABELS, counts // 2, 0)
    assert set(fewer.tolist()) < set(chosen.tolist())  # nested
    assert not np.array_equal(imbalanced(LABELS, counts, 1), chosen)
    with pytest.raises(ValueError, match="class 1 has 2 images, 3 are asked"):
        imbalanced(np.array([0, 0, 0, 1, 1]), [3, 3], 0)


def test_global_random_state_is_neither_read_nor_changed():
    labels = load("digits").train_labels.numpy()

    def draw():
        return (
            seen_unseen(10, num_unseen=3, permutation=1),
            support(labels, (5,), 10, 1, 2).tolist(),
            generator("x", 1).random(3).tolist(),
        )

    results = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        before = random.getstate(), np.random.get_state(), torch.get_rng_state()
        results.append(draw())
        after = random.getstate(), np.random.get_state(), torch.get_rng_state()
        assert before[0] == after[0]
        assert before[1][2] == after[1][2] and np.array_equal(before[1][1], after[1][1])
        assert torch.equal(before[2], after[2])
    assert results[0] == results[1]


def test_seeds_of_different_purposes_differ():
    assert len({derive(p, *parts) for p in ("a", "b") for parts in ((), (1,), (1, 2), (12,))}) == 8
    assert all(0 <= derive("a", i) < 2**63 for i in range(100))
