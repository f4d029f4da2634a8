"""Many classes: parts give what the whole gives, and no table of images by classes is ever there."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from hypersphere import losses
from hypersphere.heads import (
    CenterLoss,
    NormalizedSoftmax,
    RandomVectors,
    Softmax,
    base,
    class_means,
)

N, DIM, CLASSES = 12, 5, 37
HEADS = {
    "normalised": lambda: NormalizedSoftmax(DIM, CLASSES, scale=16.0),
    "margin": lambda: NormalizedSoftmax(DIM, CLASSES, scale=16.0, margin=0.25),
    "learned scale": lambda: NormalizedSoftmax(
        DIM, CLASSES, scale=4.0, margin=0.25, learn_scale="shared"
    ),
    "scales": lambda: NormalizedSoftmax(
        DIM, CLASSES, scale=4.0, margin=0.25, learn_scale="per_class"
    ),
    "softmax": lambda: Softmax(DIM, CLASSES, bias=True),
    "unit vectors": lambda: Softmax(DIM, CLASSES, bias=False, unit_vectors=True),
    "center loss": lambda: CenterLoss(
        DIM, CLASSES, bias=True, unit_vectors=True, weight=0.1, rate=0.5
    ),
    "dot": lambda: RandomVectors(
        DIM, CLASSES, similarity="dot", scale=1.0, learned=True, draw="gaussian", bias=0.5
    ),
    "fixed cosine": lambda: RandomVectors(
        DIM, CLASSES, similarity="cosine", scale=20.0, learned=False, draw="gaussian", bias=0.5
    ),
}  # fmt: skip


class Shapes(TorchDispatchMode):
    """The shapes of all tensors that come to be."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for each in out if isinstance(out, tuple | list) else [out]:
            if isinstance(each, torch.Tensor):
                self.seen.add(tuple(each.shape))
        return out


def batch(dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    z = 3 * torch.randn(N, DIM, generator=g, dtype=dtype)
    labels = torch.randint(CLASSES, (N,), generator=g)
    labels[:3] = torch.tensor([0, CLASSES - 1, 10])  # first, last, and where a part begins
    return z, labels, torch.rand(N, generator=g, dtype=dtype)


@pytest.fixture
def in_parts(monkeypatch):
    def choose(size):
        monkeypatch.setattr(losses, "WHOLE", 0)
        monkeypatch.setattr(losses, "PART", size * N)

    return choose


def gradients(head, z, labels, weights):
    z = z.clone().requires_grad_()
    loss = head.loss(z, labels, weights)
    return loss.detach(), torch.autograd.grad(loss, [z, *head.parameters()])


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("size", [1, 10, 36, 1000])
@pytest.mark.parametrize("weighted", [False, True])
def test_parts_of_the_classes_give_the_loss_and_gradients_of_all(name, size, weighted, in_parts):
    torch.manual_seed(0)
    head = HEADS[name]().double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(torch.rand_like(parameter))  # scales and biases all differ
    z, labels, weights = batch()
    given = (z, labels, weights if weighted else None)
    head.train(name != "center loss")  # whose centers move with every loss
    whole, expected = gradients(head, *given)
    in_parts(size)
    with Shapes() as shapes:
        loss, found = gradients(head, *given)
    torch.testing.assert_close(loss, whole, rtol=1e-12, atol=0)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
        assert other.abs().max() > 1e-6
    assert ((N, CLASSES) in shapes.seen) == (size == 1000)
    assert (N, min(size, CLASSES)) in shapes.seen


def test_parts_in_float32_agree_to_its_rounding(in_parts):
    torch.manual_seed(0)
    head = NormalizedSoftmax(DIM, CLASSES, scale=64.0)  # the largest exponents
    given = (*batch(torch.float32)[:2], None)
    whole, expected = gradients(head, *given)
    in_parts(10)
    loss, found = gradients(head, *given)
    torch.testing.assert_close(loss, whole, rtol=1e-6, atol=0)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_parts_hold_at_logits_that_overflow(in_parts):
    head = Softmax(DIM, CLASSES, bias=False)
    z, labels, _ = batch(torch.float32)
    z = z * 1e4
    whole = head.loss(z, labels)
    in_parts(10)
    loss = head.loss(z, labels)
    assert whole > 1000 and torch.isfinite(loss)
    torch.testing.assert_close(loss, whole)


def test_few_classes_are_not_taken_apart():
    assert N * CLASSES <= losses.WHOLE
    with Shapes() as shapes:
        gradients(HEADS["softmax"](), *batch(torch.float32))
    assert (N, CLASSES) in shapes.seen


@pytest.mark.parametrize("name", HEADS)
def test_predictions_come_in_parts(name, monkeypatch):
    torch.manual_seed(0)
    head, z = HEADS[name](), batch(torch.float32)[0]
    expected = head.logits(z).argmax(1)
    monkeypatch.setattr(base, "AT_ONCE", 5 * CLASSES)
    assert head.at_once == 5
    with Shapes() as shapes:
        assert torch.equal(head.classify(z), expected)
    assert (N, CLASSES) not in shapes.seen and (5, CLASSES) in shapes.seen
    monkeypatch.setattr(base, "AT_ONCE", 1)
    assert torch.equal(head.classify(z), expected)


def test_means_of_many_classes_take_no_table_of_images_by_classes(monkeypatch):
    g = torch.Generator().manual_seed(0)
    z, labels = torch.randn(200, DIM, generator=g), torch.randint(30, (200,), generator=g)
    classes = torch.tensor([7, 29, 3, 11])  # in no order; most images are of none of them
    whole = class_means(z, labels, classes)
    monkeypatch.setattr(base, "AT_ONCE", 0)
    monkeypatch.setattr(base, "ROWS", 10)
    with Shapes() as shapes:
        found = class_means(z, labels, classes)
    assert torch.equal(found, whole) and found.dtype == z.dtype
    assert (4, 200) not in shapes.seen
    for mean, c in zip(found, classes, strict=True):
        torch.testing.assert_close(mean, z[labels == c].mean(0))
    with pytest.raises(ValueError, match=r"no example of class \[99, 40\]"):
        class_means(z, labels, torch.tensor([99, 3, 40]))


def test_a_step_of_a_hundred_thousand_classes_follows_the_formula():
    """As large as is meant, in one go: the loss of class vectors that are all alike is log K."""
    many = 100_000
    head = NormalizedSoftmax(4, many, scale=16.0)
    with torch.no_grad():
        head.class_vectors.fill_(0.5)
    z = F.normalize(torch.randn(64, 4), dim=1)
    assert 64 * many > losses.WHOLE
    loss = head.loss(z, torch.arange(64))
    assert loss.item() == pytest.approx(torch.tensor(float(many)).log().item(), rel=1e-6)
