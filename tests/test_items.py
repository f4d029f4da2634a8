"""What an item may declare: variants, cells taken from others, grids, selections by preset."""

import math
from itertools import product

import pytest
import yaml

from hypersphere import paths
from hypersphere.errors import UserError
from hypersphere.papers.plan import make_plan
from hypersphere.papers.render import judged_items
from hypersphere.papers.spec import paper
from hypersphere.papers.status import item_rows
from hypersphere.reporting.page import page_html
from hypersphere.reporting.tables import csv_text, latex_text, markdown_text
from hypersphere.store import Store
from tests.toy import ITEMS, TABLE, declare, run_all

# Variants with runs of their own, and cells that are the largest of others

VARIED = TABLE | {
    "title": "varied",
    "metric": "novel_classes/{shots}/raw/disjoint/unseen",
    "words": {"shots": "all"},
    "variants": {
        "few": {"shots": "1"},
        "tuned": {
            "note": "chosen by hand",
            "select": {"k": {"2": {"split.num_unseen": 2},
                             "3": {"split.num_unseen": 3, "head.scale": 4.0}}},
        },
        "long": {"overrides": {"schedule.epochs": 3}, "words": {"shots": "5"}},
    },
}  # fmt: skip


def test_variants_may_have_runs_of_their_own(toy):
    (planned,) = make_plan("quick", ["toy"], ["table1"]).items
    declare(toy, "table1", VARIED)
    plan = make_plan("quick", ["toy"], ["table1"])
    (varied,) = plan.items
    two, three = varied.cells
    assert [cell.nodes for cell in varied.cells] == [cell.nodes for cell in planned.cells]
    # words alone: the primary's nodes; tuned at k = 2 asks for the same runs, at k = 3 for others
    assert two.only("few").nodes is two.nodes and three.only("few").nodes is three.nodes
    tuned = {unit: node.id for unit, node in two.only("tuned").nodes.items()}
    assert tuned == {unit: node.id for unit, node in two.nodes.items()}
    chosen = [node.training for node in three.only("tuned").nodes.values()]
    assert {t.components["head"].params["scale"] for t in chosen} == {4.0}
    assert {t.components["split"].params["num_unseen"] for t in chosen} == {3}
    assert two.only("long").metrics == {"": "novel_classes/5/raw/disjoint/unseen"}
    # 4 of the primary, 2 of tuned, 4 of long: planned, counted, missing
    assert len(varied.trainings) == len(plan.trainings()) == plan.requested() == 10
    assert len(varied.only("tuned").trainings) == len(varied.only("few").trainings) == 4
    assert len(plan.missing(Store())) == 20
    assert item_rows(plan, Store())[0]["planned"] == 10
    items = {item.variant: item for item in judged_items(varied, Store())}
    assert "Variant tuned: chosen by hand: 3 head.scale = 4.0; the" in items["tuned"].notes[1]
    assert items["long"].notes[1].startswith("Variant long: shots = 5, schedule.epochs = 3; the")


def test_a_variant_may_have_seeds_of_its_own_in_a_preset(toy):
    (primary,) = make_plan("quick", ["toy"], ["table1"]).items
    long = VARIED["variants"]["long"] | {"seeds": {"quick": 1, "paper": [5, 7, 9]}}
    declare(toy, "table1", VARIED | {"variants": {"long": long}})
    (varied,) = make_plan("quick", ["toy"], ["table1"]).items
    assert [cell.nodes for cell in varied.cells] == [cell.nodes for cell in primary.cells]
    assert all([*cell.only("long").nodes] == ["0"] for cell in varied.cells)
    (full,) = make_plan("paper", ["toy"], ["table1"]).items
    assert all([*cell.only("long").nodes] == ["5", "7", "9"] for cell in full.cells)


def test_a_variant_may_have_runs_of_some_cells_alone(toy):
    some = VARIED["variants"]["long"] | {"where": {"k": [3]}}
    declare(toy, "table1", VARIED | {"variants": {"long": some}})
    (item,) = make_plan("quick", ["toy"], ["table1"]).items
    assert {c.keys["k"]: bool(c.own["long"]) for c in item.cells} == {"2": False, "3": True}
    assert all(cell.nodes for cell in item.cells)  # the primary has all of its own


