"""Imprinting new classes into a trained head: in place, by and by, through checkpoints."""

import copy
import math

import pytest
import torch
from safetensors.torch import load, save
from torch.nn import functional as F

from hypersphere.heads import (
    CenterLoss,
    DeepNCM,
    NormalizedSoftmax,
    Prototypes,
    RandomVectors,
    Softmax,
    Triplet,
)

DIM, KNOWN = 6, 4
HEADS = {
    "cosine": lambda: NormalizedSoftmax(DIM, KNOWN, scale=16.0),
    "shared scale": lambda: NormalizedSoftmax(DIM, KNOWN, scale=10.0, learn_scale="shared"),
    "scale per class": lambda: NormalizedSoftmax(DIM, KNOWN, scale=10.0, learn_scale="per_class"),
    "unit softmax": lambda: Softmax(DIM, KNOWN, bias=False, unit_vectors=True),
    "prototypes": lambda: Prototypes(
        DIM, KNOWN, placement="published", placement_seed=0, steps=5, reduction="sum"
    ),
}
every_head = pytest.mark.parametrize("name", HEADS)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def examples(n=12, first=KNOWN, classes=3):
    z = torch.randn(n, DIM) * torch.logspace(-2, 2, n)[:, None]
    return z, first + torch.arange(n) % classes


def mean_of_units(rows):
    """By hand: normalised, averaged, normalised again."""
    units = [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in rows.tolist()]
    mean = [sum(column) / len(units) for column in zip(*units)]
    length = math.sqrt(sum(x * x for x in mean))
    return [x / length for x in mean]


@every_head
def test_new_classes_get_the_unit_mean_and_the_others_keep_their_logits(name):
    head = HEADS[name]()
    vectors, asked = head.class_vectors, torch.randn(5, DIM)
    before = head.logits(asked).detach()
    z, labels = examples()
    head.imprint(z, labels)
    assert head.class_vectors is vectors and head.num_classes == KNOWN + 3
    assert head.class_vectors.shape == (KNOWN + 3, DIM)
    for c in range(KNOWN, KNOWN + 3):
        expected = torch.tensor(mean_of_units(z[labels == c]))
        torch.testing.assert_close(head.class_vectors[c].detach(), expected)
    torch.testing.assert_close(head.class_vectors.norm(dim=1), torch.ones(KNOWN + 3))
    after = head.logits(asked).detach()
    torch.testing.assert_close(after[:, :KNOWN], before)
    # The logit of a new class is scale * cosine, as of any other.
    cosine = F.cosine_similarity(asked, head.class_vectors[KNOWN].detach()[None])
    scale = head.logits(head.class_vectors[:1])[0, 0].detach()
    length = asked.norm(dim=1) if name == "unit softmax" else 1
    torch.testing.assert_close(after[:, KNOWN], scale * cosine * length)


@every_head
def test_examples_by_and_by_equal_all_at_once(name):
    z, labels = examples()
    at_once = HEADS[name]()
    by_and_by = copy.deepcopy(at_once)
    at_once.imprint(z, labels)
    for i in torch.arange(len(z)).split(1):  # the first three are of three classes
        by_and_by.imprint(z[i], labels[i])
    mixed = HEADS[name]()
    mixed.load_state_dict(load(save(by_and_by.state_dict())))
    z, labels = examples(first=KNOWN + 1, classes=3)  # two that are there, and a further one
    for head in (at_once, by_and_by, mixed):
        head.imprint(z, labels)
    for head in (by_and_by, mixed):
        assert torch.equal(head.class_vectors, at_once.class_vectors)
        torch.testing.assert_close(head.imprinted, at_once.imprinted, rtol=1e-14, atol=1e-14)


@every_head
def test_a_checkpoint_with_more_classes_loads_into_a_head_of_the_former_number(name):
    head = HEADS[name]()
    assert "imprinted" not in head.state_dict()  # checkpoints made before still fit
    head.imprint(*examples())
    fresh = HEADS[name]()
    fresh.load_state_dict(load(save(head.state_dict())))
    assert fresh.num_classes == KNOWN + 3
    asked = torch.randn(5, DIM)
    assert torch.equal(fresh.logits(asked), head.logits(asked))
    fresh.load_state_dict(head.state_dict())  # and again, into one that has grown
    assert torch.equal(fresh.logits(asked), head.logits(asked))
    with pytest.raises(RuntimeError, match="imprinted"):
        head.load_state_dict(HEADS[name]().state_dict())


