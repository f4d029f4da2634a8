"""Imprinted weights, whole: which trainings the items need, what they share, and how cells with
several draws of one model stand beside cells with one training per draw."""

from collections import Counter

import numpy as np
import pytest

from hypersphere.config import Evaluation, Training
from hypersphere.data.batches import ClassBalanced
from hypersphere.errors import UserError
from hypersphere.papers import render
from hypersphere.papers.claimed import claimed, places
from hypersphere.papers.curves import of_curve
from hypersphere.papers.nodes import filled
from hypersphere.papers.plan import make_plan
from hypersphere.papers.planned import blocked, training_of
from hypersphere.papers.spec import paper
from hypersphere.reporting.cells import Cell, Item
from hypersphere.reporting.comparisons import comparisons
from hypersphere.store import Store

# Frozen: presets must not change what is trained, or committed records would be orphaned.
SMALL_BASES = {
    "5e6ac527d5bb": "cub_50, 64 dimensions",
    "009beb8fbdd6": "cub_50, 128 dimensions",
    "535a8e8a86d5": "cub_50, 256 dimensions",
    "4d45869dcf39": "cub_50, 512 dimensions",
    "5ac08d911069": "cub_50, lifted structured loss",
    "37e5e5c602c0": "cub_50, a scale of each class",
    "c42255c6cb69": "cub_50, a scale of each class, seed 1",
    "ec475b13c682": "cub_50, a scale of each class, seed 2",
    "11d5e316a792": "cub_50, 64 dimensions, seed 1",
    "e9a1655a05d3": "cub_50, 64 dimensions, seed 2",
    "03a27895815e": "cub_50, 128 dimensions, seed 1",
    "b40bbf9edcae": "cub_50, 128 dimensions, seed 2",
    "3f0cbcf21fc9": "cub_50, 256 dimensions, seed 1",
    "474bba4dc4db": "cub_50, 256 dimensions, seed 2",
    "74c45247a238": "cub_50, 512 dimensions, seed 1",
    "9b9c19682ef1": "cub_50, 512 dimensions, seed 2",
    "95a51d916d73": "cub_50, lifted structured loss, seed 1",
    "24a59b1bed07": "cub_50, lifted structured loss, seed 2",
    "8edeaa6807b4": "cub_50, 64 dimensions, seed 3",
    "3a9cfe891d76": "cub_50, 64 dimensions, seed 4",
    "2b43f00494cb": "cub_50, 64 dimensions, seed 5",
    "5d051b36cd3e": "cub_50, a scale of each class, seed 3",
    "16191fa3b259": "cub_50, a scale of each class, seed 4",
    "dcbf747b66a7": "cub_50, a scale of each class, seed 5",
    "ff0a7d5ef7bd": "cub_50, 64 dimensions, seed 6",
    "cbd689c21ff9": "cub_50, a scale of each class, seed 6",
    "0a9a3ab54b8c": "cub_50, 64 dimensions, seed 7",
    "15d0e7530712": "cub_50, a scale of each class, seed 7",
    "c4046a54f425": "cub_50, 64 dimensions, seed 8",
    "dd0c81449a30": "cub_50, a scale of each class, seed 8",
    "a0b07129b093": "cub_50, 64 dimensions, seed 9",
    "682c00eeac78": "cub_50, a scale of each class, seed 9",
    "8c3f4fc17fb8": "cub_50, 64 dimensions, seed 10",
    "100f50860634": "cub_50, a scale of each class, seed 10",
    "435e90e28e70": "cub_50, 64 dimensions, seed 11",
    "85d3729236ac": "cub_50, a scale of each class, seed 11",
    "828f33750e5d": "cifar100, 50 base classes",
    "f3c25d8dd1dc": "cifar100, 50 base classes, seed 1",
    "a2cc62d180d3": "cifar100, 50 base classes, seed 2",
    "41903d6bb935": "cifar100, 50 base classes, lifted structured loss",
    "2358334e9a11": "cifar100, 50 base classes, lifted structured loss, seed 1",
    "aebc72bd4032": "cifar100, 50 base classes, lifted structured loss, seed 2",
    "0407b617391f": "cifar100, 24 base classes",
    "a32e21e910d5": "cifar100, 50 base classes, seed 3",
    "e1c9b84c0d84": "cifar100, 24 base classes, seed 1",
    "9d5a44e49616": "cifar100, 24 base classes, seed 2",
    "307f476ff59f": "cifar100, 24 base classes, seed 3",
    "504d84558299": "cifar100, 50 base classes, seed 4",
    "0bc2e7f4007c": "cifar100, 50 base classes, seed 5",
    "b55a9e4d83e0": "cifar100, 24 base classes, seed 4",
    "9da8102c0e30": "cifar100, 24 base classes, seed 5",
}


