"""Cells that show the best of several settings, cells that a preset leaves out, variants of some
presets alone, and computed cells beside trained ones."""

import math

import pytest

from hypersphere.errors import UserError
from hypersphere.papers.plan import make_plan
from hypersphere.papers.render import judged_items
from hypersphere.reporting.declared import ByKey
from hypersphere.store import Store
from tests.toy import ITEMS, TABLE, declare, run_all

CHOOSING = TABLE | {
    "title": "the best of two scales",
    "metric": "training/{number}",
    "words": {"number": "loss", "judge": "test_accuracy"},
    "choose": {"among": [{"head.scale": 2.0}, {"head.scale": 4.0}], "by": "training/{judge}"},
    "variants": {"other": {"words": {"judge": "loss"}, "overrides": {"optimizer.lr": 0.01}}},
}


def made_up(plan, scales):
    """Records in which `scales`: (k, scale, seed) -> (accuracy, loss); others diverged."""
    store = Store()
    for node in plan.trainings():
        head, split = node.components["head"].params, node.components["split"].params
        key = (split["num_unseen"], head["scale"], node.settings.seed)
        accuracy, loss = scales.get(key, (math.nan, math.nan))
        store.records[node.id] = {
            "run_id": node.id, "kind": "training", "diverged": key not in scales, "epochs": [],
            "metrics": {"test_accuracy": accuracy, "loss": loss},
        }  # fmt: skip
    return store


def test_the_best_mean_over_the_units_is_shown(toy):
    declare(toy, "table1", CHOOSING)
    plan = make_plan("quick", ["toy"], ["table1"])
    (planned,) = plan.items
    # two K*, two seeds, two scales; the variant has another rate
    assert len(plan.trainings()) == len(planned.trainings) == 16
    scales = {
        # of k = 2 scale 4 has the larger mean, though seed 0 alone says 2
        (2, 2.0, 0): (0.9, 1.0), (2, 2.0, 1): (0.1, 2.0),
        (2, 4.0, 0): (0.8, 3.0), (2, 4.0, 1): (0.7, 4.0),
        # of k = 3 scale 4 diverged once
        (3, 2.0, 0): (0.2, 5.0), (3, 2.0, 1): (0.2, 6.0), (3, 4.0, 0): (0.9, 7.0),
    }  # fmt: skip
    primary, other = judged_items(planned, made_up(plan, scales))
    assert [cell.values for cell in primary.cells] == [{"0": 3, "1": 4}, {"0": 5, "1": 6}]
    assert all(cell.complete and len(cell.run_ids) == 2 for cell in primary.cells)
    (note,) = [line for line in primary.notes if line.startswith("Chosen")]
    assert note == (
        "Chosen by the largest mean of test_accuracy over the splits: head.scale = 4.0 for 2;"
        " head.scale = 2.0 for 3."
    )
    (note,) = [line for line in other.notes if line.startswith("Chosen")]
    assert "mean of loss" in note  # its own word
    # equal ones: the first; all diverged: it shows as that
    even = {key: (0.5, 1.0 + key[1]) for key in scales if key[0] == 2}
    two, three = judged_items(planned, made_up(plan, even))[0].cells
    assert {*two.values.values()} == {3.0} and three.diverged == 2


def test_nothing_is_shown_before_all_alternatives_are_done(toy):
    declare(toy, "table1", CHOOSING)
    plan = make_plan("quick", ["toy"], ["table1"])
    store = made_up(plan, {(2, s, seed): (s, 1.0) for s in (2.0, 4.0) for seed in (0, 1)})
    two = plan.items[0].cells[0]
    del store.records[two.alternatives[""][1].nodes["1"].id]
    cells = judged_items(plan.items[0], store)[0].cells
    assert (cells[0].values, cells[0].planned, cells[0].complete) == ({}, 2, False)
    assert cells[1].diverged == 2


def test_alternatives_by_a_key_and_by_a_preset(toy):
    by_key = {"by": "k", "words": {"2": [{"head.scale": 2.0}], "3": [{"head.scale": 3.0}, {}]}}
    own = {"among": [{"head.scale": 9.0}], "by": "training/loss"}
    item = CHOOSING | {"variants": {}, "presets": {"small": {"choose": own}}}
    declare(toy, "table1", item | {"choose": {"among": by_key, "by": "training/loss"}})

    def scales(preset):
        return [
            [n.components["head"].params["scale"] for n in (a.nodes["0"] for a in among)]
            for cell in make_plan(preset, ["toy"], ["table1"]).items[0].cells
            for among in [cell.alternatives[""]]
        ]

    assert scales("quick") == [[2.0], [3.0, 16.0]] and scales("small") == [[9.0], [9.0]]
    declare(toy, "table1", item | {"choose": {"among": [{}], "by": "novel_classes/x"}})
    with pytest.raises(UserError, match="choose.by=novel_classes/x: chooses by a number of the"):
        make_plan("quick", ["toy"], ["table1"])


