"""A sweep of factors that is trained, on the toy paper."""

import filecmp
import json
import shutil

import pytest
import yaml

from hypersphere import cli
from hypersphere.errors import UserError
from hypersphere.papers import render as rendering
from hypersphere.papers.ablations import NoRuns, sweep, sweeps
from hypersphere.papers.factors import factors
from hypersphere.papers.plan import make_plan
from hypersphere.papers.render import ablations, collect, judged_items, render
from hypersphere.papers.spec import paper
from hypersphere.store import Store, read_lines
from tests.test_cli import made_up_record
from tests.toy import TABLE, declare

FACTORS = [
    {
        "name": "scale S",
        "why": "[U] no value is printed",
        "items": ["table1"],
        "where": {"k": [2]},
        "settings": {
            "8": {"overrides": {"head.scale": 8.0}},
            "16": {"overrides": {"head.scale": 16.0}},
        },
    },
    {
        "name": "mean",
        "why": "[P] equation 4",
        "items": ["table1"],
        "settings": {"raw": {"weights": "raw"}, "unit": "unit"},
    },
]
WITH_WORDS = TABLE | {
    "title": "base",
    "metric": "novel_classes/all/{weights}/disjoint/unseen",
    "words": {"weights": "raw"},
    "variants": {"unit": {"weights": "renormalized"}},
}


@pytest.fixture
def ablated(toy, monkeypatch):
    """The toy with factors; it is the only paper that is rendered."""
    declare(toy, "table1", WITH_WORDS)
    (toy / "ablations.yaml").write_text(yaml.safe_dump(FACTORS))
    monkeypatch.setattr(rendering, "paper_keys", lambda: ["toy"])
    return toy


def hypersphere(capsys, *words):
    status = cli.main(list(words))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


SWEEP = ("ablate", "toy", "table1", "2", "--workers", "1")


@pytest.mark.slow
def test_a_sweep_is_trained_told_and_rendered_again_from_records(ablated, capsys, tmp_path):
    status, out, _ = hypersphere(capsys, *SWEEP, "--dry-run", "--json")
    plan = json.loads(out)
    # the declared run of split 0 and the one with S = 8; the mean is another number of the first
    assert status == 0 and plan["plan"]["trainings_missing"] == 2
    assert [each["outcome"] for each in plan["settings"]].count("not run") == 2
    assert not (tmp_path / "results").exists()

    status, out, err = hypersphere(capsys, *SWEEP, "--json")
    found = json.loads(out)
    assert status == 0 and "tables, claims and" in err
    by_name = {(each["factor"], each["setting"]): each for each in found["settings"]}
    store = Store()
    assert sum(r["kind"] == "training" for r in store.records.values()) == 2
    assert by_name["scale S", "16"]["outcome"] == by_name["mean", "raw"]["outcome"] == "declared"
    ours = by_name["scale S", "8"]
    assert ours["paired_n"] == 1 and ours["differs"] == "head.scale = 8.0"
    base = by_name["mean", "raw"]["values"]["0"]
    assert ours["change"] == pytest.approx(ours["values"]["0"] - base, abs=1e-6)
    assert ours["gap"] == pytest.approx(base - 0.9, abs=1e-6)
    assert by_name["mean", "unit"]["n"] == 1

    # three splits are not declared in quick, two are: the second one is trained alone
    status, out, err = hypersphere(capsys, *SWEEP, "--seeds", "2", "--factor", "SCALE s")
    assert status == 0 and "2 training" not in out and "scale S" in out
    assert sum(r["kind"] == "training" for r in Store().records.values()) == 4
    assert "mean" not in out.partition("outcome")[2]

    results = tmp_path / "results" / "quick"
    files = sorted(p.name for p in (results / "ablations" / "toy").iterdir())
    assert files == ["table1--2.csv", "table1--2.md"]
    assert "ablations/toy/table1--2.md" in (results / "tables/toy/table1.md").read_text()
    page = (results / "index.html").read_text()
    assert "Why cells differ" in page and 'id="toy-table1--2"' in page

    # a fresh clone: no runs, and not even the sweep's files
    before = tmp_path / "before"
    shutil.copytree(results, before)
    shutil.rmtree(tmp_path / "runs")
    shutil.rmtree(results / "ablations")
    plan = make_plan("quick", ["toy"])
    collect(plan, Store(), "quick")
    render(plan, Store(), "quick")
    for name in (*(f"ablations/toy/{file}" for file in files), "records.jsonl"):
        assert filecmp.cmp(before / name, results / name, shallow=False), name
    assert (before / "tables/toy/table1.md").read_text() == (
        results / "tables/toy/table1.md"
    ).read_text()


def test_a_sweep_of_words_alone_trains_nothing_new_and_is_kept_up_to_date(
    ablated, capsys, tmp_path
):
    """Its runs are the table's: only its file tells that it was asked for."""
    store = Store()
    plan = make_plan("quick", ["toy"], ["table1"])
    for node in plan.nodes.values():
        numbers = {"loss": 0.5, "1/raw/disjoint/unseen": [0.5] * 10}
        for number, weights in ((0.5, "raw"), (0.9, "renormalized")):
            numbers[f"all/{weights}/disjoint/unseen"] = number
        store.write(made_up_record(node) | {"metrics": numbers})
    collect(plan, store, "quick")
    render(plan, store, "quick")
    results = tmp_path / "results" / "quick"
    assert not (results / "ablations").exists()
    status, out, _ = hypersphere(capsys, "ablate", "toy", "table1", "3", "--seeds", "2")
    assert status == 0 and "One factor closes the gap" in out and "mean = unit" in out
    # nothing was trained, and yet the page and the table's notes know of it
    assert 'id="toy-table1--3"' in (results / "index.html").read_text()
    assert "table1--3.md" in (results / "tables/toy/table1.md").read_text()
    file = results / "ablations" / "toy" / "table1--3.csv"
    made = file.read_text()
    file.write_text("begun")
    render(plan, Store(), "quick")
    assert file.read_text() == made and "closes" in made
    assert not file.with_name("table1--2.csv").exists()


