"""Why a cell differs: factors as declared, one at a time, told from records."""

import csv
import filecmp
import json
import shutil

import pytest
import yaml

from hypersphere import cli
from hypersphere.answers.explain import flat
from hypersphere.config import Evaluation
from hypersphere.errors import UserError
from hypersphere.papers import render as rendering
from hypersphere.papers.ablations import NoRuns, sweep, sweeps
from hypersphere.papers.factors import factors
from hypersphere.papers.plan import make_plan
from hypersphere.papers.render import ablations, collect, judged_items, render
from hypersphere.papers.spec import PRESETS, paper, paper_keys
from hypersphere.reporting.ablation import (
    Ablation,
    effect,
    findings,
    ranked,
    with_those_beside,
)
from hypersphere.reporting.ablation_files import csv_text, markdown_text, rows
from hypersphere.reporting.cells import Cell, Item
from hypersphere.store import Store, read_lines
from tests.test_cli import made_up_record
from tests.toy import TABLE, declare

DECLARED = [key for key in paper_keys() if paper(key).ablations]


# What the papers declare


def trainings(cell):
    return [n.training if isinstance(n, Evaluation) else n for n in cell.nodes.values()]


def test_nsl_and_hpn_declare_factors():
    assert {"nsl", "hpn"} <= set(DECLARED)
    items = {name for factor in factors(paper("nsl")) for name in factor.items}
    assert items == {"table1", "table2", "table3", "table4"}
    assert {name for factor in factors(paper("hpn")) for name in factor.items} == {"table1"}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("key", DECLARED)
def test_every_setting_composes_and_differs_from_the_others(key, preset):
    found = sweeps(paper(key), preset)
    assert len({each.stem for each in found}) == len(found) > 10
    for each in found:
        by_factor = {}
        for variant, (factor, _) in each.settings.items():
            shown = each.cell.only(variant)
            asked = (tuple(node.id for node in shown.nodes.values()), shown.metrics[""])
            by_factor.setdefault(factor, []).append((asked, variant in each.declared))
        for factor, settings in by_factor.items():
            assert len({asked for asked, _ in settings}) == len(settings), (each.stem, factor)
            # the declared setting stands among them, and once
            assert sum(declared for _, declared in settings) == 1, (each.stem, factor)


@pytest.mark.parametrize("key", DECLARED)
def test_one_factor_at_a_time(key):
    """What differs from the declared run is what the setting says, and nothing else."""
    for each in sweeps(paper(key), "small"):
        base = [flat(training.identity()) for training in trainings(each.cell.only(""))]
        variants = each.item.spec.variants
        for name in each.settings:
            said = set(variants[name].overrides)
            for chosen in variants[name].select.values():
                said |= {k for overrides in chosen.values() for k in overrides}
            parts = {k.partition(".")[0] for k in said}
            with_it = [flat(training.identity()) for training in trainings(each.cell.only(name))]
            for one, other in zip(base, with_it, strict=True):
                changed = {k for k in one.keys() | other.keys() if one.get(k) != other.get(k)}
                assert {k.partition(".")[0] for k in changed} <= parts, (each.stem, name)


def test_a_whole_schedule_is_the_run_of_the_preset_that_has_it():
    """30 epochs in `small` are the very runs of `paper`, and are judged as such."""
    small, whole = (
        {each.stem: each for each in sweeps(paper("nsl"), preset)}["table4--5-seen-nsl"]
        for preset in ("small", "paper")
    )
    asked = small.cell.only("epochs: 30").nodes
    assert {u: n.id for u, n in asked.items()} == {u: n.id for u, n in whole.cell.nodes.items()}
    assert whole.cell.only("epochs: 5").nodes["0"].id == small.cell.nodes["0"].id
    assert small.item.spec.variants["epochs: 30"].protocol == "exact"


# Numbers by hand

MARGIN = 0.02


def cell(values, published="0.8", protocol="exact", runs=("a",)):
    return Cell({"k": "2"}, published, "", dict(values), len(values), runs, protocol)


def item(of, margin=MARGIN, name="table1"):
    return Item("toy", name, "A table", "paper", "split", margin, ("k",), (), (of,))


def told(base, settings, **more):
    """settings: (factor, label) -> values."""
    whole = item(base, **more)
    effects = tuple(
        effect(whole, cell(values, base.published, base.protocol), *name, "", is_declared=False)
        for name, values in settings.items()
    )
    why = {factor: "nothing is said" for factor, _ in settings}
    return Ablation(whole, "table1--2", "k = 2", 3, why, effects)


BASE = {"0": 0.6, "1": 0.7, "2": 0.65}  # mean .65, gap -.15


@pytest.mark.parametrize(
    ("values", "outcome", "change", "rest", "closed"),
    [
        ({"0": 0.75, "1": 0.85, "2": 0.8}, "closes", 0.15, 0.0, 1.0),
        ({"0": 0.73, "1": 0.83, "2": 0.78}, "closes", 0.13, -0.02, 0.866667),  # at the margin
        ({"0": 0.72, "1": 0.82, "2": 0.77}, "narrows", 0.12, -0.03, 0.8),
        ({"0": 0.62, "1": 0.72, "2": 0.67}, "little change", 0.02, -0.13, 0.133333),
        ({"0": 0.5, "1": 0.6, "2": 0.55}, "widens", -0.1, -0.25, -0.666667),
        ({"0": 0.9, "1": 1.0, "2": 0.95}, "overshoots", 0.3, 0.15, 2.0),
        ({"0": 0.6, "1": float("nan"), "2": 0.65}, "diverged", None, None, None),
        ({}, "not run", None, None, None),
    ],
)
def test_outcomes_by_hand(values, outcome, change, rest, closed):
    found = told(cell(BASE), {("S", "8"): values}).effects[0]
    assert found.outcome == outcome
    assert (found.change, found.rest) == (pytest.approx(change), pytest.approx(rest))
    assert found.closed == pytest.approx(closed)


