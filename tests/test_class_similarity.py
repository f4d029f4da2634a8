"""Cosines of class vectors beside confusions, features in the plane, and networks judged on other
images than their own."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr

from hypersphere.config import Evaluation, compose, split_config
from hypersphere.data.facts import DATASETS
from hypersphere.data.inventory import add, unready
from hypersphere.data.load import load
from hypersphere.data.splits import Split
from hypersphere.errors import UserError
from hypersphere.evaluation import class_similarity, feature_map
from hypersphere.evaluation.embeddings import Embeddings
from hypersphere.execute import run_node
from hypersphere.heads import RandomVectors, Triplet
from hypersphere.papers.planned import reads
from hypersphere.store import Store
from hypersphere.training.train import load_network, train
from tests.test_plots import item as plotted

SPLIT = Split(seen=(1, 3, 4), unseen=())


def made(similarity="cosine", dim=6, n=60, seed=0):
    """A head of three classes and random test images of five, of which it knows 1, 3 and 4."""
    torch.manual_seed(seed)
    head = RandomVectors(
        dim, 3, similarity=similarity, scale=1.0, learned=False, draw="gaussian", bias=0.0
    )
    labels = torch.arange(n) % 5
    z = torch.randn(n, dim)
    seen = torch.tensor(SPLIT.seen)
    known = torch.isin(labels, seen)
    z[known] += 1.5 * head.class_vectors[torch.searchsorted(seen, labels[known])]
    return head, Embeddings(z, labels, z, labels)


def test_similarity_equals_a_loop():
    head, e = made()
    found = class_similarity(head, e, SPLIT, 0, group=[0, 2])
    vectors = [v / np.linalg.norm(v) for v in head.class_vectors.double().numpy()]
    confusions, at_predicted, own, right = np.zeros((3, 3)), [], [], []
    for z, label in zip(e.test.double().numpy(), e.test_labels.tolist(), strict=True):
        if label not in SPLIT.seen:
            continue
        true = SPLIT.seen.index(label)
        cosines = [z @ v / np.linalg.norm(z) for v in vectors]
        given = int(np.argmax(cosines))
        confusions[true, given] += 1
        at_predicted.append(cosines[given])
        own.append(cosines[true])
        if given == true:
            right.append(cosines[given])
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    between = {(i, j): vectors[i] @ vectors[j] for i, j in pairs}
    assert 0 < np.trace(confusions) < confusions.sum() == 36
    assert found["accuracy"] == pytest.approx(np.trace(confusions) / 36)
    expected = spearmanr([between[p] for p in pairs], [confusions[p] for p in pairs]).statistic
    assert found["spearman"] == pytest.approx(expected)
    assert found["cosine/predicted"] == pytest.approx(np.mean(at_predicted), abs=1e-6)
    assert found["cosine/predicted_correct"] == pytest.approx(np.mean(right), abs=1e-6)
    assert found["cosine/own"] == pytest.approx(np.mean(own), abs=1e-6)
    assert found["vectors/mean"] == pytest.approx(np.mean([*between.values()]))
    assert found["vectors/largest"] == pytest.approx(max(between.values()))
    assert found["vectors/within"] == pytest.approx(between[0, 2])
    assert found["vectors/between"] == pytest.approx((between[0, 1] + between[2, 1]) / 2)
    assert found["ceiling"] == pytest.approx(
        np.mean([math.sqrt(sum(max(x, 0) ** 2 for x in v)) for v in vectors])
    )
    arrays = found["similarity"]
    assert (arrays["confusions"] == confusions).all()
    assert arrays["cosines"] == pytest.approx(np.array(vectors) @ np.array(vectors).T, abs=1e-3)


def test_features_that_cannot_be_negative_stay_below_the_ceiling():
    head, e = made(dim=400)
    z = e.test.clamp(min=0)
    found = class_similarity(head, Embeddings(z, e.test_labels, z, e.test_labels), SPLIT, 0)
    assert found["cosine/predicted"] < found["ceiling"] == pytest.approx(0.707, abs=0.04)
    assert "vectors/within" not in found


def test_no_confusion_has_no_rank():
    head, e = made()
    z = head.class_vectors[torch.tensor([0, 1, 2])]
    labels = torch.tensor(SPLIT.seen)
    found = class_similarity(head, Embeddings(z, labels, z, labels), SPLIT, 0)
    assert found["accuracy"] == 1 and math.isnan(found["spearman"])


def test_what_similarity_needs():
    head, e = made()
    for group in ([], [3], [0, 1, 2]):
        with pytest.raises(ValueError, match="needs positions of some, not all, of 3 classes"):
            class_similarity(head, e, SPLIT, 0, group=group)
    with pytest.raises(ValueError, match="judges a head that classifies"):
        class_similarity(Triplet(6, 3, margin=1.0, squared=False, mining="semihard"), e, SPLIT, 0)


@pytest.mark.parametrize("unit", [False, True])
def test_a_map_of_features_is_their_principal_plane(unit):
    head, e = made()
    found = feature_map(head, e, SPLIT, 0, points=20, unit=unit)
    known = np.isin(e.test_labels.numpy(), SPLIT.seen)
    z = e.test.double().numpy()[known]
    z = z / np.linalg.norm(z, axis=1, keepdims=True) if unit else z
    _, sizes, axes = np.linalg.svd(z - z.mean(0), full_matrices=False)
    assert found["explained"] == pytest.approx((sizes[:2] ** 2).sum() / (sizes**2).sum())
    flat = (z - z.mean(0)) @ axes[:2].T
    arrays = found["scatter"]
    assert arrays["embeddings"].shape == (20, 2) and {*arrays["labels"]} <= {0, 1, 2}
    # every point is one of the exact ones, up to the sign of an axis
    gaps = np.abs(np.abs(arrays["embeddings"][:, None].astype(float)) - np.abs(flat)).max(2).min(1)
    assert gaps.max() < 5e-3
    assert ("targets" in arrays) == unit
    again = feature_map(head, e, SPLIT, 0, points=20, unit=unit)["scatter"]
    assert (again["embeddings"] == arrays["embeddings"]).all()


def test_angles_between_and_within_classes():
    torch.manual_seed(0)
    head = RandomVectors(
        3, 3, similarity="dot", scale=1.0, learned=False, draw="gaussian", bias=0.0
    )
    z = torch.eye(3).repeat_interleave(2, 0) + torch.tensor([[0.0, 0, 0], [0.2, 0.2, 0.2]] * 3)
    labels = torch.tensor(SPLIT.seen).repeat_interleave(2)
    found = feature_map(head, Embeddings(z, labels, z, labels), SPLIT, 0, points=6, unit=False)
    unit = z / z.norm(dim=1, keepdim=True)
    means = unit.view(3, 2, 3).mean(1)
    means = means / means.norm(dim=1, keepdim=True)
    angle = math.degrees(math.acos(means[0] @ means[1]))
    assert found["angle/between"] == pytest.approx(angle, abs=1e-3)
    within = [math.degrees(math.acos(unit[i] @ means[i // 2])) for i in range(6)]
    assert found["angle/within"] == pytest.approx(np.mean(within), abs=0.05)


# Other images


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run on digits."""
    training = split_config(compose(["paper=fixed-vectors", "schedule.epochs=2"]))[0]
    store = Store(tmp_path_factory.mktemp("runs"))
    train(training, store, say=lambda line: None)
    return training, store


