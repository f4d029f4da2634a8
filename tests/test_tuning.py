"""Tuning on a few images of new classes, from a trained network: which images, which class vectors,
which of them learn faster, and what is watched."""

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from hypersphere.config import compose, split_config
from hypersphere.data.load import load
from hypersphere.data.splits import Split, base_novel, by_count, support
from hypersphere.errors import UserError
from hypersphere.evaluation.embeddings import Embeddings
from hypersphere.store import EMBEDDINGS, MODEL, Store
from hypersphere.training.images import SmallImages, chosen_images
from hypersphere.training.learner import Learner
from hypersphere.training.start import start_from
from hypersphere.training.train import train

BASE, NOVEL = tuple(range(6)), (6, 7, 8, 9)
TINY = ("split=base_novel", "split.num_base=6", "backbone.filters=[4,4]", "backbone.dim=8",
        "head=cosine", "optimizer=rmsprop", "optimizer.lr=0.01", "schedule.epochs=2",
        "batches.size=64", "evaluations=none")  # fmt: skip


def composed(*words):
    return split_config(compose([*TINY, *words]))[0]


def tuned(*words, trained="all", shots="{number: 3, draw: 1}"):
    return composed(f"split.trained={trained}", f"data.shots={shots}", *words)


@pytest.fixture
def base():
    """A base training, done."""
    store = Store()
    chosen = composed()
    train(chosen, store, say=lambda _: None)
    return chosen, store


def started(training, store):
    """The network as its training starts."""
    module = Learner(training)
    start_from(module.network, training, store, lambda _: None)
    return module


def test_splits_name_the_classes_of_few_images():
    assert base_novel(10, num_base=6) == Split(BASE, NOVEL)
    assert base_novel(10, num_base=6, trained="all") == Split(BASE + NOVEL, (), NOVEL)
    assert base_novel(10, num_base=6, trained="novel") == Split(NOVEL, BASE, NOVEL)
    counts = [50, 3, 60, 4]
    assert by_count(counts, at_least=10, trained="all") == Split((0, 1, 2, 3), (), (1, 3))


@pytest.mark.parametrize("trained", ["all", "novel"])
def test_new_classes_keep_the_images_of_the_evaluations_draw(trained):
    labels = load("digits").train_labels
    chosen, held = chosen_images(tuned(trained=trained), labels)
    few = support(labels.numpy(), NOVEL, 3, seed=0, draw=1)
    assert not len(held)
    of_new = torch.isin(labels[chosen], torch.tensor(NOVEL))
    assert sorted(chosen[of_new].tolist()) == sorted(few.tolist())
    whole = (labels < 6).sum() if trained == "all" else 0
    assert (~of_new).sum() == whole


def test_more_images_than_there_are():
    labels = load("digits").train_labels
    with pytest.raises(UserError, match="data .digits.: class 6 has .* 5000 shots asked"):
        chosen_images(tuned(shots="{number: 5000}"), labels)
    chosen, _ = chosen_images(tuned(shots="{number: 5000, or_fewer: true}"), labels)
    assert len(chosen) == len(labels)


@pytest.mark.parametrize("new_classes", ["random", "imprinted"])
@pytest.mark.parametrize("trained", ["all", "novel"])
def test_class_vectors_start_from_the_parents_and_the_images(base, trained, new_classes):
    parent, store = base
    chosen = tuned(f"initial={parent.id}", f"new_classes={new_classes}", trained=trained)
    fresh = Learner(chosen).network
    network = started(chosen, store).network
    folder = store.folder(parent.id)
    theirs = load_file(folder / MODEL)
    vectors = network.head.class_vectors.detach()
    new = vectors
    if trained == "all":
        expected = F.normalize(theirs["head.class_vectors"], dim=1)
        torch.testing.assert_close(vectors[:6], expected)
        new = vectors[6:]
    if new_classes == "random":
        expected = F.normalize(fresh.head.class_vectors.detach(), dim=1)[-4:]
    else:
        e = Embeddings.read(folder / EMBEDDINGS)
        few = support(e.train_labels.numpy(), NOVEL, 3, seed=0, draw=1).reshape(4, 3)
        expected = F.normalize(F.normalize(e.train[few], dim=-1).mean(1), dim=1)
    torch.testing.assert_close(new, expected)
    assert torch.equal(network.head.scale, theirs["head.scale"])
    for name, value in network.backbone.state_dict().items():
        assert torch.equal(value, theirs[f"backbone.{name}"])


@pytest.mark.parametrize("trained", ["all", "novel"])
def test_scales_per_class_are_taken_over_and_new_ones_start_from_their_mean(trained):
    store, word = Store(), "head.learn_scale=per_class"
    six = composed(word)
    train(six, store, say=lambda _: None)
    theirs = load_file(store.folder(six.id) / MODEL)["head.scale"]
    assert theirs.shape == (6,) and theirs.std() > 0
    for new_classes in ("random", "imprinted"):
        words = (word, f"initial={six.id}", f"new_classes={new_classes}")
        module = started(tuned(*words, trained=trained), store)
        scale = module.network.head.scale
        expected = theirs.mean().expand(4)
        if trained == "all":
            expected = torch.cat([theirs, expected])
        assert torch.equal(scale.detach(), expected)
        rates = {id(p): g["lr"] for g in module.optimizers()[0].param_groups for p in g["params"]}
        assert rates[id(scale)] == 0.01  # nothing random about it


