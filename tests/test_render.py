"""From records to files: verdicts on made-up records, and the committed answer byte for byte."""

import csv
import difflib
import filecmp
import shutil
from itertools import product

import numpy as np
import pytest

from hypersphere import cli, paths
from hypersphere.errors import UserError
from hypersphere.execute import run_nodes
from hypersphere.papers import spec as declarations
from hypersphere.papers.board import PAGES, boards, with_boards
from hypersphere.papers.plan import make_plan
from hypersphere.papers.render import collect, judged_items, render
from hypersphere.papers.rendered import unchanged
from hypersphere.papers.spec import paper_keys
from hypersphere.reporting.tables import markdown_text as tables_markdown
from hypersphere.reporting.verdicts import judge_item
from hypersphere.store import Store, artifacts
from tests.test_cli import made_up_record

CHECKOUT = paths.published_dir().parent


def with_numbers(store, item, number):
    """Records for every node of `item`, saying `number(keys, unit)` under every metric asked."""
    for cell, variant in product(item.cells, ("", *item.spec.variants)):
        shown = cell.only(variant)
        for unit, node in shown.nodes.items():
            record = store.records.setdefault(node.id, made_up_record(node) | {"metrics": {}})
            name = shown.metrics[""].partition("/")[2]
            record["metrics"][name] = number(cell.keys, _int(unit))


def _int(unit):
    return int(unit) if unit.isdigit() else 0  # a value without chance


def test_verdicts_of_made_up_records():
    """Offsets from the printed value, worked out by hand: the 90 % t-interval of three values
    m-s, m, m+s is m +- 2.920 * s / sqrt(3) = m +- 1.686 s; the margin is 0.02."""
    offset = {
        "2": (0.005, 0.005),  # 0.005 +- 0.0084: inside
        "3": (0.050, 0.010),  # 0.050 +- 0.0169: wholly outside
        "4": (0.050, 0.030),  # 0.050 +- 0.0506: across the margin
        "5": (-0.01, 0.010),  # -0.01 +- 0.0169: reaches below -0.02
    }
    store = Store()
    plan = make_plan("paper", ["nsl"], ["table2"])
    published = {tuple(c.keys.values()): float(c.published) for c in plan.items[0].cells}

    def number(keys, unit):
        mean, spread = offset[keys["k_unseen"]]
        return published[tuple(keys.values())] + mean + (unit - 1) * spread

    with_numbers(store, plan.items[0], number)
    verdicts = {
        (cell.keys["k_unseen"], cell.keys["method"]): judged.verdict
        for cell, judged in judge_item(judged_items(plan.items[0], store)[0])
    }
    expected = {"2": "reproduced", "3": "differs", "4": "inconclusive", "5": "inconclusive"}
    assert verdicts == {
        (k, m): v for k, v in expected.items() for m in ("nsl", "triplet", "contrastive")
    }


def test_each_cell_reads_its_own_number():
    """Table 4's groups, methods and variants come from different metrics and runs."""
    store = Store()
    plan = make_plan("paper", ["nsl"], ["table4"])
    metrics = {}
    for cell in plan.items[0].cells:
        key = (cell.keys["class_group"], cell.keys["method"])
        metrics[key] = cell.metrics
        assert all(
            node.training.split().unseen for node in cell.nodes.values()
        ) and cell.nodes.keys() == {"0", "1", "2"}
        training = cell.nodes["1"].training
        assert training.components["split"].params["num_unseen"] == int(cell.keys["k_unseen"])
        assert training.components["split"].params["permutation"] == 1
    assert metrics["seen", "nsl"][""] == "novel_classes/all/renormalized/joint/seen"
    assert metrics["unseen", "nsl"]["raw"] == "novel_classes/all/raw/joint/unseen"
    assert metrics["unseen", "triplet"][""] == "novel_classes/all/raw/joint/unseen"
    assert metrics["seen", "contrastive"]["5-shot"] == "novel_classes/5/raw/joint/seen"
    with_numbers(store, plan.items[0], lambda keys, unit: int(keys["k_unseen"]) / 10)
    values = {
        cell.keys["k_unseen"]: set(cell.values.values())
        for cell in judged_items(plan.items[0], store)[0].cells
    }
    assert values == {"2": {0.2}, "3": {0.3}, "4": {0.4}, "5": {0.5}}


