"""Heads that learn a number of each image, from the formulas to a training and its evaluation."""

import math

import pytest
import torch
from torch.nn import functional as F

from hypersphere import paths
from hypersphere.config import Evaluation, compose, split_config
from hypersphere.data.facts import DATASETS
from hypersphere.data.load import load
from hypersphere.data.splits import Split
from hypersphere.errors import UserError
from hypersphere.evaluation import rising_classes, values
from hypersphere.evaluation.embeddings import Embeddings
from hypersphere.execute import run_node
from hypersphere.heads import ClampedRegression, JointPrototypes, MultiTask, Poles, Softmax
from hypersphere.store import Store
from hypersphere.training.learner import Learner
from hypersphere.training.train import load_network, train
from tests import miniatures

BOUNDS = [1000.0, 1932.0]
JOINT = {"bounds": BOUNDS, "reduction": "sum", "pole": "first", "placement": "one_hot"}


def drawn(n=7, dim=4, classes=3, seed=0):
    draws = torch.Generator().manual_seed(seed)
    z = torch.randn(n, dim, generator=draws)
    labels = torch.randint(0, classes, (n,), generator=draws)
    years = 1000 + 932 * torch.rand(n, generator=draws)
    return z, labels, years


def of_poles(z, year, axis=0):
    """Eq. 7 of Mettes et al. 2019 for one image."""
    r = 2 * (year - 1000) / 932 - 1
    return (r - z[axis] / z.norm()) ** 2


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_regression_between_poles_is_equation_7(reduction):
    z, labels, years = drawn()
    head = Poles(4, 3, bounds=BOUNDS, reduction=reduction)
    expected = sum(of_poles(z[i], years[i]) for i in range(7)) / (7 if reduction == "mean" else 1)
    torch.testing.assert_close(head.loss(z, labels, None, years), expected)


def test_poles_predict_the_bounds_and_the_middle_between_them():
    head = Poles(3, 2, bounds=BOUNDS, reduction="sum")
    z = torch.tensor([[5.0, 0, 0], [-0.1, 0, 0], [0, 2.0, -7.0]])
    torch.testing.assert_close(head.predict(z), torch.tensor([1932.0, 1000.0, 1466.0]))
    assert head.loss(z, torch.zeros(3), None, torch.tensor([1932.0, 1000.0, 1466.0])) < 1e-12
    assert not head.classifies and list(head.parameters()) == []


@pytest.mark.parametrize("pole", ["first", "last"])
@pytest.mark.parametrize(
    ("weight", "weighs", "of_class", "of_value"),
    [
        (None, "classification", 1, 1),
        (0.25, "classification", 0.25, 0.75),
        (0.25, "regression", 0.75, 0.25),
    ],
)
def test_the_joint_loss_sums_both_tasks(pole, weight, weighs, of_class, of_value):
    z, labels, years = drawn()
    head = JointPrototypes(
        4, 3, **{**JOINT, "pole": pole}, placement_seed=0, weight=weight, weighs=weighs
    )
    axis, rest = (0, [1, 2, 3]) if pole == "first" else (3, [0, 1, 2])
    expected = 0.0
    for i in range(7):
        beside = z[i][rest]  # the prototypes are one-hot among the other axes
        cosine = beside[labels[i]] / beside.norm()
        expected += of_class * (1 - cosine) ** 2 + of_value * of_poles(z[i], years[i], axis)
    torch.testing.assert_close(head.loss(z, labels, None, years), expected)


def test_the_number_does_not_move_the_class():
    z, _, _ = drawn()
    head = JointPrototypes(4, 3, **JOINT, placement_seed=0)
    moved = z + torch.tensor([3.0, 0, 0, 0])
    torch.testing.assert_close(head.logits(moved), head.logits(z))
    assert not torch.allclose(head.predict(moved), head.predict(z))
    torch.testing.assert_close(head.scores(z, head.class_vectors), head.logits(z))


def test_weights_of_images_weigh_the_class_alone():
    z, labels, years = drawn()
    head = JointPrototypes(4, 3, **JOINT, placement_seed=0)
    regression = Poles(4, 3, bounds=BOUNDS, reduction="sum").loss(z, labels, None, years)
    nothing = head.loss(z, labels, torch.zeros(7), years)
    torch.testing.assert_close(nothing, regression)