def judged(trained, *words, name="test_images"):
    training, store = trained
    components = split_config(compose(["paper=fixed-vectors", *words]))[1]
    return run_node(Evaluation(components[name], training), store, lambda line: None)


def test_the_own_test_images_give_the_own_accuracy(trained):
    record = judged(trained, "evaluations=test_images")
    own = trained[1].get(trained[0].id)["metrics"]["test_accuracy"]
    assert record["metrics"]["accuracy"] == pytest.approx(own, abs=1e-6)
    assert record["parent"] == trained[0].id and record["kind"] == "evaluation"


def test_corrupted_images_are_judged_by_the_network(trained):
    from hypersphere.data.corruptions import corrupt

    training, store = trained
    found = judged(trained, "evaluations=corruptions", name="blur")["metrics"]
    network = load_network(training, store.folder(training.id)).eval()
    data = load("digits")
    how = {"kind": "defocus_blur", "severity": 1, "strength": "imagenet", "seed": 0}
    with torch.no_grad():
        z = network(corrupt(data.test_images, **how))
        cosines = torch.nn.functional.cosine_similarity(
            z[:, None], network.head.class_vectors, dim=2
        )
    accuracy = (network.head.logits(z).argmax(1) == data.test_labels).double().mean().item()
    assert found["accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert found["cosine/predicted"] == pytest.approx(cosines.max(1).values.mean().item(), abs=1e-5)
    clean = judged(trained, "evaluations=test_images")["metrics"]["accuracy"]
    assert found["accuracy"] < clean
    # noise by its seed, strength by its number: other evaluations
    others = [
        judged(
            trained, "evaluations=corruptions", f"evaluations.jpeg.corruption.{words}", name="jpeg"
        )
        for words in ("severity=1", "severity=5", "strength=cifar")
    ]
    assert len({record["run_id"] for record in others}) == 3


def test_ones_own_folder_that_only_tests(trained, data):
    """Classes are matched by name, whatever their order; a class more or another size is said."""
    digits, folder = load("digits"), data.parent / "mine"
    names = DATASETS["digits"].classes
    for place in range(40):
        label = int(digits.test_labels[place])
        called = names[label] if names else str(label)
        (folder / called).mkdir(parents=True, exist_ok=True)
        pixels = Image.fromarray(digits.test_images[place, 0].numpy())
        pixels.save(folder / called / f"{place}.png")
    facts = add("digits_gen", folder, test_share=1.0)
    assert (facts.train, facts.test, facts.size) == (0, 40, 8)
    found = judged(trained, "evaluations=test_images", "evaluations.test_images.data=digits_gen")
    training, store = trained
    network = load_network(training, store.folder(training.id)).eval()
    with torch.no_grad():
        right = network.head.logits(network(digits.test_images[:40])).argmax(1)
    accuracy = (right == digits.test_labels[:40]).double().mean().item()
    assert found["metrics"]["accuracy"] == pytest.approx(accuracy, abs=1e-6)
    with pytest.raises(UserError, match="has no training images: it only tests"):
        split_config(compose(["data=digits_gen", "split=all_classes", "evaluations=none"]))


def test_images_that_do_not_fit(trained):
    for name, says in (
        ("cifar10_1", "network does not know|are 32 x 32 with 3 channels, the network's 8 x 8"),
        ("cifar100", "has 100 classes, the network was trained on 10|does not know"),
    ):
        with pytest.raises(UserError, match=f"test_images of digits, run .*({says})"):
            judged(trained, "evaluations=test_images", f"evaluations.test_images.data={name}")


def test_a_plan_knows_what_images_an_evaluation_reads(trained, data):
    training, _ = trained

    def read(*words):
        component = split_config(compose(["paper=fixed-vectors", *words]))[1]["test_images"]
        return reads(Evaluation(component, training))

    other = "evaluations.test_images.data=stl10_gen"
    assert read("evaluations=test_images") == {"digits"}
    assert read("evaluations=test_images", other) == {"digits", "stl10_gen"}
    official = "{kind: jpeg_compression, severity: 1, strength: official, seed: 0}"
    words = ["evaluations=test_images", "evaluations.test_images.data=cifar10"]
    words.append(f"evaluations.test_images.corruption={official}")
    assert read(*words) == {"digits", "cifar10", "cifar10_c"}
    assert "hypersphere data add stl10_gen FOLDER --test-share 1" in unready("stl10_gen")


# The picture


def test_matrices_and_confusions(tmp_path):
    from hypersphere.reporting import plots
    from hypersphere.reporting.kinds import Matrices
    from hypersphere.reporting.plots import matrices

    cosines = np.array([[1.0, 0.5, -0.2], [0.5, 1.0, 0.1], [-0.2, 0.1, 1.0]], np.float16)
    arrays = {"cosines": cosines, "confusions": np.array([[5, 3, 0], [2, 6, 1], [0, 1, 8]])}
    plot = Matrices(
        kind="matrices", panels="method", confusions="new", measure="k", caption="2",
        name="method {}", class_names=("ant", "bee", "cat"),
    )  # fmt: skip
    assert plots.write(plotted(plot), tmp_path) is None
    drawn = []
    save = matrices.save
    matrices.save = lambda figure, *rest: (drawn.append(figure), save(figure, *rest))[1]
    try:
        first = plots.write(plotted(plot, arrays), tmp_path)
    finally:
        matrices.save = save
    (figure,) = drawn
    shown = [axis for axis in figure.axes if axis.get_title()]
    assert [axis.get_title().split("\n")[0] for axis in shown] == [
        "method new, seed 0", "method old, seed 0", "method new, seed 0",
    ]  # fmt: skip
    assert shown[2].get_title().endswith("2: 0.53 (3 seeds)")
    assert [t.get_text() for t in shown[0].get_xticklabels()] == ["ant", "bee", "cat"]
    assert {t.get_text() for t in shown[0].texts} == {".50", "-.20", ".10"}
    x, y = shown[2].lines[0].get_data()
    assert sorted(zip(np.round(x, 1), y, strict=True)) == [
        (-0.2, 0), (-0.2, 0), (0.1, 1), (0.1, 1), (0.5, 2), (0.5, 3),
    ]  # fmt: skip
    assert first[0].stat().st_size > 5000