def test_variants_show_their_own_runs(toy):
    declare(toy, "table1", VARIED | {"metric": "training/loss", "words": {}, "variants": {
        "long": {"overrides": {"schedule.epochs": 3}}}})  # fmt: skip
    store, plan = Store(), make_plan("small", ["toy"], ["table1"])
    run_all(plan, store)
    primary, long = judged_items(plan.items[0], store)
    for short, longer in zip(primary.cells, long.cells, strict=True):
        assert longer.complete and longer.values["0"] < short.values["0"]
        assert not {*short.run_ids} & {*longer.run_ids}


def test_a_variant_may_train_on_other_data(toy):
    other = {"variants": {"turned": {"overrides": {"data": "rotated_digits"}}}}
    declare(toy, "table1", ITEMS["table1"] | other)
    (planned,) = make_plan("quick", ["toy"], ["table1"]).items
    assert planned.datasets == {"digits", "rotated_digits"}
    primary, turned = judged_items(planned, Store())
    assert (primary.data, turned.data) == (("digits",), ("rotated_digits",))
    assert "rotated_digits" in " ".join(turned.notes) and "rotated" not in " ".join(primary.notes)


LARGEST = {
    "title": "in the text",
    "rows": ["k"],
    "columns": [],
    "unit": "split",
    "margin": {"by": "k", "words": {"2": 0.1, "3": 7}},
    "largest": {"by": "k", "words": {"2": {"tables": ["table2"], "where": {"k": [3]}}}},
    "select": {"k": "split.num_unseen"},
    "metric": "training/loss",
}


def test_a_cell_may_be_the_largest_of_others(toy):
    declare(toy, "table1", LARGEST)
    store, plan = Store(), make_plan("quick", ["toy"], ["table1"])
    derived, own = plan.items[0].cells
    assert not derived.nodes and len(own.nodes) == 2
    assert len(plan.nodes) == 2  # the cell k = 3 of table2 has the runs of the item's own k = 3
    run_all(plan, store)
    two, three = judged_items(plan.items[0], store)[0].cells
    assert two.complete and two.values == three.values and {*two.run_ids} == {*three.run_ids}
    (item,) = judged_items(plan.items[0], store)
    assert [item.margin_of(cell) for cell in item.cells] == [0.1, 7]
    assert "2: largest value in table2 at k = 3, within each split." in item.notes


def test_the_largest_within_each_unit_and_a_run_that_diverged(toy):
    declare(
        toy,
        "table1",
        LARGEST | {"largest": {"by": "k", "words": {k: {"tables": ["table2"]} for k in "23"}}},
    )
    store, plan = Store(), make_plan("quick", ["toy"], ["table1", "table2"])
    loss = {("2", "0"): 0.1, ("3", "0"): 0.4, ("2", "1"): 0.3, ("3", "1"): 0.2}
    for cell in plan.items[1].cells:
        for unit, node in cell.nodes.items():
            store.records[node.id] = {"run_id": node.id, "kind": "training", "diverged": False,
                                      "metrics": {"loss": loss[cell.keys["k"], unit]}}  # fmt: skip
    two, _ = judged_items(plan.items[0], store)[0].cells
    assert two.complete and two.values == {"0": 0.4, "1": 0.3} and len(two.run_ids) == 4
    for each in plan.items[1].cells:  # whichever comes first
        records = {**store.records}
        node = each.nodes["1"].id
        store.records[node] = store.records[node] | {"diverged": True}
        two, _ = judged_items(plan.items[0], store)[0].cells
        assert two.complete and two.values["0"] == 0.4 and math.isnan(two.values["1"])
        store.records = records


# Figures: grids of their own, other recipes, tables of what a preset has instead


def test_a_figure_takes_its_cells_from_its_grid(toy):
    plot = {"kind": "lines", "x": "k", "series": "epoch", "x_label": "", "y_label": ""}
    grid = {"grid": {"k": [2, 3], "epoch": ["a", "b"]}, "rows": ["epoch"], "columns": ["k"]}
    metric = {"metric": "novel_classes/all/raw/disjoint/unseen", "title": "a figure"}
    smaller = {"presets": {"small": {"grid": {"k": [5]}}}}
    declare(toy, "table1", TABLE | metric | grid | smaller | {"plot": plot})
    keys = [cell.keys for cell in make_plan("paper", ["toy"], ["table1"]).items[0].cells]
    assert {(each["k"], each["epoch"]) for each in keys} == set(product("23", "ab"))
    assert len(keys) == 4
    (small,) = make_plan("small", ["toy"], ["table1"]).items
    assert [cell.keys["k"] for cell in small.cells] == ["5", "5"]
    assert {t.settings.seed for t in small.trainings} == {0}
    assert small.trainings[0].components["split"].params["num_unseen"] == 5
    judged = judged_items(small, Store())[0]
    assert not judged.printed and judged.plot.kind == "lines"