def test_clamped_regression_learns_nothing_outside_its_bounds():
    z, labels, years = drawn()
    head = ClampedRegression(4, 3, bounds=BOUNDS)
    with torch.no_grad():
        head.output.weight.zero_()
        head.output.bias.fill_(2.0)
    loss = head.loss(z, labels, None, years)
    loss.backward()
    assert head.output.bias.grad.abs().item() == 0
    torch.testing.assert_close(loss, (1 - (years - 1000) / 932).square().mean())
    assert head.predict(z).tolist() == [1932.0] * 7


def test_the_multi_task_baseline_is_both_means():
    z, labels, years = drawn()
    head = MultiTask(4, 3, bounds=BOUNDS, weight=0.9)
    classes = F.cross_entropy(head.classifier(z), labels)
    share = head.output(z)[:, 0].clamp(0, 1)
    expected = 0.9 * classes + 0.1 * (share - (years - 1000) / 932).square().mean()
    torch.testing.assert_close(head.loss(z, labels, None, years), expected)


def test_bounds_of_the_data_travel_with_the_weights():
    head = Poles(3, 2, bounds="data", reduction="sum")
    assert head.predict(torch.randn(2, 3)).isnan().all()
    head.prepare(torch.tensor([3.0, 9.0, 5.0]))
    other = Poles(3, 2, bounds="data", reduction="sum")
    other.load_state_dict(head.state_dict())
    assert other.bounds.tolist() == [3.0, 9.0]
    with pytest.raises(ValueError, match="all training images have the number 4"):
        head.prepare(torch.tensor([4.0, 4.0]))
    stated = Poles(3, 2, bounds=BOUNDS, reduction="sum")
    stated.prepare(torch.tensor([3.0, 9.0]))
    assert stated.bounds.tolist() == BOUNDS


def test_bad_sizes_and_bounds_are_named():
    with pytest.raises(ValueError, match="must rise"):
        Poles(3, 2, bounds=[5.0, 5.0], reduction="sum")
    with pytest.raises(ValueError, match="less than a plane"):
        JointPrototypes(2, 2, **JOINT, placement_seed=0)


QUICK = (
    "data=rotated_digits", "split=all_classes", "backbone=cnn", "backbone.dim=3",
    "schedule.epochs=2", "optimizer.lr=0.003",
)  # fmt: skip


def built(*overrides):
    return split_config(compose([*QUICK, *overrides]))


def test_a_head_and_its_target_go_together():
    with pytest.raises(UserError, match=r"head=poles: learns a number .* needs data.target=angle"):
        built("head=poles", "evaluations=none")
    with pytest.raises(
        UserError, match=r"data.target=angle: head=normalized_softmax learns classes alone"
    ):
        built("data.target=angle", "evaluations=none")
    with pytest.raises(UserError, match=r"no number 'year' .* it has: angle"):
        built("head=poles", "data.target=year", "evaluations=none")
    with pytest.raises(UserError, match="needs a dataset with such a number"):
        split_config(compose(["data=digits", "head=poles", "evaluations=none"]))


def test_a_target_enters_the_identity_and_its_absence_does_not():
    plain, _ = built("evaluations=none")
    assert "target" not in plain.identity()["data"]
    turned, _ = built("head=poles", "data.target=angle", "evaluations=none")
    assert turned.identity()["data"]["target"] == "angle"


@pytest.mark.parametrize("head", ["poles", "joint", "clamped", "multi_task"])
def test_a_number_is_learned_from_images_to_its_error(head):
    more = ("head.pole=last",) if head == "joint" else ()
    training, evaluations = built(f"head={head}", "data.target=angle", "evaluations=values", *more)
    store = Store()
    record = train(training, store, say=lambda line: None)
    if head != "clamped":  # which may be stuck on its clamp
        assert record["epochs"][-1]["loss"] < record["epochs"][0]["loss"]
    assert ("test_accuracy" in record["metrics"]) == (head in ("joint", "multi_task"))
    found = run_node(Evaluation(evaluations["values"], training), store)["metrics"]
    # the same from the saved embeddings, by hand
    folder = store.folder(training.id)
    saved = Embeddings.read(folder / "embeddings.safetensors")
    network = load_network(training, folder)
    low, high = network.head.bounds.tolist()
    assert 0 < low < 1 and 179 < high < 180  # of 724 angles between 0 and 180
    with torch.no_grad():
        error = (network.head.predict(saved.test) - saved.test_values).abs().mean().item()
    assert found["mae"] == pytest.approx(error, rel=1e-5)
    constant = (saved.train_values.median() - saved.test_values).abs().mean().item()
    assert found["constant"] == pytest.approx(constant, rel=1e-5)
    assert ("accuracy" in found) == (head in ("joint", "multi_task"))