@pytest.fixture(scope="module")
def plans():
    return {preset: make_plan(preset, ["imprinting"]) for preset in ("quick", "small", "paper")}


def item(plan, name):
    return next(each for each in plan.items if each.spec.name == name)


def cell(plan, name, **keys):
    keys = {key: str(value) for key, value in keys.items()}
    (found,) = [c for c in item(plan, name).cells if keys.items() <= c.keys.items()]
    return found


def kind(training):
    """What a training is, by its head, its classes and whether it starts from another."""
    trained = training.components["split"].params["trained"]
    tuned = training.settings.new_classes if training.parent else ""
    return training.data.name, training.components["head"].name, trained, tuned


@pytest.mark.parametrize("preset, birds, species", [("paper", "cub", "inaturalist2017"), ("quick", "digits", "long_tail_digits")])  # fmt: skip # noqa: E501
def test_one_draw_needs_52_trainings_and_one_for_the_scales(plans, preset, birds, species):
    first = [t for t in plans[preset].trainings() if t.settings.seed == 0]
    if preset == "paper":  # tables 1 and 2 with ResNet-50 and from scratch: a base, 15 more each
        backbones = Counter((p["architecture"], p["weights"]) for t in first
                            for p in [t.components["backbone"].params])  # fmt: skip
        others = {("resnet50", "IMAGENET1K_V1"): 16, ("googlenet", "none"): 16}
        assert backbones == others | {("googlenet", "IMAGENET1K_V1"): 52 + 1}
        first = [t for t in first for p in [t.components["backbone"].params]
                 if (p["architecture"], p["weights"]) not in others]  # fmt: skip
    assert Counter(map(kind, first)) == {
        (birds, "normalized_softmax", "base", ""): 4 + 1,  # 64 to 512 dimensions; scales per class
        (birds, "lifted_structured", "base", ""): 1,
        (birds, "normalized_softmax", "all", "random"): 5,
        (birds, "normalized_softmax", "all", "imprinted"): 5,
        (birds, "softmax", "all", ""): 5 + 6,  # 128, 256, 512 dimensions with 1 and 5 examples
        (birds, "normalized_softmax", "novel", "random"): 5,
        (birds, "normalized_softmax", "novel", "imprinted"): 5,
        (species, "normalized_softmax", "base", ""): 1,
        (species, "normalized_softmax", "all", "random"): 5,
        (species, "normalized_softmax", "all", "imprinted"): 5,
        (species, "softmax", "all", ""): 5,
    }
    assert len(first) == 52 + 1


def test_every_printed_number_has_a_cell(plans):
    numbers = {f"table{i}": n for i, n in ((1, 30), (2, 30), (3, 25), (4, 25))} | {"text": 1}
    for plan in plans.values():
        assert {name: len(item(plan, name).cells) for name in numbers} == numbers
        assert [each.spec.name for each in plan.items] == paper("imprinting").about.items


def test_small_trains_what_its_records_hold(plans):
    plan = plans["small"]
    bases = {t.id for t in plan.trainings() if kind(t)[2] == "base"}
    assert bases == set(SMALL_BASES)
    parents = Counter(t.parent for t in plan.trainings() if t.parent)
    # tables 1 and 2: 3 n x 5 draws x 2; on CIFAR-100 x 4 draws, figures 3 and 4 there as many of
    # more epochs; table 3: 4 x 16 + 5 draws x 2; five more base models of each margin: 3 n x 2
    margins = {base: 6 for base, who in SMALL_BASES.items() if "lifted" not in who
               and "cifar100" in who and "seed" in who}  # fmt: skip
    assert len(margins) == 10
    tuned = {"5e6ac527d5bb": 30 + 138, "828f33750e5d": 24 + 24, "0407b617391f": 24}
    assert parents == tuned | margins
    assert len(plan.trainings()) == 375


