"""One run on several devices (processes here) has the numbers of one, and survives a kill."""

import os
import signal

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from hypersphere import losses
from hypersphere.devices import DEVICES
from hypersphere.errors import UserError
from hypersphere.store import EMBEDDINGS, MODEL
from hypersphere.training import several
from hypersphere.training.images import share_of
from hypersphere.training.learner import Learner
from hypersphere.training.resume import RESUME
from hypersphere.training.train import train
from tests.runs import quietly

# Steps so small that rounding does not grow within the test; a slip in the gradients, the order of
# images or the momentum would still be a thousand times as large.
PLAIN = ("optimizer=sgd", "optimizer.lr=0.002", "schedule.epochs=2", "batches.size=36")


def assert_close(training, one, two):
    """Weights, embeddings and curve within rounding."""
    for name in (MODEL, EMBEDDINGS):
        a, b = (load_file(s.folder(training.id) / name) for s in (one, two))
        assert a.keys() == b.keys()
        for key in a:
            torch.testing.assert_close(a[key], b[key], rtol=1e-4, atol=1e-5)
    a, b = one.get(training.id), two.get(training.id)
    for before, after in zip(a["epochs"], b["epochs"], strict=True):
        assert after["loss"] == pytest.approx(before["loss"], rel=1e-5)
        assert after.get("test_accuracy") == before.get("test_accuracy")
        assert after.pop("devices") == 2 and "devices" not in before
    assert b["hardware"].pop("devices") == 2


@pytest.mark.parametrize("size", [1, 2, 7, 36])
@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_shares_are_the_whole_batch(size, processes):
    parts = [list(range(size))[share_of(size, (i, processes))] for i in range(processes)]
    assert sum(parts, []) == list(range(size))
    lengths = [len(part) for part in parts]
    assert max(lengths) - min(lengths) <= 1


LOSSES = {
    "softmax": lambda z, y: F.cross_entropy(z, y),
    "triplet": lambda z, y: losses.triplet(z, y, 0.2, True, "semihard"),
    "all triplets": lambda z, y: losses.triplet(z, y, 0.2, False, "all"),
    "contrastive": lambda z, y: losses.contrastive(z, y, 1.0, "all"),
}
IMAGES = 17  # do not divide by two


def gradients(share):
    """Of each loss, in float64, by the weights of a layer that has seen a share of the images."""
    g = torch.Generator().manual_seed(0)
    images = torch.randn(IMAGES, 8, generator=g, dtype=torch.float64)
    labels = torch.arange(IMAGES) % 4
    weights = torch.randn(4, 8, generator=g, dtype=torch.float64).requires_grad_()
    found = {}
    for name, loss in LOSSES.items():
        mine = share_of(IMAGES, share)
        batch = images[mine] @ weights.T, labels[mine]
        value = loss(*(several.whole(*batch) if share[1] > 1 else batch))
        (found[name],) = torch.autograd.grad(value, weights)
    return found


def _gradients_of_share(rank, processes, port, file):
    address = f"tcp://127.0.0.1:{port}"
    torch.distributed.init_process_group("gloo", address, rank=rank, world_size=processes)
    found = gradients((rank, processes))
    for each in found.values():
        torch.distributed.all_reduce(each)  # and the mean, as DDP does
    if rank == 0:
        torch.save({name: each / processes for name, each in found.items()}, file)
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_gradients_of_shares_are_those_of_the_batch(tmp_path, processes):
    file = tmp_path / "gradients.pt"
    several.mp.start_processes(
        _gradients_of_share,
        (processes, several._free_port(), file),
        processes,
        start_method="spawn",
    )
    shared, alone = torch.load(file), gradients((0, 1))
    for name in LOSSES:
        assert alone[name].abs().max() > 1e-3
        torch.testing.assert_close(shared[name], alone[name], rtol=1e-12, atol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ("head=softmax", "data.augmentation={crop_padding: 1, flip: true}"),
        # pairs across the shares; rounding can tip the choice of a negative, so half as far
        ("head=triplet", "optimizer.lr=0.001", "schedule.epochs=1"),
        ("head=center",),  # centers follow the whole batch
        ("head=nsl", "class_weights=balanced", "batches.size=17"),
    ],
    ids=lambda o: o[0],
)
def test_two_processes_train_as_one(small, store, other, monkeypatch, overrides):
    training = small(*PLAIN, *overrides)
    quietly(training, store)
    monkeypatch.setenv(DEVICES, "2")
    lines = []
    train(training, other, say=lines.append)
    epochs = training.raw["schedule"]["epochs"]
    assert [line.split(":")[0] for line in lines] == [
        f"epoch {epoch}/{epochs}" for epoch in range(1, epochs + 1)
    ]
    assert_close(training, store, other)
    assert not (other.folder(training.id) / RESUME).exists()


