"""bfloat16 where a processor has no instructions for it."""

import copy
import importlib
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from hypersphere import paths, precision
from hypersphere.config import compose, split_config
from hypersphere.precision import Rounded, autocast
from hypersphere.training.learner import Learner

BF16 = torch.finfo(torch.bfloat16).eps


@pytest.fixture
def pair():
    """Two equal small networks, and a batch."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5)]
    network = nn.Sequential(*layers).to(memory_format=torch.channels_last)
    return network, copy.deepcopy(network), torch.randn(4, 3, 8, 8)


def outputs(network, images, mode):
    with torch.autocast("cpu", torch.bfloat16), mode:
        out = network(images)
    out.float().square().sum().backward()
    return out


def test_it_computes_what_hardware_would(pair):
    """Forwards and backwards within a few of bfloat16's steps of torch's own kernels."""
    ours, torchs, images = pair
    found, expected = outputs(ours, images, Rounded()), outputs(torchs, images, nullcontext())
    assert found.dtype is expected.dtype is torch.bfloat16
    scale = expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=0, atol=2 * BF16 * scale)
    for mine, its in zip(ours.parameters(), torchs.parameters(), strict=True):
        assert mine.grad.dtype is torch.float32
        atol = 4 * BF16 * its.grad.abs().max().item()
        torch.testing.assert_close(mine.grad, its.grad, rtol=0, atol=atol)


def test_inputs_weights_and_results_are_rounded_and_sums_are_not(pair):
    layer, _, images = pair
    with torch.autocast("cpu", torch.bfloat16), Rounded(), torch.no_grad():
        found = layer[0](images)
    short = [x.bfloat16().double() for x in (images, layer[0].weight, layer[0].bias)]
    exact = nn.functional.conv2d(*short, stride=2, padding=1)
    # Half a step of the value itself, and what float32 sums of 27 products may be off by.
    allowed = exact.abs() * BF16 / 2 + 1e-5
    assert ((found.double() - exact).abs() <= allowed).all()
    full = nn.functional.conv2d(*(x.double() for x in (images, layer[0].weight, layer[0].bias)),
                                stride=2, padding=1)  # fmt: skip
    assert ((found.double() - full).abs() > allowed).any()  # the inputs' rounding shows


def test_what_asks_for_float32_gets_it(pair):
    layer, images = pair[0][0], pair[2]
    with torch.autocast("cpu", torch.bfloat16), Rounded(), torch.autocast("cpu", enabled=False):
        found = layer(images)
    assert found.dtype is torch.float32 and torch.equal(found, layer(images))


@pytest.mark.parametrize("has", [True, False])
def test_only_a_processor_without_bfloat16_is_helped(pair, has, monkeypatch):
    network, _, images = pair
    rounded, real = [], precision._round
    monkeypatch.setattr(precision, "has_bfloat16", lambda: has)
    monkeypatch.setattr(precision, "_round", lambda value: rounded.append(value) or real(value))
    with torch.no_grad():
        with autocast("cpu", "fp32"):
            assert network(images).dtype is torch.float32
        assert not rounded
        with autocast("cpu", "bf16"):
            assert network(images).dtype is torch.bfloat16
        assert bool(rounded) is not has
        assert network(images).dtype is torch.float32  # nothing stays behind


def test_the_bench_takes_steps_in_every_precision(monkeypatch):
    """The lines of `make bench` that compare them can be made: nobody waits for them otherwise."""
    monkeypatch.syspath_prepend(str(paths.root() / "scripts"))
    steps = importlib.import_module("benches.steps")
    images = torch.randint(0, 256, (10 * steps.BATCH, 1, 28, 28), dtype=torch.uint8)
    labels = torch.arange(len(images)) % 5
    assert len(steps.steps(images, labels)) == len(steps.depthwise()) == 3
    assert steps.steps(images, labels)["bfloat16, float32's kernels and rounding"]() == len(images)


@pytest.mark.parametrize("head", ["softmax", "nsl"])
def test_images_are_judged_by_float32_logits(head):
    """Of bfloat16 ones two are often alike, and the lower label would win."""
    training, _ = split_config(compose([f"head={head}", "precision=bf16"]))
    learner, kinds = Learner(training), []
    logits = learner.network.head.logits
    learner.network.head.logits = lambda z: kinds.append((z.dtype, logits(z).dtype)) or logits(z)
    images = torch.randint(0, 255, (4, 1, 8, 8), dtype=torch.uint8)
    learner.begin_judging()
    learner.judge(images, torch.zeros(4, dtype=torch.long), 0)
    assert kinds == [(torch.float32, torch.float32)]
