"""Unseen classes on their own training images: known answers, and no look at the test set."""

import pytest
import torch

from hypersphere.data.splits import Split, holdout
from hypersphere.evaluation import held_out_classes
from hypersphere.evaluation.embeddings import Embeddings
from hypersphere.heads import NormalizedSoftmax, Triplet

SPLIT = Split((0, 1), (2, 3))
TRIPLET = Triplet(2, 2, margin=1.0, squared=False, mining="semihard")


def embeddings(angles, labels):
    """Training embeddings at these angles (degrees) and of any length; the test set is not there."""
    radians = torch.deg2rad(torch.tensor(angles, dtype=torch.float32))
    train = (
        torch.stack([radians.cos(), radians.sin()], 1) * torch.linspace(1, 3, len(angles))[:, None]
    )
    nothing = torch.full((4, 2), torch.nan)
    return Embeddings(train, torch.tensor(labels), nothing, torch.tensor([2, 3, 2, 3]))


def judge(head, e, split=SPLIT, seed=0, share=0.5):
    return held_out_classes(head, e, split, seed, share=share)


def test_classes_apart_are_all_found_and_mixed_ones_by_half():
    # class 2 around 0 degrees and class 3 around 90; seen images lie amid them and do not matter
    seen = [45.0] * 4
    apart = embeddings(
        [*seen, -10, -5, 0, 5, 10, 0, 80, 85, 90, 95, 100, 90], [0, 0, 1, 1] + [2] * 6 + [3] * 6
    )
    assert judge(TRIPLET, apart) == {
        "renormalized/disjoint/unseen": 1.0,
        "raw/disjoint/unseen": 1.0,
    }
    # the held-out half of class 3 lies where class 2 does: found are the other class's alone
    labels = [0, 0, 1, 1] + [2] * 6 + [3] * 6
    held = holdout(torch.tensor([2] * 6 + [3] * 6).numpy(), 0.5, 0)
    angles = [*seen, *[0.0] * 6, *(0.0 if each else 90.0 for each in held[6:])]
    assert set(judge(TRIPLET, embeddings(angles, labels)).values()) == {0.5}


def test_raw_means_are_shorter():
    """Class 2 points at 0 degrees; class 3 halves to -70 and 70, whose mean is short and, made a
    unit vector, covers class 2 exactly."""
    angles = [0.0] * 8 + [70.0, -70.0] * 8
    e = embeddings([0.0, 0.0, *angles], [0, 1] + [2] * 8 + [3] * 16)
    held = holdout(torch.tensor([2] * 8 + [3] * 16).numpy(), 0.5, 0)
    given = [a for a, h in zip(angles[8:], held[8:], strict=True) if not h]
    assert len(given) == 8 and set(given) == {70.0, -70.0}  # the mean is short
    found = judge(TRIPLET, e)
    # Euclidean to (1, 0) and to a short mean: 4 of class 2 nearest to (1, 0), all of class 3 to theirs
    assert found["raw/disjoint/unseen"] == 1.0
    assert found["renormalized/disjoint/unseen"] < 1.0


def test_the_seed_draws_the_halves_and_the_test_set_is_not_read():
    g = torch.Generator().manual_seed(0)
    train, labels = torch.randn(200, 2, generator=g), torch.arange(200) % 4
    head = NormalizedSoftmax(2, 2, scale=16.0)
    first, again, other = (
        judge(head, Embeddings(train, labels, test, labels[:4]), seed=seed)
        for test, seed in (
            (torch.zeros(4, 2), 1),
            (torch.full((4, 2), torch.nan), 1),
            (torch.zeros(4, 2), 2),
        )
    )
    assert first == again != other


def test_what_it_needs():
    e = embeddings([0.0, 10.0, 20.0], [2, 3, 3])
    with pytest.raises(ValueError, match="unseen"):
        judge(TRIPLET, e, Split((0, 1, 2, 3), ()))
    with pytest.raises(ValueError, match="class 2 has a single image"):
        judge(TRIPLET, e)