def test_values_in_the_text_come_from_the_tables_they_sum_up():
    """Within each split the largest gain over the better baseline, and of epochs 4 and 5: by hand."""
    store = Store()
    plan = make_plan("paper", ["nsl"])
    items = {item.spec.name: item for item in plan.items}

    def accuracy(keys, unit):
        if keys["method"] == "nsl":  # .6, but at one place of table 3 .8, .9, 1.0
            there = keys.get("class_group") == "seen" and keys["k_unseen"] == "3"
            return 0.8 + unit / 10 if there and keys["dataset"] == "cifar10" else 0.6
        return {"triplet": 0.5, "contrastive": 0.4}[keys["method"]]

    def ratio(keys, unit):  # 1.4, 1.5 and, in split 2, more after epoch 4 than after epoch 5
        if keys["k_unseen"] == "8" and keys["epoch"] in "45":
            return 1.4 + unit / 10 - (unit == 2) * 0.3 * (keys["epoch"] == "5")
        return 9.0

    with_numbers(store, items["figure10"], ratio)
    tables = [items[f"table{i}"] for i in range(1, 5)]
    for table in tables:
        with_numbers(store, table, accuracy)
    item, tuned = judged_items(items["text"], store)
    gain, epochs = item.cells
    assert gain.values == pytest.approx({"0": 60, "1": 80, "2": 100})
    assert epochs.values == pytest.approx({"0": 1.4, "1": 1.5, "2": 1.6})
    assert gain.complete and gain.protocol == "exact"
    runs = {node.training.id for table in tables for c in table.cells for node in c.nodes.values()}
    assert set(gain.run_ids) == runs and len(gain.run_ids) == len(runs)
    assert set(epochs.run_ids) == {
        node.training.id
        for cell in items["figure10"].cells
        for node in cell.nodes.values()
        if cell.keys["k_unseen"] == "8"
    }
    rows = [judged for _, judged in judge_item(item)]
    assert [(row.margin, row.published) for row in rows] == [(5, "81"), (0.05, "1.55")]
    # 80 - 81 +- 1.686 * 20, and 1.5 - 1.55 +- 1.686 * .1
    assert (rows[0].low, rows[0].high) == pytest.approx((-34.72, 32.72), abs=0.01)
    assert rows[1].verdict == rows[0].verdict == "inconclusive"
    assert "5 (max_gain_over_baselines_pct), 0.05 (accuracy" in tables_markdown(item)
    # the tuned baselines are other runs, of which the primary table knows nothing
    assert set(tuned.cells[0].run_ids) != runs and tuned.cells[1].run_ids == epochs.run_ids
    # one run less, and no number is shown
    del store.records[tables[2].cells[0].nodes["1"].id]
    gain = judged_items(items["text"], store)[0].cells[0]
    assert not gain.complete and set(gain.values) == {"0", "2"} and gain.planned == 3


def test_what_a_text_item_needs():
    plan = make_plan("small", ["nsl"], ["text"])
    whole = make_plan("small", ["nsl"], ["table1", "table2", "table3", "table4", "text"])
    assert len(plan.items) == 1 and set(plan.nodes) == set(whole.nodes)
    assert {t.data.name for t in plan.trainings()} == {"cifar10", "fashion_mnist"}
    assert {t.components["split"].params["num_unseen"] for t in plan.trainings()} == {2, 3, 4, 5, 8}
    assert plan.items[0].datasets == {"cifar10", "fashion_mnist"}


def test_quick_numbers_are_visibly_not_comparable(tmp_path):
    store = Store()
    plan = make_plan("quick", ["nsl"])
    for item in plan.items:
        with_numbers(store, item, lambda keys, unit: 0.9)
    collect(plan, store, "quick")
    render(plan, store, "quick")
    folder = store.results / "quick"
    with open(folder / "tables/nsl/table2.csv") as file:
        assert {row["verdict"] for row in csv.DictReader(file)} == {"not comparable"}
    for name in ("tables/nsl/table2.md", "tables/nsl/table2.tex", "index.html"):
        assert "not comparable with the paper" in (folder / name).read_text()
    with open(folder / "claims.csv") as file:
        assert {row["verdict"] for row in csv.DictReader(file)} == {"not tested"}


@pytest.mark.parametrize("preset", ["small", "paper"])
def test_committed_results_render_again_byte_for_byte(preset, monkeypatch):
    """A clone makes the committed tables, pictures, claims and page from the committed records and
    artifacts alone."""
    committed = CHECKOUT / preset
    if not (committed / "records.jsonl").exists():
        pytest.skip(f"results/{preset} is not committed")
    store = Store()
    (store.results / preset).mkdir(parents=True)
    shutil.copy(committed / "records.jsonl", store.results / preset)
    shutil.copytree(committed / "artifacts", store.results / preset / "artifacts")
    monkeypatch.setenv("HYPERSPHERE_DATA", "/nonexistent")
    store, plan = Store(), make_plan(preset, paper_keys())
    collect(plan, store, preset)
    render(plan, store, preset)
    fresh = store.results / preset
    files = [f.relative_to(committed) for f in committed.rglob("*") if f.is_file()]
    assert len(files) > 20
    different = filecmp.cmpfiles(committed, fresh, files, shallow=False)
    assert different[1:] == ([], []), "run `hypersphere render` and commit what it writes"
    assert len(list(f for f in fresh.rglob("*") if f.is_file())) == len(files)


