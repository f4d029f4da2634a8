"""A run is repeatable, resumable, checked and recorded; what goes wrong is said in one line."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import hypersphere
from hypersphere.config import Evaluation, compose, split_config
from hypersphere.evaluation.embeddings import Embeddings
from hypersphere.store import EMBEDDINGS, MODEL, Store
from hypersphere.training import train as module
from hypersphere.training.resume import RESUME
from hypersphere.training.train import load_network, train
from tests.runs import equal, quietly, weights

# Everything that a resumed run could lose: momentum, a decayed rate, augmentation's draws.
EVENTFUL = (
    "optimizer=sgd",
    "schedule=multistep",
    "schedule.epochs=3",
    "schedule.milestones=[1,2]",
    "data.augmentation={crop_padding: 1, flip: true}",
)


# The best weights so far, of an epoch before the last.
SELECTED = (
    "schedule.epochs=4",
    "optimizer.lr=0.03",
    "data.validation={share: 0.2}",
    "class_weights=balanced",
    "select=lowest_validation_loss",
)

# Class means of the features so far, condensed in the epoch after the first.
CONDENSED = ("head=deep_ncm", "head.means=condensation", "head.every=50", "class_weights=balanced")


def judge(training, store):
    """The evaluation of `training` by its configuration's evaluation (the one place that asks)."""
    from hypersphere.execute import run_node

    component = split_config(compose(["paper=nsl"]))[1]["novel_classes"]
    return run_node(Evaluation(component, training), store, lambda line: None)


def curve(record):
    return [{k: v for k, v in epoch.items() if k != "seconds"} for epoch in record["epochs"]]


def assert_same_run(training, first, second):
    """Bitwise: epochs, weights, embeddings and so the hashes in the records."""
    a, b = first.get(training.id), second.get(training.id)
    assert curve(a) == curve(b)
    assert a["metrics"] == b["metrics"]
    assert equal(weights(training, first), weights(training, second))
    assert equal(weights(training, first, EMBEDDINGS), weights(training, second, EMBEDDINGS))
    assert a["files"] == b["files"]


class Stop(Exception):
    """The power cut of these tests."""


def stop_after(epochs):
    """A listener that fails when it is told of epoch number `epochs`."""

    def say(line):
        if line.startswith(f"epoch {epochs}/"):
            raise Stop

    return say


# Repeatable


@pytest.mark.parametrize(
    "overrides",
    [(), ("head=triplet",), ("head=contrastive",), EVENTFUL],
    ids=lambda o: " ".join(o[:1]),
)
def test_the_same_configuration_gives_the_same_bits(small, store, other, overrides):
    training = small(*overrides)
    quietly(training, store)
    torch.manual_seed(123)  # nothing global enters
    quietly(training, other)
    assert_same_run(training, store, other)


def test_another_seed_gives_other_weights(small, store):
    first, second = small(), small("seed=1", "split.permutation=0")
    records = [quietly(t, store) for t in (first, second)]
    assert curve(records[0]) != curve(records[1])
    a, b = weights(first, store), weights(second, store)
    assert all(not torch.equal(a[k], b[k]) for k in a)


def test_training_learns(small, store):
    record = quietly(small("schedule.epochs=3"), store)
    losses = [epoch["loss"] for epoch in record["epochs"]]
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0] / 2
    assert record["metrics"]["test_accuracy"] > 0.9


def test_bfloat16_trains_and_keeps_float32_weights(small, store):
    training = small("precision=bf16", "schedule.epochs=1")
    quietly(training, store)
    assert {v.dtype for v in weights(training, store).values()} == {torch.float32}
    assert weights(training, store, EMBEDDINGS)["train"].dtype == torch.float32


def test_a_finished_run_is_not_trained_again(small, store, monkeypatch):
    calls = []
    real = module._train
    monkeypatch.setattr(module, "_train", lambda *args: calls.append(args) or real(*args))
    training = small()
    first = quietly(training, store)
    assert quietly(training, store) == first
    assert quietly(training, store, need_files=True) == first
    assert quietly(training, Store(store.runs)) == first  # another process would look on disk
    assert len(calls) == 1
    quietly(small("seed=1"), store)
    assert len(calls) == 2


# The record


