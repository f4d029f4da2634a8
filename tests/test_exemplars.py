"""One example of each new class: recall of each, and the page of images that shows it."""

import shutil

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hypersphere.config import Evaluation, compose, split_config
from hypersphere.data.load import load
from hypersphere.evaluation import exemplars, imprinting
from hypersphere.execute import run_node
from hypersphere.heads import Triplet
from hypersphere.papers.plan import make_plan
from hypersphere.papers.render import collect, judged_items
from hypersphere.reporting import plots
from hypersphere.reporting.cells import Cell, Item
from hypersphere.reporting.kinds import Exemplars
from hypersphere.store import Store, artifacts, thumbnails
from tests.test_imprinting_augmented import base, trained  # noqa: F401  (fixtures)
from tests.toy import declare, run_all


@pytest.fixture
def found(trained):  # noqa: F811
    return exemplars(trained, trained.training.split(), 0, draws=3, classes=3, cases=5)


def test_recalls_are_those_of_imprinting(trained, found):  # noqa: F811
    split = trained.training.split()
    one = imprinting(
        trained.head, trained.embeddings, split, 0, shots=[1], draws=3, rules=["mean"]
    )["one_shot"]
    for i, c in enumerate(split.unseen):
        assert found[f"recall/{c}"] == one["recall_joint"][:, i].tolist()  # digits' names
    assert found["recall/lowest"] == one["recall_joint"].min(1).tolist()
    assert found["recall/median"] == np.median(one["recall_joint"], axis=1).tolist()
    assert found["recall/highest"] == one["recall_joint"].max(1).tolist()
    arrays = found["exemplars"]
    recalls = one["recall_joint"][0, arrays["shown"]]
    assert arrays["recalls"].tolist() == sorted(recalls, reverse=True) and len(recalls) == 3
    data = load("digits").train_images
    images = thumbnails.unpack(arrays)
    for place, c in zip(arrays["images"], arrays["shown"]):
        example = data[one["examples"][0, c]].numpy()
        assert np.array_equal(images[place], example.transpose(1, 2, 0).repeat(3, 2))


def test_cases_are_what_they_are_said_to_be(trained, found):  # noqa: F811
    """Each image is found among the test images, and classified again by hand."""
    arrays, e, split = found["exemplars"], trained.embeddings, trained.training.split()
    data, images = load("digits"), thumbnails.unpack(arrays)
    one = imprinting(
        trained.head, e, split, 0, shots=[1], draws=1, rules=["mean"]
    )["one_shot"]["examples"][0]  # fmt: skip
    known = trained.head.class_vectors.detach()
    vectors = F.normalize(torch.cat([known, e.train[torch.from_numpy(one)]]), dim=1)
    predicted = (F.normalize(e.test, dim=1) @ vectors.T).argmax(1)
    tests = {data.test_images[i, 0].numpy().tobytes(): i for i in range(len(e.test))}
    assert len(arrays["right"]) == 5 and len(arrays["wrong"])
    for key in ("right", "wrong"):
        for image, own, taken, example in arrays[key]:
            i = tests[np.ascontiguousarray(images[image][..., 0]).tobytes()]
            assert split.unseen[own] == e.test_labels[i]
            assert predicted[i] == len(split.seen) + taken
            assert (own == taken) == (key == "right")
            shown = data.train_images[one[taken], 0].numpy()
            assert np.array_equal(images[example][..., 0], shown)
    novel = torch.isin(e.test_labels, torch.tensor(split.unseen))
    total, right, to_seen, classes = arrays["counts"]
    assert total == novel.sum() and classes == 10
    assert to_seen == (predicted[novel] < len(split.seen)).sum()
    mean = sum(r[0] * (e.test_labels == c).sum().item()
               for c in split.unseen for r in [found[f"recall/{c}"]])  # fmt: skip
    assert right == round(mean)


def test_a_head_without_class_vectors_is_judged_by_means(trained, found):  # noqa: F811
    trained.head = Triplet(trained.head.dim, 6, margin=1.0, squared=False, mining="all")
    other = exemplars(trained, trained.training.split(), 0, draws=1)
    assert other["exemplars"]["counts"][0] == found["exemplars"]["counts"][0]
    right = other["exemplars"]["counts"][1]
    labels = trained.embeddings.test_labels
    split = trained.training.split()
    assert right == round(
        sum(other[f"recall/{c}"][0] * (labels == c).sum().item() for c in split.unseen)
    )