def test_a_run_that_ends_after_the_records_were_collected_is_drawn_next_time():
    """What is drawn can be drawn again from the records beside it."""
    plan, store = make_plan("quick", ["nsl"]), Store()
    for item in plan.items:
        with_numbers(store, item, lambda keys, unit: 0.5)
    (cell, *_) = next(item for item in plan.items if item.spec.name == "table2").cells
    late = store.records.pop(cell.nodes["0"].id)
    collect(plan, store, "quick")
    store.write(late)
    for verdict in ("not run", "not comparable"):
        render(plan, store, "quick")
        with open(store.results / "quick/tables/nsl/table2.csv") as file:
            assert next(csv.DictReader(file))["verdict"] == verdict
        collect(plan, store, "quick")


def test_a_clone_has_what_presets_share_without_run_folders(tmp_path):
    """Figure 1 is the same in every preset: quick draws it from what is committed for small."""
    store = Store()
    shutil.copytree(CHECKOUT / "small", store.results / "small")
    store, plan = Store(), make_plan("quick", ["nsl"], ["figure1"])
    assert plan.missing(store) == []  # its record came with the clone
    collect(plan, store, "quick")
    render(plan, store, "quick")
    quick = store.results / "quick"
    assert (quick / "figures/nsl/figure1.png").exists()
    assert list(quick.glob("artifacts/*/diagram.npz"))


def test_every_unit_has_its_number_and_its_arrays():
    store = Store()
    (planned,) = make_plan("quick", ["nsl"], ["figure2"]).items
    with_numbers(store, planned, lambda keys, unit: unit / 10)
    for record in store.records.values():
        scatter = {"embeddings": np.full((2, 2), int(record["run_id"], 16) % 97)}
        folder = store.folder(record["run_id"]) / artifacts.FOLDER
        record["artifacts"] = artifacts.save(folder, {"scatter": scatter})
    for cell in judged_items(planned, store)[0].cells:
        assert cell.values == {"0": 0.0, "1": 0.1, "2": 0.2}
        assert len({int(cell.arrays[unit]["embeddings"][0, 0]) for unit in "012"}) == 3


def test_artifacts_of_runs_that_were_made_for_other_results(monkeypatch, tmp_path):
    """Runs are shared by everybody's results; one that is not collected here is not drawn here."""
    plan = make_plan("quick", ["nsl"], ["figure1"])
    first = Store()
    (outcome,) = run_nodes(plan.missing(first), first, 1, lambda line: None)
    assert not outcome.error
    monkeypatch.setenv("HYPERSPHERE_RESULTS", str(tmp_path / "other results"))
    store = Store()
    other = make_plan("quick", ["nsl"], ["table2"])
    collect(other, store, "quick")
    render(other, store, "quick")  # the page and the claims look at every item
    assert not (store.results / "quick/artifacts").exists()
    page = store.results / "quick/index.html"
    assert outcome.node.id not in page.read_text()
    collect(plan, store, "quick")
    render(plan, store, "quick")
    assert (store.results / "quick/figures/nsl/figure1.png").exists()
    assert outcome.node.id in page.read_text()
    (artifact,) = (store.results / "quick/artifacts").rglob("*.npz")
    artifact.write_bytes(b"other")
    with pytest.raises(UserError, match="not what its record was made with"):
        render(plan, store, "quick")


def test_the_boards_are_current():
    found = boards(Store(results=CHECKOUT))
    texts = [(CHECKOUT.parent / page).read_text() for page in PAGES]
    for name in found:
        assert any(f"<!-- {name}:begin -->" in text for text in texts), name
    for text in texts:
        lines, wanted = (page.splitlines(True) for page in (text, with_boards(text, found)))
        changed = "".join(difflib.unified_diff(lines, wanted, n=0))
        assert not changed, f"run `make board` and commit it:\n{changed}"


def test_nothing_is_drawn_twice(toy, capsys):
    """A second call leaves every file alone; a changed file, declaration or record is drawn."""
    words = ["run", "--paper", "toy", "--workers", "1"]

    def written():
        assert cli.main(words) == 0
        folder = paths.results_dir() / "quick"
        return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.suffix != ".jsonl"}

    first = written()
    said = capsys.readouterr().out.splitlines()[-1]
    assert written() == first and capsys.readouterr().out.splitlines()[-1] == said
    table = paths.results_dir() / "quick" / "tables" / "toy" / "table1.md"
    text = table.read_bytes()
    table.write_text("spoilt")
    again = written()
    assert table.read_bytes() == text and again[table] != first[table]
    assert written() == again
    table.unlink()
    assert written().keys() == first.keys()
    about = toy / "about.yaml"
    about.write_text(about.read_text().replace("A toy", "Another toy"))
    declarations.paper.cache_clear()
    written()
    assert "Another toy" in table.read_text()


def test_part_of_a_preset_does_not_stand_for_the_whole(toy):
    assert cli.main(["run", "--paper", "toy", "--item", "table1", "--workers", "1"]) == 0
    plan, store = make_plan("quick", ["toy"]), Store()
    assert unchanged(make_plan("quick", ["toy"], ["table1"]), store, "quick") is not None
    assert unchanged(plan, store, "quick") is None