def test_record_is_complete(small, store):
    training = small()
    record = quietly(training, store)
    assert record == json.loads((store.folder(training.id) / "record.json").read_text())
    assert record["schema"] == 1 and record["kind"] == "training" and record["parent"] is None
    assert record["run_id"] == training.id and record["identity"] == training.identity()
    assert record["config"] == training.raw
    assert record["data"] == {"name": "digits", "content": training.dataset.content}
    assert record["git"].keys() == {"commit", "dirty"}
    assert {"python", "torch", "hypersphere", "pytorch-lightning", "numpy"} <= record[
        "versions"
    ].keys()
    assert record["hardware"]["device"] and record["hardware"]["threads"] == 1
    assert record["seconds"] > 0 and record["finished"].endswith("Z")
    assert record["diverged"] is False and record["artifacts"] == {}
    assert [epoch["epoch"] for epoch in record["epochs"]] == [1, 2]
    last = record["epochs"][-1]
    assert record["metrics"] == {k: last[k] for k in ("loss", "test_accuracy")}
    assert yaml.safe_load((store.folder(training.id) / "config.yaml").read_text()) == training.raw


def test_a_record_rebuilds_its_training(small, store):
    training = small()
    record = quietly(training, store)
    assert split_config(record["config"])[0].id == training.id


def test_files_match_their_hashes(small, store):
    training = small()
    record = quietly(training, store)
    folder = store.folder(training.id)
    assert record["files"].keys() == {MODEL, EMBEDDINGS}
    for name, expected in record["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == expected
    left = {file.name for file in folder.iterdir()}
    # the lease stays: the numbers of later ones go on from it
    kept = {"config.yaml", "log.txt", "lock", "lease.1.json", "record.json"}
    assert left == kept | {MODEL, EMBEDDINGS}


def test_saved_embeddings_and_accuracy_are_the_saved_networks(small, store):
    from hypersphere.data.load import load

    training = small()
    record = quietly(training, store)
    folder = store.folder(training.id)
    network = load_network(training, folder).eval()
    e, data = Embeddings.read(folder / EMBEDDINGS), load("digits")
    with torch.inference_mode():
        torch.testing.assert_close(network(data.test_images), e.test)
        torch.testing.assert_close(network(data.train_images[:600]), e.train[:600])
        seen = torch.tensor(training.split().seen)
        keep = torch.isin(e.test_labels, seen)
        guess = seen[network.head.logits(e.test[keep]).argmax(1)]
    assert torch.equal(e.test_labels, data.test_labels) and torch.equal(
        e.train_labels, data.train_labels
    )
    accuracy = (guess == e.test_labels[keep]).double().mean().item()
    assert record["metrics"]["test_accuracy"] == pytest.approx(accuracy, abs=1e-12)


def test_the_record_is_written_last(small, store, monkeypatch):
    training, seen = small(), []
    real = Store.write

    def write(self, record):
        seen.append({file.name for file in self.folder(training.id).iterdir()})
        real(self, record)

    monkeypatch.setattr(Store, "write", write)
    quietly(training, store)
    assert len(seen) == 1 and {MODEL, EMBEDDINGS, "config.yaml"} <= seen[0]
    assert "record.json" not in seen[0]


# Interrupted


@pytest.mark.parametrize(
    ("overrides", "after"),
    [
        ((), 1),
        (("head=triplet",), 1),
        (("head=contrastive",), 1),
        (EVENTFUL, 1),
        (EVENTFUL, 2),
        (SELECTED, 3),
        (CONDENSED, 1),
    ],
    ids=["nsl", "triplet", "contrastive", "eventful-1", "eventful-2", "selected", "condensed"],
)
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(
    small, store, other, overrides, after
):
    training = small(*overrides)
    with pytest.raises(Stop):
        train(training, store, say=stop_after(after))
    folder = store.folder(training.id)
    assert not (folder / "record.json").exists() and not (folder / MODEL).exists()
    assert (folder / RESUME).exists()
    assert Store(store.runs).get(training.id) is None

    torch.manual_seed(99)
    lines = []
    train(training, store, say=lines.append)
    assert not any(line.startswith("epoch 1/") for line in lines[1:])  # it did go on
    quietly(training, other)
    assert_same_run(training, store, other)
    assert not (folder / RESUME).exists()


def test_interrupted_after_the_last_epoch(small, store, other, monkeypatch):
    training = small()

    def fail(*_):
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(module, "embed", fail)
        with pytest.raises(Stop):
            quietly(training, store)
    assert store.get(training.id) is None
    quietly(training, store)
    quietly(training, other)
    assert_same_run(training, store, other)


def test_keyboard_interrupt_leaves_a_run_that_goes_on(small, store, other):
    def press(line):
        raise KeyboardInterrupt

    training, handler = small(), signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            train(training, store, say=press)
    finally:
        signal.signal(signal.SIGINT, handler)  # Lightning ignores it from here on
    assert store.get(training.id) is None
    quietly(training, store)
    quietly(training, other)
    assert_same_run(training, store, other)


def test_the_log_has_each_epoch_once(small, store):
    training = small()
    quietly(training, store)
    log = (store.folder(training.id) / "log.txt").read_text().splitlines()
    assert [line.split(":")[0] for line in log] == ["epoch 1/2", "epoch 2/2"]


def test_the_log_of_a_resumed_run_has_each_epoch_once(small, store):
    training = small()
    with pytest.raises(Stop):
        train(training, store, say=stop_after(1))
    quietly(training, store)
    log = (store.folder(training.id) / "log.txt").read_text().splitlines()
    assert [line.split(":")[0] for line in log] == ["epoch 1/2", "epoch 2/2"]


def truncated(file):
    file.write_bytes(file.read_bytes()[:-1000])


def empty(file):
    file.write_bytes(b"")


def garbage(file):
    file.write_bytes(b"\x80\x04garbage" * 100)


def foreign(file):
    torch.save({"weights": torch.zeros(3)}, file)


@pytest.mark.parametrize(
    "damage",
    [
        truncated,
        empty,
        garbage,
        foreign,
    ],
    ids=lambda damage: damage.__name__,
)
def test_a_damaged_resume_point(small, store, other, damage):
    training = small()
    with pytest.raises(Stop):
        train(training, store, say=stop_after(1))
    file = store.folder(training.id) / RESUME
    damage(file)
    lines = []
    train(training, store, say=lines.append)
    assert lines[0].startswith(f"{file}: ") and "starts again" in lines[0]
    assert lines[1].startswith("epoch 1/2")
    quietly(training, other)
    assert_same_run(training, store, other)


SCRIPT = """
import json, sys, torch
torch.set_num_threads(1)
from hypersphere.config import split_config
from hypersphere.store import Store
from hypersphere.training.train import train
train(split_config(json.loads(sys.argv[1]))[0], Store(), say=lambda line: print(line, flush=True))
"""


def start(training):
    source = Path(hypersphere.__file__).parents[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(source)}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, json.dumps(training.raw)],
        stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