def test_tuned_draws_are_those_of_the_evaluation(plans):
    """Unit d of an untuned row is draw d of one model; of a tuned row, a training on that draw."""
    plan = plans["small"]
    untuned = cell(plan, "table1", method="imprinting", n_shot=5)
    assert list(untuned.nodes) == [str(draw) for draw in range(20)]
    (node,) = {n.id: n for n in untuned.nodes.values()}.values()
    assert isinstance(node, Evaluation) and node.component.params["draws"] == 20
    tuned = cell(plan, "table1", method="imprinting_ft", n_shot=5).nodes
    assert list(tuned) == [str(draw) for draw in range(5)]
    for unit, training in tuned.items():
        assert isinstance(training, Training) and training.parent == node.parent
        shots = training.data.shots
        assert (shots.number, str(shots.draw), shots.seed) == (5, unit, 0)
    assert node.training.settings.seed == 0  # what the evaluation draws its shots by


def test_draws_of_one_model_become_units(plans, monkeypatch):
    planned = item(plans["small"], "table1")
    chosen = cell(plans["small"], "table1", method="imprinting", n_shot=5)
    record = {"kind": "evaluation", "run_id": "e", "parent": "base", "diverged": False, "epochs": [],
              "metrics": {"mean/5/joint/novel": [draw / 40 for draw in range(20)]}}  # fmt: skip
    store = Store()
    monkeypatch.setattr(store, "get", lambda run_id: record)
    found = render._cell(planned.only(""), chosen.only(""), store, "")
    assert found.values == pytest.approx({str(draw): 2.5 * draw for draw in range(20)})
    assert found.complete and found.planned == 20 and found.run_ids == ("base",)


def test_what_small_leaves_out(plans):
    plan = plans["small"]
    for name, method in (("table1", "rand_ft"), ("table4", "imprinting_ft")):
        run = {n: bool(cell(plan, name, method=method, n_shot=n).nodes) for n in (1, 2, 5, 10, 20)}
        assert run == {1: True, 2: False, 5: True, 10: False, 20: True}
    assert not cell(plan, "table4", method="all_class_joint", n_shot=1).nodes
    assert cell(plan, "figure7", method="imprinting", n_shot=1, embedding_dim=256).nodes
    assert not cell(plan, "figure7", method="all_class_joint", n_shot=1, embedding_dim=256).nodes
    assert all(cell(plan, "table3", method="rand_ft", n_shot=n).nodes for n in (1, 2, 5, 10, 20))


