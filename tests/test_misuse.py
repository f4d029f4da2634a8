"""Input as people have it: what does not fit is named, and nothing trains to nonsense in silence."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from hypersphere import (
    NormalizedSoftmax,
    Prototypes,
    evaluate,
    losses,
    open_set,
    prototypes,
    retrieval,
)
from hypersphere.evaluation.embeddings import compact
from hypersphere.evaluation.fewshot import open_set_scores
from hypersphere.heads import (
    ClampedRegression,
    Contrastive,
    DeepNCM,
    Head,
    JointPrototypes,
    Poles,
    RandomVectors,
    Regression,
    Softmax,
    Triplet,
)

POINTS = torch.randn(12, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 4
PLACED = {"placement": "optimal", "placement_seed": 0, "reduction": "mean"}
CLASSES = {
    "cosine": lambda: NormalizedSoftmax(6, 4, scale=16.0),
    "softmax": lambda: Softmax(6, 4, bias=True),
    "prototypes": lambda: Prototypes(6, 4, **PLACED),
    "regression": lambda: Regression(6, 4, targets="sphere"),
    "triplet": lambda: Triplet(6, 4, margin=1.0, squared=False, mining="all"),
    "contrastive": lambda: Contrastive(6, 4, margin=1.0, pairs="all"),
    "deep ncm": lambda: DeepNCM(6, 4, means="online", decay=0.5, every=1),
}
VALUES = {
    "poles": lambda: Poles(6, 4, bounds=[0.0, 1.0], reduction="mean"),
    "joint": lambda: JointPrototypes(6, 4, bounds=(0, 1), pole="first", **PLACED),
    "clamped": lambda: ClampedRegression(6, 4, bounds=[0.0, 1.0]),
}
every_class_head = pytest.mark.parametrize("name", CLASSES)
every_value_head = pytest.mark.parametrize("name", VALUES)


@every_class_head
def test_labels_are_one_per_embedding(name):
    for wrong in (LABELS[:, None], LABELS[:-1]):
        with pytest.raises(
            ValueError, match=r"labels: needs shape \(12,\), one per embedding, got"
        ):
            CLASSES[name]().loss(POINTS, wrong)


@pytest.mark.parametrize("name", ["cosine", "softmax", "prototypes", "regression", "deep ncm"])
def test_weights_are_one_per_embedding_and_labels_lie_among_the_classes(name):
    head = CLASSES[name]()
    with pytest.raises(ValueError, match=r"weights: needs shape \(12,\)"):
        head.loss(POINTS, LABELS, torch.ones(12, 1))
    for wrong in (-1, 4):
        with pytest.raises(IndexError):
            head.loss(POINTS, torch.where(LABELS == 0, wrong, LABELS))


@pytest.mark.parametrize("wrong", [-100, -1, 4])
def test_where_classes_come_in_parts_labels_are_held_too(monkeypatch, wrong):
    monkeypatch.setattr(losses, "WHOLE", 8)
    monkeypatch.setattr(losses, "PART", 24)
    head = CLASSES["cosine"]()
    assert math.isfinite(head.loss(POINTS, LABELS))
    with pytest.raises(RuntimeError, match=r"labels must lie in 0 \.\. 3"):
        head.loss(POINTS, torch.where(LABELS == 0, wrong, LABELS))


@every_value_head
def test_values_are_one_per_embedding(name):
    head = VALUES[name]()
    values = torch.linspace(0, 1, 12)
    assert math.isfinite(head.loss(POINTS, LABELS, values=values))
    with pytest.raises(ValueError, match=r"values: needs shape \(12,\)"):
        head.loss(POINTS, LABELS, values=values[:, None])
    with pytest.raises(ValueError, match="the loss needs the images' numbers"):
        head.loss(POINTS, LABELS)


def test_bounds_of_data_come_from_data():
    head = Poles(6, 4, bounds="data", reduction="mean")
    values = torch.linspace(3, 7, 12)
    with pytest.raises(ValueError, match=r"call prepare\(values\)"):
        head.loss(POINTS, LABELS, values=values)
    other = copy.deepcopy(head)
    head.prepare(values)
    other.load_state_dict(head.state_dict())  # bounds travel in the checkpoint
    assert torch.equal(*(h.loss(POINTS, LABELS, values=values) for h in (head, other)))
    with pytest.raises(ValueError, match=r"bounds=\[0\.0\]: "):
        Poles(6, 4, bounds=[0.0], reduction="mean")
    for bounds in ([math.nan, 1.0], [1, 1]):
        with pytest.raises(ValueError, match="must rise"):
            Poles(6, 4, bounds=bounds, reduction="mean")


def test_unknown_words_are_named():
    with pytest.raises(ValueError, match="mining='hard': semihard or all"):
        losses.triplet(POINTS, LABELS, 1.0, mining="hard")
    with pytest.raises(ValueError, match="pairs='al': consecutive or all"):
        losses.contrastive(POINTS, LABELS, 1.0, "al")


def test_batches_without_anything_to_compare_give_zero():
    one = POINTS[:1].clone().requires_grad_()
    loss = losses.contrastive(one, LABELS[:1], 1.0, "all")
    loss.backward()
    assert loss == 0 and not one.grad.any()
    assert VALUES["joint"]().classify(POINTS[:0]).shape == (0,)


@every_class_head
def test_autocast_and_half_precision_leave_close_points_apart(name):
    """Points of a tight cluster far from the origin: bfloat16 would round their distances away."""
    head = CLASSES[name]().eval()
    cluster = 20 * nn.functional.normalize(POINTS[:4], dim=1)[LABELS] + 0.1 * POINTS
    wanted = head.loss(cluster, LABELS)
    with torch.autocast("cpu", torch.bfloat16):
        found = head.loss(cluster, LABELS)
    near = 0.02 if name == "softmax" else 1e-6  # an inner product, as every linear layer has it
    assert torch.allclose(found.float(), wanted, rtol=near)
    assert torch.isfinite(head.loss(cluster.bfloat16(), LABELS))  # outside of it too


def test_whole_numbers_for_numbers():
    head = NormalizedSoftmax(6, 4, scale=16, learn_scale="shared")
    assert head.scale.dtype == torch.float32 and head.loss(POINTS, LABELS).isfinite()
    fixed = RandomVectors(6, 4, similarity="dot", scale=1, learned=False, draw="integers", bias=0)
    assert fixed.loss(POINTS, LABELS).isfinite()
    assert VALUES["joint"]().bounds.tolist() == [0.0, 1.0]


def test_a_head_of_ones_own_may_take_tensors():
    class Adjusted(Head):
        def __init__(self, dim: int, num_classes: int, *, counts: torch.Tensor, tau: float) -> None:
            super().__init__(dim, num_classes)
            self.counts, self.tau = counts, tau

    head = Adjusted(6, 4, counts=torch.ones(4), tau=1)
    assert head.tau == 1.0 and head.counts.shape == (4,)
    with pytest.raises(ValueError, match="Adjusted: tau='much': "):
        Adjusted(6, 4, counts=torch.ones(4), tau="much")


# Imprinting


def imprinted():
    head = CLASSES["cosine"]()
    head.imprint(POINTS[:2], torch.tensor([4, 5]))
    return head


@pytest.mark.parametrize("cast", [lambda h: h.float(), lambda h: h.double(), lambda h: h.half()])
def test_a_cast_head_can_be_imprinted_again(cast):
    head = cast(imprinted())
    head.imprint(POINTS[2:4], torch.tensor([5, 6]))
    assert head.num_classes == 7 and head.class_vectors[6].norm().item() == pytest.approx(
        1, abs=1e-3
    )


@pytest.mark.parametrize(
    "labels, message",
    [
        (torch.tensor([6.0, 7.0]), "labels that are integers, got torch.float32"),
        (torch.tensor([True, False]), "labels that are integers, got torch.bool"),
        (torch.tensor([7, 8]), "no example of class 6"),
    ],
)
def test_what_cannot_be_imprinted_leaves_the_head_as_it_was(labels, message):
    head = imprinted()
    before = copy.deepcopy(head.state_dict())
    with pytest.raises(ValueError, match=message):
        head.imprint(POINTS[:2], labels)
    with pytest.raises(ValueError, match="the examples of class 6 cancel"):
        head.imprint(torch.stack([POINTS[0], -POINTS[0]]), torch.tensor([6, 6]))
    assert head.num_classes == 6
    assert all(torch.equal(each, before[name]) for name, each in head.state_dict().items())


def test_labels_of_any_integer_type_and_arrays():
    wanted = imprinted()
    for labels in (np.array([4, 5]), torch.tensor([4, 5], dtype=torch.uint8)):
        head = copy.deepcopy(wanted)
        head.imprint(POINTS[2:4], labels)
        assert head.num_classes == 6


def test_imprinting_where_people_embed():
    head = CLASSES["cosine"]()
    with torch.inference_mode():
        head.imprint(POINTS[:2] * 2, torch.tensor([4, 5]))
    head.imprint(POINTS[2:4], torch.tensor([6, 7]))
    head.loss(POINTS, LABELS).backward()
    assert head.class_vectors.grad is not None


def test_learned_vectors_are_of_unit_length_whenever_classes_come():
    head = imprinted()
    with torch.no_grad():
        head.class_vectors[:4] *= 3
    head.imprint(POINTS[:1], torch.tensor([6]))
    assert torch.allclose(head.class_vectors.norm(dim=1), torch.ones(7))


# Measures


def halves():
    z = POINTS.repeat(4, 1) + 0.1 * torch.randn(48, 6, generator=torch.Generator().manual_seed(1))
    y = LABELS.repeat(4)
    return (z[:24], y[:24]), (z[24:], y[24:])


def test_open_set_needs_no_example_of_what_it_does_not_learn():
    (z, y), (test, test_y) = halves()
    asked = {"base": [0, 1], "novel": [2, 3], "test": test, "test_labels": test_y}
    known = y < 2
    assert open_set(z[known], y[known], **asked) == open_set(z, y, **asked)
    with pytest.raises(ValueError, match="no embedding of class 1"):
        open_set(z[y == 0], y[y == 0], **asked)
    with pytest.raises(ValueError, match="no test embedding of class 3"):
        open_set(z, y, **asked | {"test": test[test_y < 3], "test_labels": test_y[test_y < 3]})


def test_given_base_vectors_need_no_examples():
    (z, y), (test, test_y) = halves()
    vectors = torch.stack([z[y == c].mean(0) for c in (0, 1)])
    asked = {"base": [0, 1], "novel": [2, 3], "test": test, "test_labels": test_y}
    asked |= {"base_vectors": vectors}
    new = y >= 2
    few = [evaluate(z[k], y[k], **asked, shots=2, draws=2) for k in (new, slice(None))]
    assert few[0].summary() == few[1].summary() and few[0].shots == (2,)
    assert open_set(z, y, **asked) == open_set(z[:1], y[:1], **asked)
    names = np.array(["ant", "bee", "cow", "doe"])
    texts = asked | {"base": names[:2], "novel": names[2:], "test_labels": names[test_y]}
    assert open_set(z[:2], names[y[:2]], **texts) == open_set(z, y, **asked)
    with pytest.raises(ValueError, match="no embedding of class 0, 1"):
        evaluate(z[new], y[new], **asked | {"base_vectors": None}, shots=2)


def test_what_is_held_out_does_not_depend_on_the_other_classes():
    (z, y), _ = halves()
    asked = {"novel": [2, 3], "shots": [1], "draws": 3}
    found = [evaluate(z, y, base=base, **asked) for base in ([0, 1], [1], [])]
    assert all(np.array_equal(found[0].examples, each.examples) for each in found)
    with pytest.raises(ValueError, match="class jay has a single image"):
        evaluate(z[:3], ["jay", "owl", "owl"], [], ["owl", "jay"], shots=1)


def test_labels_and_numbers_as_people_have_them():
    (z, y), _ = halves()
    names = np.array(["ant", "bee", "cow", "doe"])[y]
    for labels in (names, names.astype(object)):
        assert evaluate(z, labels, ["ant"], ["bee", "cow"], shots=np.array([1, 2])).shots == (1, 2)
    assert "recall@5" in retrieval(z, y, at=5)
    for wrong in (0, [2, 1], "5", []):
        with pytest.raises(ValueError, match="shots=.*: needs (rising|whole) numbers"):
            evaluate(z, y, [0], [1], shots=wrong)


def test_a_heads_own_vectors_and_arrays_can_be_measured():
    head = CLASSES["cosine"]()
    vectors = head.class_vectors
    assert prototypes.separation(vectors) == prototypes.separation(vectors.detach().numpy())
    words = torch.randn(4, 9, generator=torch.Generator().manual_seed(2), requires_grad=True)
    assert -1 <= prototypes.order_kept(vectors, words.detach().numpy()) <= 1
    assert prototypes.semantic(words, 2).shape == (4, 2)
    own = Prototypes.from_points(vectors.detach().numpy())
    assert torch.allclose(own.class_vectors, nn.functional.normalize(vectors, dim=1))
    with pytest.raises(ValueError, match="3 prototypes in 1 dimensions"):
        prototypes.separation(torch.tensor([[1.0], [-1.0], [1.0]]))
    known = torch.tensor([0.5, 1.0], requires_grad=True)
    scores = open_set_scores(known, torch.tensor([0.2], dtype=torch.bfloat16), [True, True])
    assert scores["auroc"] == 1.0


@pytest.mark.parametrize("classes, kind", [(128, np.int8), (129, np.int16)])
def test_pictures_hold_all_labels_and_lengths(classes, kind):
    labels = torch.arange(classes)
    z = torch.ones(classes, 2)
    assert compact(z, labels)["labels"].dtype == kind
    assert compact(z, labels)["labels"].tolist() == labels.tolist()
    assert compact(z, labels)["embeddings"].dtype == np.float16
    assert np.isfinite(compact(1e5 * z, labels)["embeddings"]).all()