def test_scales_of_equally_many_other_classes_are_not_those_of_the_new_ones():
    store, words = Store(), ("head.learn_scale=per_class", "split.num_base=5")
    five = composed(*words)
    train(five, store, say=lambda _: None)
    theirs = load_file(store.folder(five.id) / MODEL)["head.scale"]
    chosen = tuned(*words, f"initial={five.id}", "new_classes=imprinted", trained="novel")
    scale = started(chosen, store).network.head.scale.detach()
    assert theirs.std() > 0 and torch.equal(scale, theirs.mean().expand(5))


def test_scales_per_class_start_from_a_shared_one(base):
    parent, store = base
    words = ("head.learn_scale=per_class", f"initial={parent.id}", "new_classes=imprinted")
    scale = started(tuned(*words), store).network.head.scale.detach()
    theirs = load_file(store.folder(parent.id) / MODEL)["head.scale"]
    assert theirs != 10 and torch.equal(scale, theirs.expand(10))


@pytest.mark.parametrize("new_classes, factor", [("random", 10), ("imprinted", 1)])
def test_only_what_starts_at_random_learns_faster(base, new_classes, factor):
    parent, store = base
    module = started(tuned(f"initial={parent.id}", f"new_classes={new_classes}"), store)
    optimizer = module.optimizers()[0]
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    head = module.network.head
    assert rates.pop(id(head.class_vectors)) == pytest.approx(0.01 * factor)
    assert set(rates.values()) == {0.01} and id(head.scale) in rates
    fresh = Learner(parent)
    assert {g["lr"] for g in fresh.optimizers()[0].param_groups} == {0.1}


def test_a_tuned_run_watches_all_classes_and_the_new_ones(base):
    parent, store = base
    chosen = tuned(f"initial={parent.id}", "new_classes=imprinted", "schedule.epochs=1")
    record = train(chosen, store, say=lambda _: None)
    e = Embeddings.read(store.folder(chosen.id) / EMBEDDINGS)
    module = Learner(chosen)
    module.network.load_state_dict(load_file(store.folder(chosen.id) / MODEL))
    right = module.network.head.logits(e.test).argmax(1) == e.test_labels
    of_new = e.test_labels >= 6
    for numbers in (record["metrics"], record["epochs"][-1]):
        assert numbers["test_accuracy"] == pytest.approx(right.double().mean().item(), abs=1e-6)
        assert numbers["test_accuracy_of_few"] == pytest.approx(
            right[of_new].double().mean().item(), abs=1e-6
        )
    assert "test_accuracy_of_few" not in store.records[parent.id]["metrics"]


def test_a_joint_training_needs_no_parent_and_no_unit_vectors():
    chosen = tuned("head=softmax", "schedule.epochs=1")
    images = SmallImages(chosen)
    images.setup()
    assert images.train_labels().bincount()[6:].tolist() == [3, 3, 3, 3]


def test_a_missing_embeddings_file_is_made_again(base):
    parent, store = base
    (store.folder(parent.id) / EMBEDDINGS).unlink()
    started(tuned(f"initial={parent.id}", "new_classes=imprinted"), store)
    assert (store.folder(parent.id) / EMBEDDINGS).exists()


def test_what_is_new_has_its_place_in_the_id(base):
    parent, _ = base
    words = (f"initial={parent.id}",)
    ids = [
        tuned(*words).id,
        tuned(*words, "new_classes=imprinted").id,
        tuned(*words, shots="{number: 5, draw: 1}").id,
        tuned(*words, shots="{number: 3, draw: 2}").id,
        tuned(*words, trained="novel").id,
        composed(*words).id,
    ]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    "words, text",
    [
        ("new_classes=imprinted", "new_classes=imprinted: imprints into a trained network"),
        ("split.trained=all", "split=base_novel: has classes of few images, data.shots says how many"),
        ("data.shots={number: 3}", "data.shots: split=base_novel has no classes of few images"),
        ("split.trained=none data.shots={number: 3}", "split.trained='none'"),
    ],
)  # fmt: skip
def test_bad_configurations(words, text):
    with pytest.raises(UserError, match=text):
        composed(*(words.split(" ", 1) if "trained=none" in words else [words]))


def test_heads_without_unit_vectors_cannot_take_over_classes(base):
    parent, store = base
    chosen = tuned("head=softmax", f"initial={parent.id}")
    with pytest.raises(UserError, match="its class vectors cannot be taken over"):
        started(chosen, store)
    with pytest.raises(UserError, match="there is no such finished run"):
        started(tuned("initial=000000000000"), store)
