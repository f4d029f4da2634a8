"""From records to files: verdicts on made-up records, and the committed answer byte for byte."""

import csv
import filecmp
import shutil

import numpy as np
import pytest

from hypersphere import paths
from hypersphere.errors import UserError
from hypersphere.execute import run_nodes
from hypersphere.papers.board import with_board
from hypersphere.papers.plan import make_plan
from hypersphere.papers.render import collect, judged_items, render
from hypersphere.papers.spec import paper_keys
from hypersphere.reporting.verdicts import judge_item
from hypersphere.store import Store, artifacts
from tests.test_cli import made_up_record

CHECKOUT = paths.published_dir().parent


def with_numbers(store, item, number):
    """Records for every node of `item`, saying `number(keys, unit)` under every metric asked."""
    for cell in item.cells:
        for unit, node in cell.nodes.items():
            record = store.records.setdefault(node.id, made_up_record(node) | {"metrics": {}})
            for name in cell.metrics.values():
                record["metrics"][name.partition("/")[2]] = number(cell.keys, _int(unit))


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
    """Runs are shared by everybody's results; the arrays of one that is not collected here yet are
    read where it ran."""
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
    collect(plan, store, "quick")
    render(plan, store, "quick")
    assert (store.results / "quick/figures/nsl/figure1.png").exists()
    (artifact,) = (store.results / "quick/artifacts").rglob("*.npz")
    artifact.write_bytes(b"other")
    with pytest.raises(UserError, match="not what its record was made with"):
        render(plan, store, "quick")


def test_readme_board_is_current():
    text = (CHECKOUT.parent / "README.md").read_text()
    store = Store(results=CHECKOUT)
    assert with_board(text, store) == text, "run `make board` and commit README.md"