def test_settings_are_paired_by_unit():
    """Split 2 alone: the gap of that split counts, not the mean of all; without it the change
    would be .1."""
    found = told(cell(BASE), {("S", "8"): {"2": 0.75, "7": 0.1}}).effects[0]
    assert (found.n, found.gap, found.change) == (1, pytest.approx(-0.15), pytest.approx(0.1))
    found = told(cell({"0": 0.5, "1": 0.7}), {("S", "8"): {"1": 0.75}}).effects[0]
    assert (found.gap, found.change, found.low) == (pytest.approx(-0.1), pytest.approx(0.05), None)
    assert found.closed == pytest.approx(0.5)


def test_the_interval_is_that_of_the_differences():
    """Changes .1, .12, .11: .11 +- 2.920 * .01 / sqrt(3); two splits give none."""
    found = told(cell(BASE), {("S", "8"): {"0": 0.7, "1": 0.82, "2": 0.76}}).effects[0]
    half = 2.919986 * 0.01 / 3**0.5
    assert (found.low, found.high) == (
        pytest.approx(0.11 - half, abs=1e-5),
        pytest.approx(0.11 + half, abs=1e-5),
    )
    assert told(cell(BASE), {("S", "8"): {"0": 0.7, "1": 0.82}}).effects[0].low is None


def shifted(by):
    return {unit: value + by for unit, value in BASE.items()}


def test_the_factor_that_leaves_least_comes_first():
    found = told(
        cell(BASE),
        {
            ("margin", "1"): shifted(-0.1),
            ("epochs", "5"): {},
            ("scale S", "4"): shifted(0.05),
            ("scale S", "8"): shifted(0.14),
            ("precision", "fp32"): shifted(0.25),  # beyond: .1 is left
        },
    )
    assert [factor for factor, _ in ranked(found.effects)] == [
        "scale S", "precision", "margin", "epochs",
    ]  # fmt: skip
    # a factor's own settings stay in their order
    assert [row[:2] for row in rows(found)][:2] == [("scale S", "4"), ("scale S", "8")]
    said = findings(found)
    assert said[0] == (
        "One factor closes the gap to within the margin of ± 0.02: scale S = 8 (leaves -0.010 of"
        " -0.150)."
    )
    assert "Past the published number: precision = fp32 (leaves +0.100 of -0.150)." in said
    assert "1 of 5 settings are not run yet." in said


def test_no_factor_closes_the_gap():
    found = told(cell(BASE), {("a", "1"): shifted(0.1), ("b", "1"): shifted(0.05)})
    assert findings(found) == [
        "No factor closes the gap to within the margin of ± 0.02; nearest: a = 1 (leaves -0.050 of"
        " -0.150)."
    ]
    worse = told(cell(BASE), {("a", "1"): shifted(-0.1), ("b", "1"): shifted(0.4)})
    said = findings(worse)
    assert said[0].endswith("± 0.02, and none makes it smaller.")
    assert said[1].startswith("Past the published number: b = 1")


def test_where_there_is_no_gap():
    found = told(cell(shifted(0.15)), {("a", "1"): shifted(0.14), ("b", "1"): shifted(0.05)})
    assert [each.outcome for each in found.effects] == ["stays within", "opens"]
    said = findings(found)
    assert said[0].startswith("There is no gap to close") and "out of it: b = 1" in said[0]
    assert [each.closed for each in found.effects] == [None, None]
    blank = told(cell(BASE, published=""), {("a", "1"): shifted(0.1)})
    assert "prints no number" in findings(blank)[0] and blank.effects[0].outcome == "measured"
    apart = told(cell(BASE, published="nan"), {("a", "1"): shifted(0.1)})
    assert "prints a divergence" in findings(apart)[0]
    assert "nothing to compare" in findings(told(cell({}), {("a", "1"): shifted(0.1)}))[0]


def test_hints_and_protocols_are_called_so():
    found = told(cell(BASE, protocol="shortened"), {("a", "1"): {"0": 0.8}})
    said = " ".join(findings(found))
    assert "rest on 1 split: fewer than 3 are a hint" in said
    assert "Protocol shortened: the gap is not comparable" in said
    text = markdown_text(found)
    assert "they choose nothing" in text and "n/c" in text
    row = list(csv.DictReader(csv_text(found).splitlines()))[0]
    assert row["verdict"] == "not comparable" and row["outcome"] == "closes"
    assert (row["gap"], row["change"], row["paired_n"]) == ("-0.2", "0.2", "1")


def test_what_a_setting_does_to_the_other_cells_of_its_runs():
    seen = told(cell(BASE), {("S", "4"): shifted(0.15)})
    unseen = told(cell(shifted(0.15)), {("S", "4"): shifted(-0.1)}, name="table3")
    other = told(cell(BASE, runs=("b",)), {("S", "4"): shifted(0.1)}, name="table9")
    found = with_those_beside([seen, unseen, other])
    assert (
        "S = 4 in the other cells of these runs: table3, k = 2: opens (leaves -0.250 of +0.000)."
        in findings(found[0])
    )
    assert not any("table9" in line for line in findings(found[0]))


# A sweep that is trained

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