@pytest.mark.slow
def test_killed_and_started_again(small, store, other):
    training = small("schedule.epochs=20")
    process = start(training)
    for line in process.stdout:
        if line.startswith("epoch 5/"):
            process.send_signal(signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL
    assert Store().get(training.id) is None
    again = start(training)
    lines = again.stdout.read().splitlines()
    assert again.wait() == 0
    assert not any(line.startswith("epoch 3/") for line in lines)
    assert any(line.startswith("epoch 20/20") for line in lines)
    quietly(training, other)
    assert_same_run(training, Store(), other)


@pytest.mark.slow
def test_two_processes_train_one_run_once(small):
    training = small("schedule.epochs=20")
    outputs = [p.communicate()[0] for p in (start(training), start(training))]
    ends = [o for o in outputs if "epoch 20/20" in o]
    assert len(ends) == 1  # the other found the record
    assert Store().get(training.id) is not None


# Divergence


def test_divergence_is_a_result(small, store):
    training = small("optimizer=sgd", "optimizer.lr=1e30", "schedule.epochs=3")
    record = quietly(training, store)
    assert record["diverged"] is True
    assert len(record["epochs"]) == 1  # there is nothing to go on from
    loss = Store(store.runs).get(training.id)["metrics"]["loss"]
    assert not torch.isfinite(torch.tensor(loss))
    judged = judge(training, store)
    assert judged["diverged"] is True and judged["metrics"] == {}


def test_a_diverged_run_interrupted_before_its_record_goes_no_further(
    small, store, other, monkeypatch
):
    training = small("optimizer=sgd", "optimizer.lr=1e30", "schedule.epochs=3")

    def fail(*_):
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(module, "embed", fail)
        with pytest.raises(Stop):
            quietly(training, store)
    resumed, undisturbed = quietly(training, store), quietly(training, other)
    assert len(resumed["epochs"]) == len(undisturbed["epochs"]) == 1


def test_a_good_run_is_judged_once(small, store, monkeypatch):
    training = small()
    judged = judge(training, store)
    assert judged["kind"] == "evaluation" and judged["parent"] == training.id
    assert judged["diverged"] is False
    assert set(judged["metrics"]) >= {"all/renormalized/joint/all", "5/raw/disjoint/unseen"}
    assert len(judged["metrics"]["1/raw/joint/all"]) == 10
    monkeypatch.setattr(module, "_train", None)  # would fail if it trained again
    assert judge(training, Store(store.runs)) == judged