def test_a_preset_may_have_a_table_of_what_it_has_instead(toy):
    item = TABLE | {"title": "t", "metric": "novel_classes/all/raw/disjoint/unseen",
                    "grid": {"k": [40, 50]}, "rows": ["k"]}  # fmt: skip
    instead = {"instead": {"split.num_unseen": {40: 2, 50: 3}}}
    declare(toy, "table1", item | {"presets": {"quick": instead}})
    planned = make_plan("quick", ["toy"], ["table1"]).items[0]
    chosen = {
        cell.keys["k"]: node.training.components["split"].params["num_unseen"]
        for cell in planned.cells
        for node in cell.nodes.values()
    }
    assert chosen == {"40": 2, "50": 3}
    del instead["instead"]["split.num_unseen"][50]
    declare(toy, "table1", item | {"presets": {"quick": instead}})
    with pytest.raises(UserError, match=r"instead.split.num_unseen: says nothing of 50 .*\[40\]"):
        make_plan("quick", ["toy"], ["table1"])


def test_a_computation_by_seed(toy):
    """One per seed and printed value; what knows no chance is computed once."""
    item = ITEMS["table9"] | {
        "unit": "seed",
        "select": {
            "statistic": {"size": {"computation.seed": 0}, "half": {"computation.size": 5}},
        },
        "variants": {"once": {"unit": "deterministic"}},
        "presets": {"quick": {"seeds": [0, 1, 2]}},
    }
    declare(toy, "table9", item)
    plan, store = make_plan("quick", ["toy"], ["table9"]), Store()
    assert len(plan.nodes) == 1 + 3
    run_all(plan, store)
    primary, once = judged_items(plan.items[0], store)
    assert [list(cell.values.values()) for cell in primary.cells] == [[3, 3, 3], [2.5, 3.5, 4.5]]
    assert [len(cell.run_ids) for cell in primary.cells] == [1, 3]
    assert all(cell.complete for cell in primary.cells)
    assert (primary.unit, once.unit) == ("seed", "deterministic")


def test_texts_of_a_selection_name_the_keys_and_words_of_their_cell(toy):
    item = TABLE | {
        "title": "t",
        "metric": "training/loss",
        "grid": {"k": [2, 3], "kind": ["a"]},
        "words": {"size": {"by": "kind", "words": {"a": "12"}}},
        "overrides": {"head": "prototypes", "head.placement": "file",
                      "head.file": "made/up-{k}-{kind}-{size}.npy", "head.sha256": "0{k}"},
    }  # fmt: skip
    declare(toy, "table1", item)
    (planned,) = make_plan("quick", ["toy"], ["table1"]).items
    heads = [next(iter(cell.nodes.values())).components["head"].params for cell in planned.cells]
    assert [head["file"] for head in heads] == ["made/up-2-a-12.npy", "made/up-3-a-12.npy"]
    assert [head["sha256"] for head in heads] == ["02", "03"]
    declare(toy, "table1", item | {"overrides": {"head": "{heads}"}})
    with pytest.raises(UserError, match="table1: head: no column or word 'heads'"):
        make_plan("quick", ["toy"], ["table1"])


def test_a_preset_selects_otherwise_and_a_variant_on_top_of_it(toy):
    item = TABLE | {
        "title": "t",
        "metric": "training/loss",
        "select": {"k": {"2": {"head.scale": 2.0}, "3": {"head.scale": 3.0}}},
        "variants": {"own": {"select": {"k": {"3": {"head.scale": 33.0}}}}},
        "presets": {"quick": {"select": {"k": {"2": {"head.scale": 20.0}}}}},
    }
    declare(toy, "table1", item)

    def scales(preset):
        (planned,) = make_plan(preset, ["toy"], ["table1"]).items
        return [
            [next(iter(nodes.values())).components["head"].params["scale"] for nodes in each]
            for cell in planned.cells
            for each in [(cell.nodes, cell.own["own"])]
        ]

    assert scales("paper") == [[2, 2], [3, 33]]
    assert scales("quick") == [[20, 20], [3, 33]]


