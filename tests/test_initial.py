"""A run that starts from the weights of another."""

import pytest
import torch

from hypersphere.errors import UserError
from tests.runs import lose_files, quietly, weights

STILL = ("optimizer=sgd", "optimizer.lr=1e-30", "optimizer.weight_decay=0.0", "schedule.epochs=1")


def test_initial_takes_over_the_parents_weights(small, store):
    parent = small()
    quietly(parent, store)
    child = small(*STILL, f"initial={parent.id}")
    record = quietly(child, store)
    assert record["parent"] == parent.id
    assert child.id != small(*STILL).id
    before, after = weights(parent, store), weights(child, store)
    # A rate of 1e-30 leaves every weight where it started.
    for name in before:
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-20)


def test_initial_with_other_classes_keeps_its_own_class_vectors(small, store, other):
    parent = small()
    quietly(parent, store)
    child = small(*STILL, f"initial={parent.id}", "split.num_unseen=3")
    quietly(child, store)
    before, after = weights(parent, store), weights(child, store)
    assert after["head.class_vectors"].shape == (7, 32)
    for name in before:
        if name.startswith("backbone."):
            torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-20)
    alone = small(*STILL, "split.num_unseen=3")
    quietly(alone, other)
    own = weights(alone, other)["head.class_vectors"]
    torch.testing.assert_close(after["head.class_vectors"], own, rtol=0, atol=1e-20)


def test_initial_makes_lost_weights_again(small, store):
    parent = small()
    quietly(parent, store)
    before = weights(parent, store)
    lose_files(parent, store)
    child = small(*STILL, f"initial={parent.id}")
    quietly(child, store)
    after = weights(child, store)
    assert all(torch.allclose(before[k], after[k], rtol=0, atol=1e-20) for k in before)


def test_missing_parent(small, store):
    with pytest.raises(UserError, match="initial=0123456789ab: ") as error:
        quietly(small("initial=0123456789ab"), store)
    assert "\n" not in str(error.value)


def test_a_parent_that_does_not_fit(small, store):
    parent = small("backbone.dim=16", "schedule.epochs=1")
    quietly(parent, store)
    with pytest.raises(UserError, match=rf"initial={parent.id}: its backbone does not fit"):
        quietly(small(f"initial={parent.id}"), store)
