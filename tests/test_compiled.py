"""Steps by torch.compile: the same training within rounding, and one that says when it cannot be."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from hypersphere.errors import UserError
from hypersphere.store import MODEL
from hypersphere.training import compiled
from hypersphere.training.compiled import COMPILE, Compiled
from hypersphere.training.train import train

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler here")


class Recorder(torch.nn.Module):
    """Keeps the sizes of the batches that reach it, as torch.compile's stand-in."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, images):
        self.sizes.append(len(images))
        return images


def pretend(monkeypatch, made):
    monkeypatch.setattr(torch, "compile", lambda network, **_: made)


def test_batches_of_the_first_ones_size_alone_are_compiled(monkeypatch):
    plain, fast = Recorder(), Recorder()
    pretend(monkeypatch, fast)
    forward = Compiled(plain, print)
    for size in (4, 4, 3, 4):
        forward(torch.zeros(size, 1))
    assert fast.sizes == [4, 4, 4] and plain.sizes == [3] and forward.used


def test_a_machine_that_cannot_compile_trains_all_the_same(monkeypatch):
    def refuse(images):
        raise RuntimeError("no compiler\nand a page of detail")

    plain, told = Recorder(), []
    pretend(monkeypatch, refuse)
    forward = Compiled(plain, told.append)
    for _ in range(2):
        forward(torch.zeros(4, 1))
    assert plain.sizes == [4, 4] and not forward.used
    assert told == [f"steps are not compiled, {COMPILE} notwithstanding: no compiler"]


def test_an_error_of_a_later_step_is_not_hidden(monkeypatch):
    def once(images, seen=[]):  # noqa: B006
        seen.append(images)
        if len(seen) > 1:
            raise RuntimeError("out of memory")
        return images

    pretend(monkeypatch, once)
    forward = Compiled(Recorder(), print)
    forward(torch.zeros(4, 1))
    with pytest.raises(RuntimeError, match="out of memory"):
        forward(torch.zeros(4, 1))


def test_the_setting_is_checked(monkeypatch):
    assert not compiled.wanted()
    monkeypatch.setenv(COMPILE, "yes")
    with pytest.raises(UserError, match=f"{COMPILE}=yes: must be 1"):
        compiled.wanted()


@needs_compiler
@pytest.mark.slow
def test_a_compiled_training_is_the_same_within_rounding(small, store, other, monkeypatch):
    training = small("batches.size=100")
    plain = train(training, store, say=lambda line: None)
    monkeypatch.setenv(COMPILE, "1")
    said = []
    fast = train(training, other, say=said.append)
    assert not [line for line in said if "not compiled" in line]
    assert fast["hardware"]["compiled"] is True and "compiled" not in plain["hardware"]
    assert all(entry["compiled"] for entry in fast["epochs"])
    for one, two in zip(plain["epochs"], fast["epochs"]):
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-3)
        assert one["test_accuracy"] == pytest.approx(two["test_accuracy"], abs=0.02)
    # The files bear the same names: nothing of the compiled wrapper is in them.
    one, two = (load_file(s.folder(training.id) / MODEL) for s in (store, other))
    assert one.keys() == two.keys()
