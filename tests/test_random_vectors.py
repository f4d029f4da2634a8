"""Random class vectors, fixed and learned; the networks they were published with; the learning rate
that falls when an accuracy stands still."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision import models

from hypersphere.backbones import MobileNetV2, PreActResNet18, ResNet18
from hypersphere.config import compose, split_config
from hypersphere.errors import UserError
from hypersphere.heads import RandomVectors
from hypersphere.store import Store
from hypersphere.training.learner import Learner
from hypersphere.training.network import Network
from hypersphere.training.optimizers import Plateau, sgd
from hypersphere.training.train import load_network, train
from tests.test_networks import parameters, shapes_of

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


# Networks: the counts and sizes of the usual CIFAR family


def conv(channels, filters, kernel, norm=True):
    return channels * filters * kernel**2 + (2 * filters if norm else 0)


WIDE = {"filters": [64, 128, 256, 512], "blocks": 2, "pool": 4}
STAGES = [
    [1, 16, 1, 1],
    [6, 24, 2, 1],
    [6, 32, 3, 2],
    [6, 64, 4, 2],
    [6, 96, 3, 1],
    [6, 160, 3, 2],
    [6, 320, 1, 1],
]
MOBILE = {"stem": 32, "stages": STAGES, "features": 1280, "pool": 4}


def test_options_are_the_published_networks():
    for option, expected in (
        ("cifar_resnet18", {**WIDE, "last_relu": True}),
        ("cifar_preact_resnet18", WIDE),
        ("cifar_mobilenet_v2", MOBILE),
    ):
        words = ["data=cifar10", "split=all_classes", "evaluations=none", f"backbone={option}"]
        assert split_config(compose(words))[0].components["backbone"].params == expected


def test_resnet18_by_hand():
    """11,173,962 with a linear layer for ten classes, as is often printed."""
    expected, before = conv(3, 64, 3), 64
    for width in WIDE["filters"]:
        expected += conv(before, width, 3) + 3 * conv(width, width, 3)
        expected += conv(before, width, 1) if before != width else 0
        before = width
    assert parameters(ResNet18(3, 32, **WIDE)) == expected == 11_173_962 - 5_130
    # torchvision's has a 7x7 stem, else the same layers
    theirs = parameters(models.resnet18()) - 513_000
    assert expected == theirs - conv(3, 64, 7) + conv(3, 64, 3)


def test_preact_resnet18_by_hand():
    """A normalisation of its input and its middle per block, none on the shortcuts or the stem."""
    expected, before = conv(3, 64, 3, norm=False), 64
    for width in WIDE["filters"]:
        expected += 2 * before + conv(before, width, 3) + conv(width, width, 3, norm=False)
        expected += conv(before, width, 1, norm=False) if before != width else 0
        expected += 2 * width + conv(width, width, 3) + conv(width, width, 3, norm=False)
        before = width
    assert parameters(PreActResNet18(3, 32, **WIDE)) == expected == 11_171_146 - 5_130


def test_mobilenet_v2_by_hand():
    expected, before = conv(3, 32, 3), 32
    for expansion, width, blocks, stride in STAGES:
        for block in range(blocks):
            inner = expansion * before
            expected += conv(before, inner, 1) + conv(1, inner, 3) + conv(inner, width, 1)
            if before != width and (block or stride == 1):
                expected += conv(before, width, 1)
            before = width
    expected += conv(320, 1280, 1)
    assert parameters(MobileNetV2(3, 32, **MOBILE)) == expected == 2_296_922 - 12_810


@pytest.mark.parametrize(("size", "places"), [(32, 1), (64, 4), (96, 9)])
def test_features_by_the_size_of_the_image(size, places):
    for build, options, channels in (
        (ResNet18, WIDE, 512),
        (PreActResNet18, WIDE, 512),
        (MobileNetV2, MOBILE, 1280),
    ):
        network = build(3, size, **options)
        assert network.dim == channels * places
        found = shapes_of(network, [network.stem, network.blocks, network], 3, size, size)
        assert found[0][1] == size and found[1][1] == size // 8 and found[2] == (network.dim,)


def test_the_last_relu():
    torch.manual_seed(0)
    images = torch.rand(8, 3, 32, 32)
    narrow = {**WIDE, "filters": [8, 16, 16, 16]}
    signs = {}
    for name, network in (
        ("resnet", ResNet18(3, 32, **narrow)),
        ("resnet without", ResNet18(3, 32, **narrow, last_relu=False)),
        ("preact", PreActResNet18(3, 32, **narrow)),
        ("mobilenet", MobileNetV2(3, 32, **MOBILE)),
    ):
        with torch.no_grad():
            signs[name] = bool((network(images) < 0).any())
    assert signs == {"resnet": False, "resnet without": True, "preact": True, "mobilenet": False}


def test_leaving_out_the_last_relu_leaves_out_nothing_else():
    narrow = {**WIDE, "filters": [4, 8, 8, 8]}
    torch.manual_seed(0)
    whole, without = ResNet18(3, 32, **narrow), ResNet18(3, 32, **narrow, last_relu=False)
    without.load_state_dict(whole.state_dict())
    seen = []
    whole.blocks[-1].register_forward_hook(lambda m, _, out: seen.append(out))
    without.blocks[-1].register_forward_hook(lambda m, _, out: seen.append(out))
    images = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        assert whole.eval()(images).shape == without.eval()(images).shape
    assert torch.equal(seen[0], seen[1].relu()) and (seen[1] < 0).any()


def test_resnet18_computes_what_torchvisions_does():
    """The same weights in the same layers, with a stem for small images and no max-pooling."""
    ours = ResNet18(3, 32, **WIDE).eval()
    theirs = models.resnet18().eval()
    theirs.conv1, theirs.maxpool, theirs.fc = (
        nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity(), nn.Identity()
    )  # fmt: skip
    g = torch.Generator().manual_seed(0)

    def by_module(network):
        kinds = (nn.Conv2d, nn.BatchNorm2d)
        return [m for m in network.modules() if isinstance(m, kinds)]

    # ours: stem, blocks, norm; theirs: conv1, bn1, layers
    mine = by_module(ours)
    mine = [mine[0], mine[-1], *mine[1:-1]]
    with torch.no_grad():
        for one, other in zip(_as_torchvision(mine), by_module(theirs), strict=True):
            for name, value in one.state_dict().items():
                if value.is_floating_point():
                    drawn = torch.rand(value.shape, generator=g) - (0.5 if value.ndim > 1 else 0)
                    value.copy_(drawn / max(value[0].numel(), 1) ** 0.5)
                other.state_dict()[name].copy_(value)
        images = torch.rand(2, 3, 32, 32, generator=g)
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-5)
        assert ours(images).std(0).max() > 0


def _as_torchvision(modules):
    """Ours hold conv, norm, conv, norm, shortcut's conv and norm, as torchvision's do."""
    return modules


def test_mobilenet_of_other_sizes():
    small = {"stem": 4, "stages": [[1, 4, 1, 1], [2, 6, 2, 2]], "features": 7, "pool": 4}
    network = MobileNetV2(1, 8, **small)
    assert network.dim == 7 and network(torch.rand(2, 1, 8, 8)).shape == (2, 7)
    kinds = [None if b.shortcut is None else type(b.shortcut).__name__ for b in network.blocks]
    assert kinds == ["Identity", None, "Identity"]
    assert type(MobileNetV2(1, 8, **{**small, "stem": 5}).blocks[0].shortcut) is nn.Sequential
    with pytest.raises(ValueError, match="the stages leave 3 of 6 pixels, less than pool=4"):
        MobileNetV2(1, 6, **small)


def test_images_too_small_to_pool():
    with pytest.raises(ValueError, match="3 halvings leave 2 of 16 pixels, less than pool=4"):
        ResNet18(1, 16, **WIDE)
    with pytest.raises(UserError, match=r"backbone \(digits, 8 pixels\): 3 halvings leave 1 of 8"):
        quick("backbone.filters=[4,4,4,4]")


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
