"""Several trainings in flight in one process: each as if it were alone, and as Lightning's."""

import time

import pytest
import torch
from torch import nn

from hypersphere.errors import UserError
from hypersphere.execute import run_nodes
from hypersphere.training import packed
from hypersphere.training.images import EpochBatches, SmallImages
from hypersphere.training.learner import Learner
from hypersphere.training.resume import RESUME
from hypersphere.training.steps import Steps, put_back, tables_of
from hypersphere.training.together import together
from hypersphere.training.train import steps_of, train
from tests.test_training import CONDENSED, EVENTFUL, SELECTED, assert_same_run, curve, quietly

KINDS = {
    "adam": (),
    "momentum, decay, crops": EVENTFUL,
    "best weights": SELECTED,
    "running class means": CONDENSED,
    "center loss": ("head=center",),
    "triplets": ("head=triplet",),
    "bfloat16": ("precision=bf16",),
    "tensorflow's rmsprop": ("optimizer=rmsprop", "optimizer.lr=0.01"),
}


@pytest.fixture
def here(monkeypatch):
    """The packed driver takes what it would take on a CUDA device, on this processor."""
    monkeypatch.setattr(packed, "device_for", lambda *_: torch.device("cpu"))


def fly(trainings, store, in_flight=3, say=lambda line: None):
    """Errors by run, in the order in which the runs ended."""
    jobs = together(trainings, lambda t: steps_of(t, store, say=say), in_flight, say)
    return {training.id: error for training, error in jobs}  # None: it went well


@pytest.mark.parametrize("kind", KINDS)
def test_as_lightning_does_it(small, store, other, monkeypatch, kind):
    training = small(*KINDS[kind])
    quietly(training, store)
    monkeypatch.setattr(packed, "device_for", lambda *_: torch.device("cpu"))
    assert fly([training], other) == {training.id: None}
    assert_same_run(training, store, other)


def test_each_as_if_it_were_alone(small, store, other, here):
    trainings = [small(f"seed={seed}", *kind) for seed, kind in enumerate(KINDS.values())]
    assert set(fly(trainings, store, in_flight=4).values()) == {None}
    for training in trainings:
        quietly(training, other)
        assert_same_run(training, store, other)


def test_they_take_turns(small, store, here):
    """No run waits for another's end."""
    told = []
    trainings = [small(f"seed={seed}", "schedule.epochs=3") for seed in range(3)]
    jobs = together(
        trainings, lambda t: steps_of(t, store, say=lambda line: told.append(t.id)), 2, print
    )
    assert [error for _, error in jobs] == [None] * 3
    first, second, third = (training.id for training in trainings)
    assert set(told[:2]) == {first, second} and told[-3:] == [third] * 3


def test_the_draws_are_those_of_the_other_driver(small):
    training = small(*EVENTFUL, "batches.size=100")
    images = SmallImages(training)
    images.setup()
    sizes, tables = tables_of(images, 1)
    assert len(tables) == 2 and sum(sizes) == len(images.train[1])
    batches = EpochBatches(training, *images.train, 1)
    from hypersphere.data.transforms import Crops, crop_and_flip

    rows = {size: iter(range(len(table.chosen))) for size, table in tables.items()}
    for size, (pixels, labels) in zip(sizes, batches, strict=True):
        row, table = next(rows[size]), tables[size]
        crops = Crops(table.rows[row], table.columns[row], table.mirrored[row])
        got = crop_and_flip(images.train[0], table.chosen[row], 1, crops)
        assert torch.equal(got, pixels)
        assert torch.equal(images.train[1][table.chosen[row]], labels)


# Interrupted


@pytest.mark.parametrize("kind", ["momentum, decay, crops", "best weights", "running class means"])
@pytest.mark.parametrize("first, then", [("packed", "lightning"), ("lightning", "packed"),
                                         ("packed", "packed")])  # fmt: skip