@pytest.mark.slow
def test_a_killed_process_ends_the_run_and_it_goes_on(small, store, other, monkeypatch):
    training = small(*PLAIN, "schedule.epochs=3", "head=softmax")
    quietly(training, store)
    monkeypatch.setenv(DEVICES, "2")
    started = []
    start = several.mp.start_processes

    def noted(*args, **choices):
        started.append(start(*args, **choices))
        return started[-1]

    monkeypatch.setattr(several.mp, "start_processes", noted)

    def kill(line):
        os.kill(started[0].processes[1].pid, signal.SIGKILL)

    with pytest.raises(UserError, match="process . of 2 .*run again"):
        train(training, other, say=kill)
    assert other.get(training.id) is None and (other.folder(training.id) / RESUME).exists()
    assert not any(process.is_alive() for process in started[0].processes)
    lines = []
    record = train(training, other, say=lines.append)
    assert not any(line.startswith("epoch 1/") for line in lines)  # it did go on
    assert len(record["epochs"]) == 3
    assert_close(training, store, other)


@pytest.mark.slow
def test_one_process_goes_on_from_two(small, store, other, monkeypatch):
    training = small(*PLAIN, "head=softmax")

    class Stop(Exception):
        pass

    def stop(line):
        raise Stop

    with monkeypatch.context() as patch:
        patch.setenv(DEVICES, "2")
        with pytest.raises(Stop):
            train(training, other, say=stop)
    record, one = quietly(training, other), quietly(training, store)
    assert record["epochs"][0]["devices"] == 2 and record["hardware"]["devices"] == 2
    assert record["metrics"]["loss"] == pytest.approx(one["metrics"]["loss"], rel=1e-5)


def test_what_several_would_train_otherwise_is_refused(small, store, monkeypatch):
    learner = Learner(small())
    several._check(learner, 2, cuda=False)
    learner.network.layer = nn.BatchNorm2d(3)
    several._check(learner, 0, cuda=True)
    with pytest.raises(UserError, match="batch normalisation is shared between GPUs alone"):
        several._check(learner, 2, cuda=False)
    with pytest.raises(UserError, match=f"this machine has {torch.cuda.device_count()} GPUs"):
        several._check(learner, 1000, cuda=True)
    learner.network.layer = nn.Dropout()
    with pytest.raises(UserError, match="dropout"):
        several._check(learner, 2, cuda=False)


def test_a_resume_point_of_the_driver_for_one_device_is_kept(small, store, monkeypatch):
    training = small()
    point = dict.fromkeys(("state_dict", "optimizer_states", "lr_schedulers", "history"))
    store.folder(training.id).mkdir(parents=True)
    torch.save(point, store.folder(training.id) / RESUME)
    monkeypatch.setenv(DEVICES, "2")
    with pytest.raises(UserError, match="unset HYPERSPHERE_DEVICES"):
        quietly(training, store)
    assert (store.folder(training.id) / RESUME).exists()


@pytest.mark.parametrize("text", ["0", "two", "-1", ""])
def test_a_bad_number_is_refused(small, store, monkeypatch, text):
    monkeypatch.setenv(DEVICES, text)
    with pytest.raises(UserError, match="HYPERSPHERE_DEVICES"):
        quietly(small(), store)
