"""The plan on a made-up paper: sharing, parents, draws, computations, done, missing, stale."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from itertools import product

import pytest
import yaml

from hypersphere import paths
from hypersphere.errors import UserError
from hypersphere.execute import run_nodes
from hypersphere.papers import plan as planning
from hypersphere.papers import spec as declarations
from hypersphere.papers.plan import make_plan
from hypersphere.papers.render import judged_items
from hypersphere.papers.status import item_rows, plan_summary
from hypersphere.store import Store

ABOUT = {
    "title": "A toy",
    "citation": "nobody 2026",
    "url": "https://example.org",
    "items": ["table1", "table2", "table3", "table4", "table9", "figure1"],
    "decisions": [],
    "deviations": [],
    "presets": {
        "quick": {"protocol": "substitute", "note": "digits", "seeds": [0, 1]},
        "small": {"protocol": "shortened", "note": "shorter", "seeds": [0]},
        "paper": {"protocol": "exact", "note": "whole", "seeds": [0, 1, 2]},
    },
    "scope": {"quick": "toy", "small": "toy", "paper": "toy"},
}
TABLE = {
    "rows": ["k"],
    "columns": [],
    "unit": "split",
    "margin": 0.02,
    "select": {"k": "split.num_unseen"},
}
ITEMS = {
    # base trainings, and the same ones again under another metric
    "table1": TABLE | {"title": "base", "metric": "novel_classes/all/raw/disjoint/unseen"},
    "table2": TABLE | {"title": "shared", "metric": "training/loss", "metric_label": "loss"},
    # a tuned run that starts from a base run of table1
    "table3": TABLE
    | {
        "title": "tuned",
        "metric": "training/loss",
        "overrides": {"optimizer.lr": 1e-4, "schedule.epochs": 1},
        "parent": {"optimizer.lr": 1e-3, "schedule.epochs": 2},
    },
    # draws given one base model
    "table4": TABLE
    | {
        "title": "draws",
        "unit": "draw",
        "scale": 100.0,
        "metric": "novel_classes/{shots}/raw/disjoint/unseen",
        "words": {"shots": "1"},
        "presets": {"quick": {"seeds": [0]}},
    },
    # numbers without training
    "table9": {
        "title": "computed",
        "rows": ["statistic"],
        "columns": [],
        "unit": "deterministic",
        "margin": 0.01,
        "metric": "toy/{statistic}",
        "computation": {"_target_": "tests.test_plan.computation", "name": "toy", "size": 3},
        "presets": {"quick": {"protocol": "exact", "note": "the same in every preset"}},
    },
}


def computation(*, size: int, seed: int = 0):
    """A made-up computation: what a placement of prototypes is."""
    return {"size": float(size), "half": size / 2 + seed}


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A checkout's conf/ and published/ with one more paper, `toy`; quick trains for 2 epochs."""
    conf, published = tmp_path / "conf", tmp_path / "published"
    shutil.copytree(paths.conf_dir(), conf)
    shutil.copytree(paths.published_dir(), published)
    folder = conf / "paper" / "toy"
    folder.mkdir()
    (folder / "about.yaml").write_text(yaml.safe_dump(ABOUT))
    (folder / "claims.yaml").write_text("[]")
    for name, item in ITEMS.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(item | {"items": {name: None}}))
    for preset in declarations.PRESETS:
        (folder / f"{preset}.yaml").write_text(
            "# @package _global_\nbackbone: {filters: [4], dim: 8}\nschedule: {epochs: 2}\n"
        )
    (published / "toy").mkdir()
    rows = "".join(f"toy,t,{k},accuracy,0.9,,\n" for k in (2, 3))
    for name in ITEMS:
        (published / "toy" / f"{name}.csv").write_text(
            "paper,table,k,metric,value,std,note\n" + rows
            if name != "table9"
            else "paper,table,statistic,metric,value,std,note\n"
            "toy,t,size,number,3.0,,\ntoy,t,half,number,1.4,,\n"
        )
    (published / "toy" / "figure_claims.csv").write_text("paper,item,claim,check\n")
    monkeypatch.setattr(paths, "conf_dir", lambda: conf)
    monkeypatch.setattr(paths, "published_dir", lambda: published)
    from hypersphere.config.compose import _compose

    caches = (declarations.paper, planning._composed, _compose)
    for cache in caches:
        cache.cache_clear()
    yield folder
    for cache in caches:
        cache.cache_clear()


def declare(folder, name, item):
    """Put an item in the place of the one of that name."""
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(item | {"items": {name: None}}))
    declarations.paper.cache_clear()