def test_either_driver_goes_on_after_either(small, store, other, monkeypatch, kind, first, then):
    """Begun by the packed driver, a run goes on in it also where there is no CUDA device: what it
    leaves holds nothing of Lightning's loops."""
    training, told = small(*KINDS[kind]), []
    real, cpu = packed.device_for, lambda *_: torch.device("cpu")
    monkeypatch.setattr(packed, "RESUME_SHARE", 1e9)  # after every epoch
    quietly(training, other)

    class Stop(Exception):
        pass

    def say(line):
        told.append(line)
        if line.startswith("epoch 2/"):
            raise Stop

    monkeypatch.setattr(packed, "device_for", cpu if first == "packed" else real)
    with pytest.raises(Stop):
        train(training, store, say=say)
    assert (store.folder(training.id) / RESUME).exists()
    monkeypatch.setattr(packed, "device_for", cpu if then == "packed" else real)
    train(training, store, say=told.append)
    numbers = [line.split()[1].split("/")[0] for line in told]
    assert numbers == [str(n + 1) for n in range(len(numbers))]
    assert_same_run(training, store, other)


def test_resume_points_take_a_small_share_of_the_time(small, store, here, monkeypatch):
    written = []

    def slow(path, write):
        written.append(path)
        time.sleep(0.3)  # many times what these epochs take

    monkeypatch.setattr(packed, "write_atomically", slow)
    fly([small("schedule.epochs=4")], store)
    assert len(written) == 1  # the first: nothing is known of its cost yet
    monkeypatch.setattr(packed, "RESUME_SHARE", 1e9)
    fly([small("schedule.epochs=4", "seed=1")], store)
    assert len(written) == 1 + 4


# Trouble


def test_one_that_fails_ends_alone(small, store, here, monkeypatch):
    good, bad, worse = small(), small("seed=1"), small("seed=2")
    step = Learner.step

    def failing(self, optimizer, *batch):
        if self.training.id == bad.id:
            raise UserError("a clear reason")
        if self.training.id == worse.id:
            raise RuntimeError("a surprise")
        return step(self, optimizer, *batch)

    monkeypatch.setattr(Learner, "step", failing)
    errors = fly([bad, good, worse], store)
    assert errors[good.id] is None
    assert isinstance(errors[bad.id], UserError) and str(errors[bad.id]) == "a clear reason"
    assert isinstance(errors[worse.id], RuntimeError)
    assert store.get(good.id) and not store.get(bad.id)


@pytest.mark.parametrize("room", [1, 2])
def test_out_of_memory_goes_on_with_fewer(small, store, other, here, monkeypatch, room):
    """A device with room for so many runs: the others wait, and nothing is different in the end."""
    trainings = [small(f"seed={seed}") for seed in range(4)]
    aboard, told, most = set(), [], []
    fit = packed.fit

    def limited(learner, *rest):
        aboard.add(learner.training.id)
        most.append(len(aboard))
        try:
            if len(aboard) > room:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
            yield from fit(learner, *rest)
        finally:
            aboard.discard(learner.training.id)

    monkeypatch.setattr(packed, "fit", limited)
    assert set(fly(trainings, store, in_flight=3, say=told.append).values()) == {None}
    assert f"going on with {room}" in [line for line in told if "out of memory" in line][-1]
    assert max(most) == room + 1  # asked for one more only until it was refused
    monkeypatch.setattr(packed, "fit", fit)
    for training in trainings:
        quietly(training, other)
        assert_same_run(training, store, other)