def test_missing_weights_are_skipped_with_their_reason(plans, monkeypatch, tmp_path):
    import torch

    monkeypatch.setenv("HYPERSPHERE_DATA", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    assert "hypersphere data get cub" in blocked(item(plans["paper"], "table1"))
    monkeypatch.setattr(
        "hypersphere.papers.planned.unready", lambda name: None
    )  # all data are here
    why = blocked(item(plans["paper"], "table1"))
    assert "weights IMAGENET1K_V1 of googlenet are not here: download" in why


def test_keys_inside_tables_are_values_and_words_hold_keys():
    spec = paper("imprinting").item("table1")
    keys = {"n_shot": "5", "method": "imprinting", "classes_evaluated": "all_200way",
            "finetuned": "no"}  # fmt: skip
    assert filled(spec, {"number": "{n_shot}", "draw": "${seed}"}, keys, "x") == {
        "number": 5,
        "draw": "${seed}",
    }
    assert filled(spec, spec.metric, keys, "x") == "imprinting/mean/5/joint/all"
    with pytest.raises(UserError, match="no column or word 'wrong'"):
        filled(spec, "{wrong}", keys, "x")


def test_curves_of_the_classes_with_few_images():
    curve = [(0.5, 0.1), (0.6, 0.4), (0.62, 0.39), (0.7, 0.4)]
    epochs = [
        {"epoch": i, "test_accuracy": a, "test_accuracy_of_few": b}
        for i, (a, b) in enumerate(curve, 1)
    ]
    record = {"epochs": epochs}
    assert of_curve(record, "test_accuracy_of_few@1") == 0.1
    assert of_curve(record, "test_accuracy_of_few@best") == 0.4
    assert of_curve(record, "epochs_to_95_percent") == 4
    assert of_curve(record, "epochs_to_95_percent_of_few") == 2


def test_an_epoch_of_so_many_balanced_batches():
    labels = np.arange(6)
    draws = np.random.default_rng(0)
    batches = list(ClassBalanced(classes=3, images=2, per_epoch=5).epoch(labels, draws))
    assert [len(batch) for batch in batches] == [6] * 5  # the one image of a class twice
    assert len(list(ClassBalanced(classes=3, images=2).epoch(labels, draws))) == 1


def leading(cub, inat, bases=(("a", "b", "c"), ("d", "e", "f")), by_draw=(0.0, 0.1, 0.2)):
    """A table of two methods on two datasets, imprinting ahead by `cub` and by `inat` points."""

    def cells(data, lead, bases):
        for method, more in (("imprinting_ft", lead), ("rand_ft", 0.0)):
            values = {str(d): 50 + more * (1 + by) for d, by in enumerate(by_draw)}
            keys = {"dataset": data, "n_shot": "1", "method": method}
            runs = tuple(f"{data}{method}{d}" for d in values)
            yield Cell(keys, "", "", values, 3, runs, "shortened", bases=bases)

    made = (*cells("cub", cub, bases[0]), *cells("inat", inat, bases[1]))
    return {"both": Item("imprinting", "both", "", "small", "draw", 2.0, ("method",), ("dataset",), made)}  # fmt: skip # noqa: E501


@pytest.mark.parametrize("cub, inat, outcome", [(9, 3, "supported"), (3, 9, "contradicted"), (5, 5, "open")])  # fmt: skip # noqa: E501
def test_one_lead_against_another(cub, inat, outcome):
    part = {
        "tables": ["both"],
        "leads": {"method": "imprinting_ft"}, "over": {"method": "rand_ft"},
        "more_at": {"dataset": "cub"}, "than_at": {"dataset": "inat"},
    }  # fmt: skip
    (found,) = comparisons(part, leading(cub, inat), "here")
    assert (found.outcome, found.n, found.unit) == (outcome, 3, "draw")
    # by draws, one base model in each place says nothing of another; of the same one it does
    (models,) = comparisons(part, leading(cub, inat, bases=(("a",), ("d",))), "here")
    assert (models.outcome, models.n) == ("open", 3)
    shared = leading(cub, inat, bases=(("a",), ("a",)))
    assert comparisons(part, shared, "here") == [found]
    with pytest.raises(ValueError, match="`leads` with"):
        comparisons({k: v for k, v in part.items() if k != "more_at"}, leading(1, 1), "here")


def test_the_margins_differ_in_their_classes_alone(plans):
    """Of stand-ins the network or the data would make the difference; the embedding is larger with
    many more classes, 64 and 256 dimensions in the paper too."""
    keys = {"n_shot": 5, "method": "imprinting_ft"}
    few, many = (cell(plans["small"], "margins", classes=c, **keys) for c in ("fewer", "many more"))
    for unit, one in few.nodes.items():
        other = many.nodes[unit]
        assert one.data.shots.draw == other.data.shots.draw == int(unit)
        assert one.components["split"].params["num_base"] == 50
        assert other.components["split"].params["num_base"] == 24
        one, other = (
            t.components["backbone"].params | {"dim": 0, "data": t.data.name} for t in (one, other)
        )
        assert one == other and one["data"] == "cifar100"
    # as many base models as units, and the first are those of tables 2 and 4
    assert len(render._bases(few)) == len(render._bases(many)) == len(few.nodes) == 6
    for margin, table, variant in ((few, "table2", "cifar-100"), (many, "table4", "")):
        (first,) = [c for c in item(plans["small"], table).only(variant).cells
                    if c.keys["method"] == "imprinting_ft" and c.keys["n_shot"] == "5"]  # fmt: skip
        assert margin.nodes["0"].id == first.nodes["0"].id


def test_claims_that_rest_on_a_variant_need_its_runs(plans):
    """`plan --budget` counts the runs of the tables that a claim names, variants among them."""
    cells = places(plans["small"])
    (aim,) = [each for each in claimed(plans["small"], cells) if each.item == "figure6"]
    data = {t.data.name for i in aim.cells for n in cells[i].cell.nodes.values()
            for t in [training_of(n)]}  # fmt: skip
    assert data == {"cub_50", "cifar100"}
