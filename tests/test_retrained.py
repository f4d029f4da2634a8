"""A finished run whose files are gone is trained again, and held against its record."""

import json
import math
from contextlib import nullcontext

import pytest
import torch

from hypersphere.errors import UserError
from hypersphere.evaluation.embeddings import Embeddings
from hypersphere.execute import run_nodes
from hypersphere.store import EMBEDDINGS, MODEL, Store
from hypersphere.training.train import check_same
from tests.runs import equal, lose_files, quietly, weights


@pytest.fixture
def record(small, store):
    """The record of a small run."""
    return quietly(small(), store)


def test_lost_files_are_made_again_and_checked(small, store):
    training = small()
    record = quietly(training, store)
    before = weights(training, store)
    lose_files(training, store)
    assert quietly(training, store) == record  # its numbers need no files
    assert not (store.folder(training.id) / MODEL).exists()
    assert quietly(training, store, need_files=True) == record
    assert equal(weights(training, store), before)
    assert (store.folder(training.id) / "record.json").exists()


def change(record, where):
    if where == "epoch":
        record["epochs"][0]["loss"] += 1e-6
    elif where == "accuracy":
        record["epochs"][1]["test_accuracy"] += 1e-6
    elif where == "metric":
        record["metrics"]["test_accuracy"] += 0.1
    elif where == "number of epochs":
        del record["epochs"][1]


@pytest.mark.parametrize(
    "where",
    [
        "epoch",
        "accuracy",
        "metric",
        "number of epochs",
    ],
)
def test_a_record_that_training_contradicts(small, store, where):
    training = small()
    record = json.loads(json.dumps(quietly(training, store)))
    change(record, where)
    store.write(record)
    lose_files(training, store)
    file = store.folder(training.id) / "record.json"
    before = file.read_bytes()
    for _ in range(2):  # and the second time too: no files are left that would be believed
        with pytest.raises(UserError) as error:
            quietly(training, Store(store.runs), need_files=True)
        assert training.id in str(error.value) and "\n" not in str(error.value)
        assert file.read_bytes() == before


@pytest.mark.parametrize(
    "where, processor, told",
    [
        ("accuracy", "the same", True),
        ("metric", "the same", True),
        ("epoch", "the same", False),  # losses do not hang on the logits of the judgement
        ("metric", "another", False),  # and there an accuracy may differ by more than they change
    ],
)
def test_accuracies_by_other_logits_are_named_with_the_remedy(record, where, processor, told):
    changed = json.loads(json.dumps(record)) | {"logits": "bfloat16"}
    change(changed, where)
    if processor == "another":
        changed["hardware"]["processor"] = processor
        changed["metrics"]["test_accuracy"] += 1.0
    with pytest.raises(UserError) as error:
        check_same(changed, record)
    assert ("judged by bfloat16 logits" in str(error.value)) == told
    assert ("take its line out of records.jsonl" in str(error.value)) == told
    assert ("raise the component's revision" in str(error.value)) != told


@pytest.mark.parametrize(
    "where, shift, here, elsewhere",
    [
        ("epoch 1", 0.0, True, True),
        ("epoch 1", 0.01, False, True),
        ("epoch 1", 0.03, False, True),  # of so few images, three standard errors are more
        ("epoch 1", 0.3, False, False),
        ("epoch 1", math.nan, False, False),
        ("epoch 2", 0.03, False, True),  # roundings have grown by then: the end is what counts
        ("the end", 0.01, False, True),
        ("the end", 0.03, False, True),
        ("the end", 0.3, False, False),
        ("the end", math.nan, False, False),
    ],
)
def test_another_processor_is_allowed_its_tolerance(record, where, shift, here, elsewhere):
    changed = json.loads(json.dumps(record))
    numbers = {f"epoch {entry['epoch']}": entry for entry in changed["epochs"]}
    (numbers | {"the end": changed["metrics"]})[where]["test_accuracy"] -= shift
    for processor, right in ((record["hardware"]["processor"], here), ("another", elsewhere)):
        changed["hardware"]["processor"] = processor
        name = "test_accuracy" if where == "the end" else f"{where} test_accuracy"
        expected = pytest.raises(UserError, match=f"gone, {name} is")
        with nullcontext() if right else expected:
            check_same(changed, record)


@pytest.mark.parametrize(
    "shift, last_step, right",
    [(0.019, 0.0, True), (0.022, 0.0, False), (0.022, 0.03, True), (0.04, 0.03, False)],
)
def test_of_many_test_images_the_end_is_held_to_two_points(record, shift, last_step, right):
    """Three standard errors of a difference of two: 2.1 points of 10,000 images, 2 of 11,250; or
    what the last epoch moved the accuracy by."""
    curve = [{"test_accuracy": 0.5 - last_step}, {"test_accuracy": 0.5}]
    old, fresh = (
        record | {"metrics": {"test_accuracy": 0.5 + x}, "test_images": 11_500, "epochs": curve}
        for x in (0.0, shift)
    )
    fresh["hardware"] = record["hardware"] | {"processor": "another"}
    with nullcontext() if right else pytest.raises(UserError, match="test_accuracy is"):
        check_same(old, fresh)
    if last_step and right:  # a training that jumps allows itself nothing
        for calm, other in ((old, fresh), (fresh, old)):
            with pytest.raises(UserError, match="test_accuracy is"):
                check_same(calm | {"epochs": [curve[1], curve[1]]}, other)


@pytest.mark.parametrize("shift, right", [(0.01, True), (0.03, False)])
def test_the_loss_of_the_first_epoch_is_held_to_two_per_cent(record, shift, right):
    changed = json.loads(json.dumps(record))
    changed["epochs"][0]["loss"] *= 1 + shift
    changed["hardware"]["processor"] = "another"
    with nullcontext() if right else pytest.raises(UserError, match="gone, epoch 1 loss is"):
        check_same(changed, record)


@pytest.mark.parametrize("shift, right", [(0.1, True), (0.3, False)])
def test_a_loss_may_be_some_per_cent_off_at_the_end(record, shift, right):
    loss = record["metrics"]["loss"] * (1 + shift)
    changed = record | {"metrics": record["metrics"] | {"loss": loss}}
    changed["hardware"] = record["hardware"] | {"processor": "another"}
    with nullcontext() if right else pytest.raises(UserError, match="gone, loss is"):
        check_same(changed, record)


def test_the_number_of_test_images_is_in_the_record(record, small, store):
    """Those of the classes that it was trained on: the accuracies are about these."""
    labels = Embeddings.read(store.folder(record["run_id"]) / EMBEDDINGS).test_labels
    expected = int(torch.isin(labels, torch.tensor(small().split().seen)).sum())
    assert 0 < record["test_images"] == expected < len(labels)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_contradicted_parent_is_not_tried_for_each_child(small, store, workers):
    """Its other children fail with it, in no time."""
    parent = small()
    changed = json.loads(json.dumps(quietly(parent, store)))
    change(changed, "epoch")
    store.write(changed)
    lose_files(parent, store)
    children = [small(f"initial={parent.id}", f"seed={seed}") for seed in range(workers + 2)]
    errors = [o.error for o in run_nodes(children, Store(store.runs), workers, lambda line: None)]
    tried = sum("trained again because its files were gone" in error for error in errors)
    assert 1 <= tried <= workers  # those that were under way already
    assert errors.count(f"its parent {parent.id} failed") == len(children) - tried
