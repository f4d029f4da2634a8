"""Random class vectors, fixed and learned; the networks they were published with; the learning rate
that falls when an accuracy stands still."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hypersphere.config import compose, split_config
from hypersphere.errors import UserError
from hypersphere.heads import RandomVectors
from hypersphere.store import Store
from hypersphere.training.learner import Learner
from hypersphere.training.network import Network
from hypersphere.training.optimizers import Plateau, sgd
from hypersphere.training.train import load_network, train

OPTIONS = {"similarity": "cosine", "scale": 1.0, "learned": False, "draw": "integers", "bias": 0.01}


def head(dim=512, classes=10, seed=0, **options):
    torch.manual_seed(seed)
    return RandomVectors(dim, classes, **{**OPTIONS, **options})


def quick(*words):
    return split_config(compose(["paper=fixed-vectors", *words]))[0]


# The head


@pytest.mark.parametrize("learned", [False, True])
def test_fixed_vectors_are_in_the_checkpoint_and_out_of_the_optimiser(learned):
    module = Learner(quick(f"head.learned={str(learned).lower()}"))
    own = module.network.head
    names = {"class_vectors", "bias"}
    assert {name for name, _ in own.named_parameters()} == (names if learned else set())
    assert {f"head.{name}" for name in names} <= module.network.state_dict().keys()
    optimised = {id(p) for g in module.optimizers()[0].param_groups for p in g["params"]}
    assert (id(own.class_vectors) in optimised) == (id(own.bias) in optimised) == learned


def test_training_moves_learned_vectors_alone(tmp_path):
    found = {}
    for learned in (False, True):
        chosen = quick(f"head.learned={str(learned).lower()}", "schedule.epochs=1")
        store = Store(tmp_path / str(learned))
        train(chosen, store, say=lambda line: None)
        before, after = (
            network.head.state_dict()
            for network in (Network(chosen), load_network(chosen, store.folder(chosen.id)))
        )
        found[learned] = {name: torch.equal(before[name], after[name]) for name in before}
        assert (before["bias"] == 0.01).all()
    assert {*found[False].values()} == {True} and {*found[True].values()} == {False}


def test_fixed_and_learned_start_from_the_same_draw_which_is_the_seeds():
    def start(*words):
        return Network(quick(*words)).head.class_vectors

    assert torch.equal(start(), start("head.learned=true"))
    assert torch.equal(start(), start("head.learned=true", "head.similarity=dot"))
    assert not torch.equal(start(), start("seed=1"))


@pytest.mark.parametrize("draw", ["integers", "gaussian"])
def test_vectors_are_random_directions(draw):
    vectors = head(512, 200, draw=draw).class_vectors
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(200))
    cosines = vectors @ vectors.T
    between = cosines[~torch.eye(200, dtype=torch.bool)]
    assert between.std() == pytest.approx(512**-0.5, rel=0.05) and between.abs().max() < 0.3


def test_integers_are_from_minus_100_to_99():
    """Their range shows in the ratios: of a vector of integers scaled to length 1."""
    row = head(20000, 1).class_vectors[0]
    unit = row.abs().min() if row.abs().min() > 0 else row.abs()[row != 0].min()
    integers = row / unit
    torch.testing.assert_close(integers, integers.round(), atol=1e-3, rtol=0)
    assert integers.round().unique().tolist() == list(range(-100, 100))


def test_logits_equal_a_loop():
    g = torch.Generator().manual_seed(1)
    z = torch.randn(6, 5, generator=g) * 3
    for options in ({"similarity": "dot"}, {"scale": 20.0}):
        own = head(5, 4, **options)
        with torch.no_grad():
            own.class_vectors.mul_(2.5)  # as learning may
            own.bias.copy_(torch.arange(4.0))
        for i, image in enumerate(z.tolist()):
            for k, vector in enumerate(own.class_vectors.tolist()):
                product = sum(a * b for a, b in zip(image, vector, strict=True))
                if own.similarity == "cosine":
                    product *= 20 / (math.hypot(*image) * math.hypot(*vector))
                assert own.logits(z)[i, k].item() == pytest.approx(product + k, abs=1e-4)
        labels = torch.tensor([0, 1, 2, 3, 0, 1])
        assert own.loss(z, labels).item() == pytest.approx(
            F.cross_entropy(own.logits(z), labels).item()
        )
        # without the bias; trained vectors are what logits use
        trained = own.trained(z, labels, torch.arange(4), True)
        torch.testing.assert_close(own.scores(z, trained) + own.bias, own.logits(z))


def test_a_scale_is_for_cosines():
    with pytest.raises(UserError, match="head .*scale=20.0 multiplies cosines"):
        quick("head.similarity=dot", "head.scale=20.0")


def test_the_bounds_of_cosines_times_one():
    """Section 3 of arXiv 2011.08704: of 200 classes at most e / (e + 199 / e)."""
    z = torch.eye(1, 3)
    own = head(3, 200, bias=0.0)
    own.class_vectors.copy_(-z.expand(200, 3))
    own.class_vectors[7] = z[0]
    probability = own.logits(z).softmax(1)[0, 7].item()
    assert probability == pytest.approx(0.0358, abs=5e-5)
    assert -math.log(probability) == pytest.approx(3.33, abs=5e-3)


def test_features_that_cannot_be_negative_stay_away_from_random_vectors():
    """The ceiling of their cosine: the length of a unit vector's positive part, whatever the
    training (the paper reports 0.95)."""
    squares = sum(i * i for i in range(100))
    for draw, share in (("integers", squares / (2 * squares + 100**2)), ("gaussian", 0.5)):
        vectors = head(512, 1000, draw=draw).class_vectors
        ceiling = F.cosine_similarity(vectors.clamp(min=0), vectors)
        assert ceiling.min() > 0.6 and ceiling.max() < 0.8
        assert ceiling.mean() == pytest.approx(share**0.5, abs=0.002)
        features = torch.rand(1000, 512)
        assert (F.cosine_similarity(features, vectors) < ceiling).all()


# The schedule


def test_falls_as_torch_has_them():
    """Against ReduceLROnPlateau, on made-up accuracies with and without ties."""
    g = torch.Generator().manual_seed(0)
    for patience in (0, 1, 3):
        own = Plateau(epochs=1, watch="test_accuracy", factor=0.2, patience=patience)
        for _ in range(20):
            accuracies = (torch.randint(0, 12, (60,), generator=g) / 12).tolist()
            optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
            theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer, mode="max", factor=0.2, patience=patience, threshold=0, threshold_mode="abs",
                eps=0,
            )  # fmt: skip
            ours = sgd(
                [nn.Parameter(torch.zeros(1))],
                lr=1.0,
                momentum=0.9,
                nesterov=True,
                weight_decay=0.0,
            )
            history = []
            for accuracy in accuracies:
                theirs.step(accuracy)
                history.append({"test_accuracy": accuracy})
                own.adjust(ours, history)
                found = [group["lr"] for group in ours.param_groups]
                assert found == [pytest.approx(optimizer.param_groups[0]["lr"])]


def test_the_rate_falls_after_more_than_patience_epochs_without_a_best():
    own = Plateau(epochs=1, watch="validation_accuracy", factor=0.2, patience=3)
    assert own.falls([0.5, 0.4, 0.5, 0.3]) == 0  # three without: not yet
    assert own.falls([0.5, 0.4, 0.5, 0.3, 0.5]) == 1
    assert own.falls([0.5, 0.4, 0.5, 0.3, 0.51]) == 0
    assert own.falls([0.5] * 8) == 1 and own.falls([0.5] * 9) == 2


RATES = (1.0, 3.0, 10.0, 30.0)  # which of them overshoots depends on the processor's arithmetic


@pytest.mark.parametrize("watch", ["test_accuracy", "validation_accuracy"])
def test_a_training_whose_rate_has_fallen_goes_on_as_if_nothing_had_happened(
    tmp_path, monkeypatch, watch
):
    from tests.test_training import Stop, assert_same_run, quietly, stop_after

    rates = []
    begin = Learner.begin_epoch

    def noted(self, epoch, optimizer):
        begin(self, epoch, optimizer)
        rates.append(optimizer.param_groups[0]["lr"])

    monkeypatch.setattr(Learner, "begin_epoch", noted)
    one, other = Store(tmp_path / "one"), Store(tmp_path / "other")
    for rate in RATES:
        chosen = quick(
            f"schedule.watch={watch}", "schedule.patience=0", "schedule.epochs=5",
            f"optimizer.lr={rate}", "data.validation={share: 0.2}",
        )  # fmt: skip
        whole = quietly(chosen, one)
        undisturbed, rates[:] = [*rates], []
        curve = [epoch[watch] for epoch in whole["epochs"]]
        falls = chosen.components["schedule"].build().falls
        assert undisturbed == [rate * 0.2 ** falls(curve[:epoch]) for epoch in range(5)]
        first = next((epoch for epoch in range(5) if undisturbed[epoch] < rate), 4)
        if first < 4:
            break
    assert first < 4, "no rate fell before the last epoch; one of these is meant to overshoot"
    with pytest.raises(Stop):
        train(chosen, other, say=stop_after(first + 1))
    quietly(chosen, other)
    assert rates == undisturbed
    assert_same_run(chosen, one, other)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["schedule.watch=validation_accuracy"], "schedule.watch=validation_accuracy: needs held-o"),
        (["head=triplet", "select=last"], "schedule.watch=test_accuracy: needs a head that classif"),
        (["schedule.factor=1.5"], "schedule.factor=1.5: input should be less than 1"),
    ],
)  # fmt: skip
def test_what_is_watched_must_be_there(words, says):
    with pytest.raises(UserError) as error:
        quick(*words)
    assert str(error.value).startswith(says)
    with pytest.raises(UserError, match="^select=highest_test_accuracy: needs a head that classif"):
        split_config(compose(["head=triplet", "select=highest_test_accuracy"]))


# The epoch with the highest test accuracy


def test_the_best_test_epoch_is_kept_and_the_curve_tells_the_last(tmp_path):
    from hypersphere.papers.curves import of_curve
    from hypersphere.training.images import SmallImages

    store = Store(tmp_path)
    for rate, seed in itertools.product(RATES, range(5)):
        chosen = quick(
            "head.similarity=dot", f"optimizer.lr={rate}", "schedule.epochs=5",
            "schedule.patience=9", f"seed={seed}",
        )  # fmt: skip
        record = train(chosen, store, say=lambda line: None)
        curve = [epoch["test_accuracy"] for epoch in record["epochs"]]
        if max(curve) > curve[-1]:
            break
    assert max(curve) > curve[-1], "one of these is meant to overshoot"
    assert (
        record["metrics"]["test_accuracy"] == max(curve) == of_curve(record, "test_accuracy@best")
    )
    assert of_curve(record, "test_accuracy@last") == curve[-1]
    images = SmallImages(chosen)
    images.setup()
    network = load_network(chosen, store.folder(chosen.id)).eval()
    with torch.no_grad():
        right = network.head.logits(network(images.test[0])).argmax(1) == images.test[1]
    assert right.float().mean().item() == pytest.approx(max(curve), abs=1e-6)


def test_divergence_of_the_published_recipe_is_recorded(tmp_path):
    record = train(quick("head.similarity=dot", "optimizer.lr=1e30"), Store(tmp_path), say=len)
    assert record["diverged"] is True and len(record["epochs"]) == 1


# Identity


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["paper=fixed-vectors/small"], "b8d3566f02f9"),
        (["paper=fixed-vectors/small", "head.learned=true"], "003c0d76eac3"),
        (["paper=fixed-vectors/resnet32/small"], "4cdf5036127e"),
        (["paper=fixed-vectors/resnet32/small", "head.scale=20.0"], "484f3334261e"),
    ],
)
def test_ids_of_trainings_that_were_run(words, expected):
    assert split_config(compose(words))[0].id == expected


@pytest.mark.parametrize(
    "changed",
    [
        "head.draw=gaussian", "head.learned=true", "head.bias=0.0", "backbone.last_relu=false",
        "schedule.patience=2", "select=last",
    ],
)  # fmt: skip
def test_what_changes_numbers_is_another_run(changed):
    assert quick().id != quick(changed).id
