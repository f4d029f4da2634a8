"""Class splits and shots: nested, equal for every method, frozen, never from global state."""

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
from hypersphere.data.splits import all_classes, seen_unseen, support
from hypersphere.seeds import derive, generator

GOLDEN = Path(__file__).parent / "golden" / "splits.json"
PERMUTATIONS, UNSEEN = range(10), range(2, 9)


def drawn() -> dict:
    """What the golden file freezes. Regenerate it only with a revision of the components."""
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


def test_golden():
    assert drawn() == json.loads(GOLDEN.read_text())


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
    golden = json.loads(GOLDEN.read_text())["unseen"]
    assert elsewhere(code) == [golden[str(p)]["3"] for p in range(10)]


@pytest.mark.slow
def test_everything_is_the_same_in_another_process():
    code = "import json, test_splits; print(json.dumps(test_splits.drawn()))"
    assert elsewhere(code) == drawn()


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