def test_out_of_memory_alone_is_an_error(small, store, here, monkeypatch):
    def never(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB\nmore")
        yield

    monkeypatch.setattr(packed, "fit", never)
    errors = list(fly([small(), small("seed=1")], store).values())
    assert all(isinstance(error, UserError) for error in errors)
    assert {str(error) for error in errors} == {
        "out of memory, alone on its device: CUDA out of memory. Tried to allocate 9 GiB"
    }


# What is for whom


def test_what_the_packed_driver_takes(small, monkeypatch, tmp_path):
    learner = Learner(small())
    assert packed.device_for(learner, tmp_path, print) is None  # no CUDA device: Lightning's
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert packed.device_for(learner, tmp_path, print) == torch.device("cuda", 0)
    learner.network.backbone.noise = nn.Dropout(0.5)
    assert packed.device_for(learner, tmp_path, print) is None


def test_run_nodes_packs_on_a_device(small, store, other, monkeypatch):
    """Parents before those that start from them, evaluations after their trainings."""
    from hypersphere.config import Evaluation, compose, split_config
    from hypersphere.execute import run_node

    monkeypatch.setattr(packed, "device_for", lambda *_: torch.device("cpu"))
    monkeypatch.setattr(packed, "on_device", lambda: True)
    base = small()
    child = small("seed=1", f"initial={base.id}").starting_from(base)
    judged = Evaluation(split_config(compose(["paper=nsl"]))[1]["novel_classes"], child)
    outcomes = list(run_nodes([base, small("seed=5"), child, judged], store, 1, print, 2))
    assert [o.error for o in outcomes] == [""] * 4
    assert outcomes[-1].node is judged
    for node in (base, child, judged):
        run_node(node, other, lambda line: None)
    assert curve(store.get(child.id)) == curve(other.get(child.id))
    assert store.get(judged.id)["metrics"] == other.get(judged.id)["metrics"]


def test_new_tensors_in_the_place_of_buffers():
    """A captured step reads a buffer where it lay at the capture."""
    network = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2))
    buffers = dict(network.named_buffers())
    network[1].running_mean = network[1].running_mean + 1
    network[0].running_var.add_(1)  # in its place
    replaced = put_back(network, buffers)
    assert list(replaced) == ["1.running_mean"] and replaced["1.running_mean"].tolist() == [1, 1]
    assert dict(network.named_buffers())["1.running_mean"] is buffers["1.running_mean"]
    assert buffers["1.running_mean"].tolist() == [0, 0]


@pytest.mark.parametrize("kind", ["running class means", "center loss"])
def test_a_step_launched_between_captured_ones_leaves_buffers_in_place(small, kind):
    """The smaller last batch of an epoch is launched; what is captured reads and writes the old
    places, and would never see running means that it left in new ones."""
    steps, launched = (_steps(small(*KINDS[kind])) for _ in range(2))
    steps.capturing = True  # as on a CUDA device
    before = {name: each.data_ptr() for name, each in steps.learner.network.named_buffers()}
    for each in (steps, launched):
        for size in each.tables:
            each._step(size, worth=False)
    after = dict(steps.learner.network.named_buffers())
    assert {name: each.data_ptr() for name, each in after.items()} == before
    moved = dict(launched.learner.network.named_buffers())
    assert all(torch.equal(after[name], moved[name]) for name in moved)
    assert any(moved[name].data_ptr() != before[name] for name in moved)


def _steps(training):
    torch.manual_seed(0)
    images, learner = SmallImages(training), Learner(training)
    images.setup()
    steps = Steps(learner, learner.optimizers()[0], images, torch.device("cpu"), print)
    for size, table in tables_of(images, 0)[1].items():
        steps._load(size, table)
    return steps


# On a CUDA device


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@needs_cuda
@pytest.mark.parametrize("kind", KINDS)
def test_captured_steps_equal_launched_ones(small, store, other, monkeypatch, kind):
    from hypersphere.training import steps

    training = small(*KINDS[kind], "schedule.epochs=3")
    fly([training], store)
    monkeypatch.setattr(steps, "WORTH", 10**9)
    fly([training], other)
    assert_same_run(training, store, other)


@needs_cuda
def test_captured_and_packed_each_as_if_alone(small, store, other):
    trainings = [small(f"seed={seed}", *kind) for seed, kind in enumerate(KINDS.values())]
    fly(trainings, store, in_flight=len(trainings))
    for training in trainings:
        fly([training], other)
        assert_same_run(training, store, other)