@every_head
def test_a_grown_head_can_be_tuned_copied_and_exported(name):
    head = HEADS[name]()
    head.imprint(*examples())
    learned = list(head.parameters())
    if learned:
        optimizer = torch.optim.RMSprop(learned, lr=0.01, momentum=0.9)
        z, labels = examples()
        losses = []
        for _ in range(5):
            loss = head.loss(z, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0]
    asked = torch.randn(5, DIM)
    exported = torch.export.export(Logits(copy.deepcopy(head)), (asked,)).module()
    torch.testing.assert_close(exported(asked), head.logits(asked))


class Logits(torch.nn.Module):
    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, embeddings):
        return self.head.logits(embeddings)


def test_more_examples_undo_what_tuning_made_of_the_vector():
    head, (z, labels) = HEADS["cosine"](), examples()
    head.imprint(z[:6], labels[:6])
    with torch.no_grad():
        head.class_vectors[KNOWN] += 1
        tuned = head.class_vectors[KNOWN + 1].clone()
    head.imprint(z[6:7], labels[6:7])  # class KNOWN alone
    expected = torch.tensor(mean_of_units(z[:7][labels[:7] == KNOWN]))
    torch.testing.assert_close(head.class_vectors[KNOWN].detach(), expected)
    torch.testing.assert_close(head.class_vectors[KNOWN + 1], tuned)


def test_a_learned_scale_starts_where_it_is_told_and_is_kept():
    head = HEADS["shared scale"]()
    assert head.scale.shape == () and head.scale.item() == 10 and head.scale.requires_grad
    z = torch.randn(8, DIM)
    fixed = NormalizedSoftmax(DIM, KNOWN, scale=10.0)
    fixed.class_vectors = head.class_vectors
    torch.testing.assert_close(head.logits(z), fixed.logits(z))
    head.loss(z, torch.arange(8) % KNOWN).backward()
    assert head.scale.grad.abs() > 0
    with torch.no_grad():
        head.scale.fill_(23.0)
    head.imprint(*examples())
    assert head.scale.item() == 23


def test_a_scale_per_class_gives_new_classes_the_mean():
    head = HEADS["scale per class"]()
    with torch.no_grad():
        head.scale.copy_(torch.tensor([8.0, 10.0, 12.0, 14.0]))
    head.imprint(*examples())
    assert head.scale.tolist() == [8, 10, 12, 14, 11, 11, 11]
    z = torch.randn(3, DIM)
    cosines = F.normalize(z, dim=1) @ F.normalize(head.class_vectors, dim=1).T
    torch.testing.assert_close(head.logits(z), cosines * head.scale)


@pytest.mark.parametrize(
    "head, message",
    [
        (lambda: Softmax(DIM, KNOWN, bias=True), "Softmax cannot be imprinted: it has class vectors of any length, or a bias"),
        (lambda: CenterLoss(DIM, KNOWN, bias=False, unit_vectors=True, weight=0.1, rate=0.5), "CenterLoss cannot be imprinted"),
        (lambda: Triplet(DIM, KNOWN, margin=1.0, squared=False, mining="all"), "Triplet cannot be imprinted: it has no class vectors of unit length"),
        (lambda: RandomVectors(DIM, KNOWN, similarity="cosine", scale=1.0, learned=True, draw="gaussian", bias=0.0), "it has a bias of each class"),
        (lambda: DeepNCM(DIM, KNOWN, means="online", decay=0.9, every=5), "DeepNCM cannot be imprinted"),
    ],
)  # fmt: skip
def test_heads_without_unit_class_vectors_say_so(head, message):
    with pytest.raises(ValueError, match=message):
        head().imprint(*examples())


@pytest.mark.parametrize(
    "z, labels, message",
    [
        (torch.ones(2, DIM), torch.tensor([KNOWN, 3]), "class 3 was trained: new classes are numbered from 4 on"),
        (torch.ones(2, DIM), torch.tensor([4, 6]), "no example of class 5"),
        (torch.ones(1, DIM), torch.tensor([5]), "no example of class 4"),
        (torch.ones(2, DIM + 1), torch.tensor([4, 4]), r"embeddings \(n, 6\)"),
        (torch.ones(2, DIM), torch.tensor([4]), r"got \(2, 6\) and \(1,\)"),
        (torch.zeros(1, DIM), torch.tensor([4]), "embedding 0 has no direction"),
        (torch.full((1, DIM), math.inf), torch.tensor([4]), "embedding 0 has no direction"),
    ],
)  # fmt: skip
def test_bad_examples_change_nothing(z, labels, message):
    head = HEADS["cosine"]()
    before = head.class_vectors.clone()
    with pytest.raises(ValueError, match=message):
        head.imprint(z, labels)
    assert torch.equal(head.class_vectors, before) and head.num_classes == KNOWN