def test_scales_by_a_key_and_numbers_of_a_curve(toy):
    item = TABLE | {
        "title": "t",
        "metric": "training/{number}",
        "grid": {"k": [2], "measure": ["last", "first epoch", "speed"]},
        "words": {"number": {"by": "measure", "words": {
            "last": "test_accuracy", "first epoch": "test_accuracy@1",
            "speed": "epochs_to_90_percent"}}},
        "scale": {"by": "measure", "words": {"last": 100, "first epoch": 100, "speed": 1}},
    }  # fmt: skip
    declare(toy, "table1", item)
    store, plan = Store(), make_plan("quick", ["toy"], ["table1"])
    assert len(plan.nodes) == 2  # all from the same trainings
    run_all(plan, store)
    (judged,) = judged_items(plan.items[0], store)
    last, first, speed = (cell.values["0"] for cell in judged.cells)
    curve = [e["test_accuracy"] for e in next(iter(store.records.values()))["epochs"]]
    assert 1 < last <= 100 and 1 < first <= 100 and speed in (1, 2)
    assert {first, last} <= {100 * a for r in store.records.values() for e in r["epochs"]
                             for a in [e["test_accuracy"]]}  # fmt: skip
    assert len(curve) == 2
    declare(toy, "table1", item | {"scale": {"by": "measure", "words": {"last": 100}}})
    with pytest.raises(UserError, match="table1: scale: measure: says nothing of 'first epoch'"):
        make_plan("quick", ["toy"], ["table1"])


def test_a_difference_between_cells_of_another_table(toy):
    gains = {"tables": ["table2"], "gains": {"k": 3}, "over": [{"k": 2}], "relative": False}
    declare(toy, "table1", LARGEST | {"largest": {"by": "k", "words": {"2": gains}}})
    store, plan = Store(), make_plan("quick", ["toy"], ["table1", "table2"])
    loss = {("2", "0"): 0.1, ("3", "0"): 0.4, ("2", "1"): 0.3, ("3", "1"): 0.2}
    for cell in plan.items[1].cells:
        for unit, node in cell.nodes.items():
            store.records[node.id] = {"run_id": node.id, "kind": "training", "diverged": False,
                                      "metrics": {"loss": loss[cell.keys["k"], unit]}}  # fmt: skip
    (item,) = judged_items(plan.items[0], store)
    assert item.cells[0].values == {"0": pytest.approx(0.3), "1": pytest.approx(-0.1)}
    assert "2: largest difference of k = 3 over k = 2 in table2, within each split." in item.notes


def test_what_others_published_stands_beside_the_table_and_is_not_judged(toy, tmp_path):
    others = paths.published_dir() / "toy" / "ref_others.csv"
    others.write_text(
        "paper,table,network,k,metric,value,std,note\n"
        "toy,r,deep,2,accuracy,0.91,,\ntoy,r,deep,3,accuracy,0.81,0.02,\n"
        "toy,r,flat,2,accuracy,0.5,,\n"
    )
    (plain,) = judged_items(make_plan("quick", ["toy"], ["table1"]).items[0], Store())
    beside = {
        "file": "ref_others",
        "title": "Others, deep: accuracy",
        "where": {"network": ["deep"]},
    }
    variants = {"few": {"shots": "5"}, "deep": {"shots": "7"}}
    beside["variants"] = ["deep"]
    declare(
        toy,
        "table1",
        ITEMS["table1"] | {"beside": [beside], "variants": variants, "words": {"shots": "1"}},
    )
    made, deep, few = judged_items(make_plan("quick", ["toy"], ["table1"]).items[0], Store())
    assert csv_text(made) == csv_text(plain)
    assert few.beside == () and deep.beside == made.beside != ()
    text = markdown_text(made)
    assert text.replace(
        "## Others, deep: accuracy\n\n| k | accuracy |\n| --- | --- |\n| 2 | 0.91 |\n"
        "| 3 | 0.81 ± 0.02 |\n\n",
        "",
    ) == markdown_text(plain)  # fmt: skip
    assert r"0.81 $\pm$ 0.02" in latex_text(made) and "0.5" not in latex_text(made)
    page = page_html("quick", [made], [], {}, None)
    assert "<summary>Others, deep: accuracy</summary>" in page and "0.81 ± 0.02" in page
    beside["where"] = {"network": ["shallow"]}
    declare(toy, "table1", ITEMS["table1"] | {"beside": [beside]})
    with pytest.raises(UserError, match="table1: beside: ref_others.csv has no row with .*shallow"):
        judged_items(make_plan("quick", ["toy"], ["table1"]).items[0], Store())


def test_a_paper_says_what_every_preset_is(toy):
    about = yaml.safe_load((toy / "about.yaml").read_text())
    del about["presets"]["small"]
    (toy / "about.yaml").write_text(yaml.safe_dump(about))
    with pytest.raises(UserError, match=r"about.yaml.*presets.*needs small as well"):
        paper("toy")