def test_the_records_of_a_sweep_stay(ablated, store):
    whole = sweeps(paper("toy"), "quick")[0]
    for node in whole.nodes().values():
        store.write(made_up_record(node) | {"metrics": {"all/raw/disjoint/unseen": 0.5,
                                                        "all/renormalized/disjoint/unseen": 0.5}})  # fmt: skip
    plan = make_plan("quick", ["toy"], ["table2"])
    lines = store.results / "quick" / "records.jsonl"
    collect(plan, store, "quick")
    assert not whole.nodes().keys() <= read_lines(lines)[0].keys()  # nobody asked for it
    (store.results / "quick" / "ablations" / "toy").mkdir(parents=True)
    (store.results / "quick" / "ablations" / "toy" / f"{whole.stem}.csv").touch()
    collect(plan, store, "quick")
    assert whole.nodes().keys() <= read_lines(lines)[0].keys()
    shutil.rmtree(store.results / "quick" / "ablations")
    collect(plan, store, "quick")
    assert whole.nodes().keys() <= read_lines(lines)[0].keys()


def test_a_cell_that_shows_the_best_of_several_settings(toy):
    """Each setting chooses for itself; the first unit is that of all alternatives."""
    choose = {"among": [{"optimizer.lr": 1e-3}, {"optimizer.lr": 1e-2}], "by": "training/loss"}
    declare(toy, "table2", TABLE | {"title": "x", "metric": "training/loss", "choose": choose})
    factor = FACTORS[0] | {"items": ["table2"]}
    (toy / "ablations.yaml").write_text(yaml.safe_dump([factor]))
    (whole,) = sweeps(paper("toy"), "quick")
    assert whole.declared == {"scale S: 16"}
    one = whole.of_units(1)
    assert [len(each.nodes()) for each in (whole, one)] == [8, 4]
    store = Store()
    for node in whole.nodes().values():
        lr = node.identity()["optimizer"]["lr"]
        # the larger rate has the larger loss, which is what is chosen here
        loss = 0.5 + 10 * lr + (node.identity()["head"]["scale"] == 8.0)
        store.records[node.id] = made_up_record(node) | {"metrics": {"loss": loss}}
    (found,) = ablations([whole], store)
    changed = {each.setting: each.change for each in found.effects}
    assert changed["8"] == pytest.approx(1.0)
    assert judged_items(whole.item, store)[0].cells[0].values == {"0": 0.6, "1": 0.6}


# Mistakes


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"items": ["table11"]}, "no item 'table11'; did you mean 'table1'?"),
        ({"settings": {"x": "unti"}}, "table1 has no variant 'unti'; did you mean 'unit'?"),
        ({"where": {"kk": [2]}}, "where.kk: no such column; did you mean 'k'?"),
        ({"where": {"k": [7]}}, "where.k: no cell has '7'"),
        ({"setings": {}}, "setings: no such key; did you mean 'settings'?"),
        ({"settings": {"x": {"overrides": {"head.scal": 1}}}}, "head.scal: no such key; did you"),
        ({"settings": {"x": {"unit": "seed", "overrides": {}}}}, "unit of its own"),
        ({"name": "mean"}, "two factors called 'mean'"),
    ],
)
def test_mistakes_in_a_declaration_are_one_line(ablated, capsys, change, says):
    (ablated / "ablations.yaml").write_text(yaml.safe_dump([FACTORS[0] | change, FACTORS[1]]))
    status, out, err = hypersphere(capsys, *SWEEP, "--dry-run")
    assert (status, out) == (2, "")
    assert says in err and "ablations.yaml" in err or "no item" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["toy", "table1"], "toy table1: names 2 cells; choose one (k: 2, 3)"),
        (["toy", "table1", "9"], "no cell '9'"),
        (["toy", "table1", "2", "--factor", "scael S"], "did you mean 'scale S'?"),
        (["toy", "table1", "2", "--seeds", "3"], "toy table1 has 2 splits in preset quick"),
        (["toy", "table2", "2"], "concerns this cell (there are some for: table1)"),
        (["toy", "table1", "2", "--preset", "smal"], "did you mean 'small'?"),
    ],
)
def test_bad_words_are_one_line(ablated, capsys, words, says):
    status, out, err = hypersphere(capsys, "ablate", *words)
    assert (status, out) == (2, "")
    assert says in err and err.count("\n") == 1
    assert not (Store().results / "quick").exists()


def test_a_cell_without_runs_of_its_own(ablated):
    nsl = paper("nsl")
    keys = {
        "where": "abstract",
        "dataset": "all",
        "method": "nsl",
        "metric": "max_gain_over_baselines_pct",
    }
    with pytest.raises(NoRuns, match="the largest of other cells"):
        sweep(nsl, nsl.item("text"), "quick", keys, [])
    with pytest.raises(UserError, match="list of factors"):
        (ablated / "ablations.yaml").write_text("scale: 3")
        from hypersphere.papers import spec as declarations

        declarations.paper.cache_clear()
        factors(paper("toy"))
