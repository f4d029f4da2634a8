"""Why a cell differs: factors as declared, one at a time, told from records."""

import csv

import pytest

from hypersphere.answers.explain import flat
from hypersphere.config import Evaluation
from hypersphere.papers.ablations import sweeps
from hypersphere.papers.factors import factors
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