def run_all(plan, store):
    outcomes = list(run_nodes(plan.missing(store), store, 1, lambda line: None))
    assert [outcome.error for outcome in outcomes] == [""] * len(outcomes)
    return outcomes


def test_trainings_are_shared_between_items(toy):
    plan = make_plan("quick", ["toy"], ["table1", "table2"])
    # two K*, two seeds; table2 reads the same trainings
    assert len(plan.trainings()) == 4
    assert plan.requested() == 8
    assert len(plan.nodes) == 8  # and one evaluation each, for table1


def test_parents_come_first_and_are_shared(toy):
    plan = make_plan("quick", ["toy"], ["table1", "table3"])
    assert len(plan.trainings()) == 8  # the bases of table3 are table1's trainings
    order = list(plan.nodes)
    tuned = [node for node in plan.trainings() if node.parent]
    assert len(tuned) == 4
    assert all(order.index(node.parent) < order.index(node.id) for node in tuned)


def test_whole_toy_paper_runs_once_and_renders(toy):
    store = Store()
    plan = make_plan("quick", ["toy"])
    assert run_all(plan, store)
    assert plan.missing(Store()) == []
    items = {item.spec.name: judged_items(item, store)[0] for item in plan.items}

    tuned = store.records[next(node.id for node in plan.trainings() if node.parent)]
    base = store.records[tuned["parent"]]
    # starting from the base's weights, the tuned run's first epoch is far better than the base's
    assert tuned["epochs"][0]["loss"] < 0.5 * base["epochs"][0]["loss"]

    draws = items["table4"].cells[0]
    assert sorted(draws.values) == sorted(f"0/{draw}" for draw in range(10))
    assert draws.planned == 10 and draws.complete
    assert 10 < min(draws.values.values()) <= max(draws.values.values()) <= 100

    computed = items["table9"]
    assert [cell.values for cell in computed.cells] == [{"value": 3.0}, {"value": 1.5}]
    from hypersphere.reporting.verdicts import judge_item

    assert [judged.verdict for _, judged in judge_item(computed)] == ["reproduced", "differs"]


def test_a_failing_parent_fails_its_children_and_nothing_else(toy, monkeypatch):
    store = Store()
    plan = make_plan("quick", ["toy"], ["table1", "table3"])
    victim = next(node.parent for node in plan.trainings() if node.parent)
    import hypersphere.execute as execute

    real = execute.run_node

    def failing(node, *rest):
        if node.id == victim:
            raise RuntimeError("made up")
        return real(node, *rest)

    monkeypatch.setattr(execute, "run_node", failing)
    outcomes = {o.node.id: o.error for o in run_nodes(plan.missing(store), store, 1, print)}
    children = {node.id for node in plan.nodes.values() if node.parent == victim}
    assert "made up" in outcomes[victim]
    assert {node_id for node_id, error in outcomes.items() if error} == {victim} | children
    assert all("parent" in outcomes[child] for child in children)
    monkeypatch.undo()