def test_one_record_and_its_page(base, tmp_path):  # noqa: F811
    training, store = base
    word = "evaluations.exemplars"
    words = ["evaluations=exemplars", f"{word}.draws=2", "split=base_novel", "split.num_base=6"]
    component = split_config(compose(words))[1]["exemplars"]
    record = run_node(Evaluation(component, training), store, lambda _: None)
    assert len(record["metrics"]["recall/9"]) == 2
    file = store.folder(record["run_id"]) / artifacts.FOLDER / "exemplars.npz"
    arrays = artifacts.load(file, record["artifacts"]["exemplars"])
    cell = Cell({"class": "9"}, "", "", {"0": 0.5}, 1, (training.id,), "substitute", {"0": arrays})
    item = Item(
        "toy", "figure5", "birds", "quick", "draw", 0.02, ("class",), (), (cell,),
        plot=Exemplars(kind="exemplars", columns=3),
    )  # fmt: skip
    first = [path.read_bytes() for path in plots.write(item, tmp_path / "a")]
    assert first == [path.read_bytes() for path in plots.write(item, tmp_path / "b")]
    empty = Cell({"class": "9"}, "", "", {}, 1, (), "substitute")
    nothing = Item(
        "toy", "figure5", "birds", "quick", "draw", 0.02, ("class",), (), (empty,),
        plot=Exemplars(kind="exemplars"),
    )  # fmt: skip
    assert plots.write(nothing, tmp_path) is None


def test_a_declared_item_draws_its_page_from_records_alone(toy, tmp_path):  # noqa: F811
    """As a paper's figure is declared: a number per class, the page of the first seed."""
    item = {
        "title": "exemplars", "grid": {"class": ["lowest", "median", "9"]}, "rows": ["class"],
        "columns": [], "unit": "draw", "margin": 2.0, "scale": 100, "presets": {"quick": {"seeds": [0]}},
        "metric": "exemplars/recall/{class}", "metric_label": "recall@1 (%)",
        "overrides": {"evaluations": "exemplars", "split": "base_novel", "split.num_base": 6},
        "plot": {"kind": "exemplars", "columns": 4},
    }  # fmt: skip
    declare(toy, "figure1", item)
    plan, store = make_plan("quick", ["toy"], ["figure1"]), Store()
    run_all(plan, store)
    collect(plan, store, "quick")
    (made,) = judged_items(plan.items[0], store)
    lowest, median, nine = made.cells
    assert len(nine.values) == 5 and all(lowest.values[k] <= nine.values[k] for k in nine.values)
    assert list(nine.arrays) == ["0"]
    written = [path.read_bytes() for path in plots.write(made, tmp_path / "a")]
    shutil.rmtree(store.runs)  # what is committed is enough
    (again,) = judged_items(plan.items[0], Store())
    assert [path.read_bytes() for path in plots.write(again, tmp_path / "b")] == written


def test_thumbnails_keep_small_images_and_fit(tmp_path):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (32, 20, 3), dtype=np.uint8)
    grey = rng.integers(0, 256, (8, 8), dtype=np.uint8)
    whole = thumbnails.unpack(thumbnails.pack([small, grey], 32))
    assert np.array_equal(whole[0], small) and np.array_equal(whole[1][..., 2], grey)
    smooth = np.add.outer(np.arange(200), np.arange(300)).astype(np.uint8)
    smooth = np.stack([smooth, smooth // 2, 255 - smooth], 2)
    shrunk = thumbnails.unpack(thumbnails.pack([smooth], 60))[0]
    assert shrunk.shape == (40, 60, 3)
    noise = [rng.integers(0, 256, (300, 300, 3), dtype=np.uint8) for _ in range(40)]
    packed = thumbnails.pack(noise, 120)  # in a lower quality than one alone
    assert artifacts.save(tmp_path, {"x": packed}) and packed["ends"][-1] <= thumbnails.BUDGET
    assert packed["ends"][0] < thumbnails.pack(noise[:1], 120)["ends"][0]
    crops = thumbnails.pack(
        [image[:96, :96] for image in noise], 120
    )  # small, but too many to stay
    assert crops["ends"][-1] <= thumbnails.BUDGET
    assert thumbnails.unpack(crops)[0].shape == (96, 96, 3)
    with pytest.raises(ValueError, match="400 images of 120 pixels exceed .* show fewer"):
        thumbnails.pack(noise * 10, 120)