def test_the_number_may_be_an_evaluations(toy):
    """Chosen by the training, shown is what the evaluation found."""
    item = CHOOSING | {"variants": {}, "metric": "novel_classes/all/raw/disjoint/unseen"}
    declare(toy, "table1", item | {"choose": CHOOSING["choose"] | {"by": "training/loss"}})
    store, plan = Store(), make_plan("small", ["toy"], ["table1"])
    run_all(plan, store)
    for cell in judged_items(plan.items[0], store)[0].cells:
        losses = {
            each.nodes["0"].id: store.get(each.nodes["0"].training.id)["metrics"]["loss"]
            for planned in plan.items[0].cells
            if planned.keys == cell.keys
            for each in planned.alternatives[""]
        }
        shown = store.get(max(losses, key=losses.get))["metrics"]["all/raw/disjoint/unseen"]
        assert cell.values == {"0": shown}


def test_cells_that_a_preset_leaves_out(toy):
    declare(toy, "table1", ITEMS["table2"] | {"presets": {"quick": {"where": {"k": [3]}}}})
    plan = make_plan("quick", ["toy"], ["table1"])
    two, three = plan.items[0].cells
    assert not two.nodes and len(three.nodes) == 2 and len(plan.nodes) == 2
    left, kept = judged_items(plan.items[0], Store())[0].cells
    assert (left.planned, left.complete, kept.planned) == (0, False, 2)
    assert len(make_plan("paper", ["toy"], ["table1"]).items[0].cells[0].nodes) == 3
    declare(toy, "table1", ITEMS["table2"] | {"presets": {"quick": {"where": {"kk": [3]}}}})
    with pytest.raises(
        UserError, match=r"table1: where.kk \(of preset quick or of a variant\): no such column"
    ):
        make_plan("quick", ["toy"], ["table1"])


def test_variants_of_some_presets_and_of_another_protocol(toy):
    variant = {"presets": ["small"], "protocol": "substitute", "overrides": {"head.scale": 2.0}}
    declare(toy, "table1", ITEMS["table2"] | {"variants": {"other": variant}})
    assert len(judged_items(make_plan("paper", ["toy"], ["table1"]).items[0], Store())) == 1
    primary, other = judged_items(make_plan("small", ["toy"], ["table1"]).items[0], Store())
    assert {cell.protocol for cell in primary.cells} == {"shortened"}
    assert {cell.protocol for cell in other.cells} == {"substitute"}
    assert other.notes[0].startswith("Protocol: substitute.")


def test_computed_cells_beside_trained_ones(toy):
    computed = {"_target_": "tests.toy.computation", "name": "toy", "size": 7}
    item = ITEMS["table2"] | {
        "metric": "{source}",
        "words": {"source": {"by": "k", "words": {"2": "toy/size", "3": "training/loss"}}},
        "computation": {"by": "k", "words": {"2": computed}},
        "choose": {"among": [{"head.scale": 2.0}, {"head.scale": 4.0}], "by": "training/loss"},
        "presets": {"small": {"where": {"k": [9]}}},
    }
    declare(toy, "table1", item)
    plan, store = make_plan("quick", ["toy"], ["table1"]), Store()
    assert len(plan.nodes) == 1 + 4 and not plan.items[0].cells[0].alternatives
    run_all(plan, store)
    two, three = judged_items(plan.items[0], store)[0].cells
    assert two.values == {"0": 7.0, "1": 7.0} and len(two.run_ids) == 1
    assert three.complete and len(three.run_ids) == 2
    # a preset that leaves cells out still computes
    assert [len(c.nodes) for c in make_plan("small", ["toy"], ["table1"]).items[0].cells] == [1, 0]


def test_several_columns_may_decide():
    both = ByKey[int](by="loss & kind", words={"dot & a": 1})
    assert both.of({"loss": "dot", "kind": "a"}) == 1
    assert not both.speaks_of({"loss": "dot", "kind": "b"}) and not both.speaks_of({"loss": "dot"})
    with pytest.raises(ValueError, match="loss & kind: says nothing of 'dot & b'"):
        both.of({"loss": "dot", "kind": "b"})