def killed():
    """A computation whose process dies, as one without memory would."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_is_reported_not_raised(toy):
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    from hypersphere import execute
    from hypersphere.config import Component, Computation

    nodes = [Computation(Component(f"killed {i}", killed, {})) for i in range(3)]
    outcomes = list(run_nodes(nodes, Store(), 2, print))
    assert len(outcomes) == 3
    assert all("was killed" in outcome.error for outcome in outcomes)
    # and what would have been handed to the processes after that
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        with pytest.raises(BrokenProcessPool):
            pool.submit(killed).result()
        assert "was killed" in execute._result(execute._submit(pool, nodes[0]), nodes[0]).error


def test_partial_results_are_counted_never_averaged(toy):
    store = Store()
    plan = make_plan("quick", ["toy"], ["table2"])
    done = plan.missing(store)[0]
    list(run_nodes([done], store, 1, lambda line: None))
    cells = judged_items(plan.items[0], store)[0].cells
    assert [len(cell.values) for cell in cells] == [1, 0]
    assert not any(cell.complete for cell in cells)
    row = item_rows(plan, store)[0]
    assert (row["done"], row["planned"], row["complete"]) == (1, 4, False)


def test_expected_time_follows_past_records(toy):
    store = Store()
    plan = make_plan("quick", ["toy"], ["table2"])
    assert plan_summary(plan, store, 1)["seconds"] is None  # nothing to judge by
    first, *rest = plan.missing(store)
    list(run_nodes([first], store, 1, lambda line: None))
    store.records[first.id]["seconds"] = 8.0  # 2 epochs with 8 of 10 classes
    summary = plan_summary(plan, store, 2)
    # one more with K* = 2 and two with K* = 3 (7 of 10 classes), two processes
    assert summary["seconds"] == pytest.approx(8.0 + 2 * 7.0)
    assert summary["hours"] * 3600 == pytest.approx(11.0, abs=2.0)


def test_revision_makes_old_records_stale(toy, monkeypatch):
    store = Store()
    plan = make_plan("quick", ["toy"], ["table2"])
    run_all(plan, store)
    from hypersphere.heads import NormalizedSoftmax

    monkeypatch.setattr(NormalizedSoftmax, "revision", 2)
    declarations.paper.cache_clear()
    planning._composed.cache_clear()
    again = make_plan("quick", ["toy"], ["table2"])
    assert len(again.missing(store)) == 4
    assert sorted(planning.stale(again, store).values()) == sorted(plan.nodes)
    assert plan_summary(again, store, 1)["stale"] == 4


def test_diverged_runs_give_nan(toy):
    record = {"run_id": "x", "diverged": True, "metrics": {}}
    assert math.isnan(planning.value_of(record, "loss", "seed", 1.0)[""])


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("table1.yaml", {"titel": "x"}, "titel: no such key; did you mean 'title'?"),
        ("table1.yaml", {"margin": "wide"}, "margin='wide'"),
        ("table1.yaml", {"margin": -1}, "margin=-1"),
        ("table1.yaml", {"metric": "novel_clases/x"}, "'novel_clases'"),
        ("table1.yaml", {"metric": "training/{shot}"}, "'shot'"),
        ("table1.yaml", {"select": {"kk": "split.num_unseen"}}, "select.kk: no such column"),
        ("table1.yaml", {"select": {"k": "split.num_unsen"}}, "did you mean 'split.num_unseen'?"),
        ("table1.yaml", {"select": {"k": {"2": {}}}}, "says nothing of '3'"),
        ("table1.yaml", {"items": None}, "needs `items`"),
        (
            "table1.yaml",
            {"variants": {"x": {"select": {"kk": "seed"}}}},
            "select.kk: no such column",
        ),
        (
            "table1.yaml",
            {"variants": {"x": {"selct": {"k": 1}, "words": {}}}},
            "did you mean 'select'?",
        ),
        ("table1.yaml", {"variants": {"x": {"overrides": {"sed": 1}}}}, "sed: no such key"),
        (
            "table1.yaml",
            {"margin": {"by": "k", "words": {"2": 1}}},
            "margin: k: says nothing of '3'",
        ),
        ("table1.yaml", {"margin": {"by": "k", "words": {"2": 0}}}, "table1.margin={"),
        (
            "table1.yaml",
            {"words": {"w": {"by": "k", "words": {"2": "x"}}}},
            "words.w: k: says nothing of '3'",
        ),
        (
            "table1.yaml",
            {"largest": {"by": "k", "words": {"2": {"tables": ["table8"]}}}},
            "no item 'table8'",
        ),
        (
            "table1.yaml",
            {"largest": {"by": "k", "words": {"2": {"tables": ["table4"]}}}},
            "by split as well",
        ),
        (
            "table1.yaml",
            {"largest": {"by": "k", "words": {"2": {"tables": ["table2"], "where": {"k": 9}}}}},
            "no k ['9']",
        ),
        ("about.yaml", {"citatoin": "x"}, "did you mean 'citation'?"),
    ],
)
def test_mistakes_in_declarations_are_one_clear_line(toy, file, change, says):
    path = toy / file
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | change))
    declarations.paper.cache_clear()
    with pytest.raises(UserError) as error:
        make_plan("quick", ["toy"], ["table1"])
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_plan_is_the_same_in_another_process():
    code = (
        "import json; from hypersphere.papers.plan import make_plan;"
        "print(json.dumps(sorted(make_plan('small', ['nsl']).nodes)))"
    )
    there = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONHASHSEED": "12345"},
    )  # fmt: skip
    assert json.loads(there.stdout) == sorted(make_plan("small", ["nsl"]).nodes)


def test_an_item_that_has_no_file_yet(toy):
    with pytest.raises(UserError, match="toy figure1: not built yet .built: table1, table2"):
        make_plan("quick", ["toy"], ["figure1"])


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


def test_numbers_show_before_all_trainings_are_done(toy):
    """With more trainings than processes, an evaluation does not wait behind all of them."""
    plan, store = make_plan("quick", ["toy"], ["table1"]), Store()
    outcomes = list(run_nodes(plan.missing(store), store, 2, print))
    assert not [outcome.error for outcome in outcomes if outcome.error]
    kinds = [type(outcome.node).__name__ for outcome in outcomes]
    assert kinds.count("Training") == kinds.count("Evaluation") == 4
    assert "Training" in kinds[kinds.index("Evaluation") :]