def test_a_better_prediction_has_a_smaller_error_and_a_higher_rank_correlation():
    head = Poles(3, 2, bounds=[0.0, 1.0], reduction="sum")
    truth = torch.linspace(0, 1, 11)
    angle = (2 * truth - 1).acos()
    right = torch.stack([angle.cos(), angle.sin(), torch.zeros(11)], 1)
    labels = torch.zeros(11, dtype=torch.long)
    split = Split(seen=(0,), unseen=())

    def judged(z):
        return values(head, Embeddings(z, labels, z, labels, truth, truth), split, 0, points=5)

    exact, mirrored = judged(right), judged(right * torch.tensor([-1.0, 1, 1]))
    assert exact["mae"] < 1e-6 and exact["spearman"] == pytest.approx(1)
    assert mirrored["spearman"] == pytest.approx(-1)
    assert exact["constant"] == pytest.approx(3 / 11)
    assert exact["scatter"]["values"].shape == (5,) and "targets" not in exact["scatter"]
    assert math.isnan(judged(torch.ones(11, 3))["spearman"])
    with pytest.raises(ValueError, match="judges a head that learns a number"):
        values(
            Softmax(3, 2, bias=True), Embeddings(right, labels, right, labels), split, 0, points=5
        )


def test_accuracy_of_classes_that_rise_weighs_them_by_their_rank():
    head = Softmax(3, 3, bias=False)
    head.class_vectors.data = torch.eye(3)
    # the first class always right, the second half of the time, the third never
    z = torch.eye(3)[[0, 0, 1, 0, 0, 1]]
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    found = rising_classes(head, Embeddings(z, labels, z, labels), Split((0, 1, 2), ()), 0)
    assert found["accuracy"] == pytest.approx((1 * 1 + 2 * 0.5 + 3 * 0) / 6)
    assert found["balanced"] == pytest.approx(0.5)


PAINTINGS = (
    [(1, "dutch", 1650), (2, "french", 1874), (3, "dutch", 1632), (4, "flemish", 1500)],
    [(5, "dutch", 1660), (6, "french", 1880)],
)


@pytest.mark.parametrize("head", ["poles", "joint"])
def test_paintings_train_from_files_with_their_years(tmp_path, monkeypatch, head):
    monkeypatch.setenv("HYPERSPHERE_DATA", str(tmp_path / "data"))
    miniatures.write(paths.data_dir(), miniatures.omniart(*PAINTINGS))
    facts = DATASETS["omniart"]
    monkeypatch.setitem(
        DATASETS.added, "omniart",
        type(facts)(**{**{k: getattr(facts, k) for k in facts.__dataclass_fields__},
                       "num_classes": 3, "train": 4, "test": 2, "classes": None}),
    )  # fmt: skip
    chosen = ["head=joint", "head.placement=optimal", "backbone.dim=4"] if head == "joint" else []
    training, evaluations = split_config(
        compose(["paper=hpn/art/paper", "backbone=cifar_resnet", "backbone.dim=3", *chosen,
                 "data.views.crop=16", "precision=fp32", "schedule.epochs=1", "batches.size=2"])
    )  # fmt: skip
    store = Store()
    train(training, store, say=lambda line: None)
    found = run_node(Evaluation(evaluations["values"], training), store)["metrics"]
    assert 0 <= found["mae"] <= 932
    saved = Embeddings.read(store.folder(training.id) / "embeddings.safetensors")
    assert saved.train_values.tolist() == [1650, 1632, 1500, 1874]  # by school
    assert saved.test_values.tolist() == [1660, 1880]


def test_a_summed_loss_makes_outputs_orders_of_magnitude_longer_in_its_first_step():
    """What conf/paper/hpn/about.yaml says of figure 5: gradients go with 1 / length afterwards."""
    longer = {}
    for reduction in ("sum", "mean"):
        training, _ = split_config(
            compose(["paper=hpn/rotation/quick", f"head.reduction={reduction}"])
        )
        module = Learner(training)
        data = load("rotated_digits")
        images, labels = data.train_images[:128], data.train_labels[:128]
        optimizer = module.optimizers()[0]
        before = module.network(images).norm(dim=1).median()
        module.loss(images, labels, data.train_targets["angle"][:128]).backward()
        optimizer.step()
        longer[reduction] = (module.network(images).norm(dim=1).median() / before).item()
    assert longer["sum"] > 100 and longer["sum"] > 10 * longer["mean"]
