"""Verdicts on made-up numbers, worked out by hand with t(0.95, df=2) = 2.919986."""

import dataclasses
import math
import pickle

import pytest

from hypersphere.reporting.cells import Cell, Item
from hypersphere.reporting.declared import ByKey
from hypersphere.reporting.layout import margin_text
from hypersphere.reporting.verdicts import (
    by_interval,
    chance_note,
    claim_verdict,
    decimals,
    evidence,
    interval,
    judge,
    judge_item,
    paired,
    verdict_counts,
)

NAN = math.nan


def cell(values, published="0.90", planned=None, protocol="exact", key="a", std=""):
    numbers = {str(unit): value for unit, value in enumerate(values)}
    runs = tuple(f"r{unit}" for unit in numbers)
    count = len(values) if planned is None else planned
    return Cell({"row": key}, published, std, numbers, count, runs, protocol)


def item(*cells, unit="seed", preset="paper", margin=0.02):
    return Item("p", "table1", "t", preset, unit, margin, ("row",), (), tuple(cells))


def test_a_margin_for_each_metric():
    by_row = ByKey[float](by="row", words={"a": 0.02, "b": 0.1})
    both = item(cell([0.93, 0.93, 0.93]), cell([0.93, 0.93, 0.93], key="b"), margin=by_row)
    assert [row.margin for _, row in judge_item(both)] == [0.02, 0.1]
    assert [row.verdict for _, row in judge_item(both)] == ["differs", "reproduced"]
    with pytest.raises(ValueError, match="row: says nothing of 'c'"):
        item(cell([0.9], key="c"), margin=by_row)
    rest = ByKey[float](by="row", words={"a": 0.02}, otherwise=0.1)
    both = item(cell([0.93, 0.93, 0.93]), cell([0.93, 0.93, 0.93], key="b"), margin=rest)
    assert [row.margin for _, row in judge_item(both)] == [0.02, 0.1]
    assert margin_text(both) == "0.02 (a), 0.1 (others)"
    assert pickle.loads(pickle.dumps(both)) == both


def test_what_no_chance_enters_is_judged_at_the_printed_precision():
    """Whatever the table's unit is: thirty seeds that share one computation are one number."""
    same = dataclasses.replace(cell([0.9049] * 3), chance=False)
    other = dataclasses.replace(cell([0.906] * 3, key="b"), chance=False)
    whole = item(same, other, cell([0.906, 0.905, 0.904], key="c"))
    rows = [row for _, row in judge_item(whole)]
    assert [row.verdict for row in rows] == ["reproduced", "differs", "reproduced"]
    assert [row.n for row in rows] == [1, 1, 3] and rows[0].low is None
    assert [whole.unit_of(each) for each in whole.cells] == ["deterministic"] * 2 + ["seed"]
    assert "Of 1 cell judged by an interval" in chance_note(whole)


def test_interval_by_hand():
    # mean 0.01, sd 0.01, half width 2.919986 * 0.01 / sqrt(3) = 0.0168585
    low, high = interval([0.0, 0.01, 0.02])
    assert low == pytest.approx(0.01 - 0.0168585, abs=1e-7)
    assert high == pytest.approx(0.01 + 0.0168585, abs=1e-7)
    assert interval([0.1]) is None
    assert interval([0.1, NAN, 0.1]) is None


def test_reproduced_with_all_numbers():
    row = judge(cell([0.900, 0.905, 0.910]), "seed", 0.02)
    assert row.verdict == "reproduced"
    assert (row.ours, row.ours_std, row.n, row.difference) == (0.905, 0.005, 3, 0.005)
    assert (row.low, row.high) == (-0.003429, 0.013429)
    assert row.run_ids == ("r0", "r1", "r2")


@pytest.mark.parametrize("shift", [+1, -1])
def test_differs_on_either_side(shift):
    row = judge(cell([0.90 + shift * x for x in (0.10, 0.11, 0.12)]), "seed", 0.02)
    assert row.verdict == "differs"


def test_interval_that_straddles_the_margin_is_inconclusive():
    # -0.0069 .. 0.0269 reaches over 0.02 while its middle lies inside
    row = judge(cell([0.90, 0.91, 0.92]), "seed", 0.02)
    assert row.verdict == "inconclusive"
    assert row.low > -0.02 and row.high > 0.02


def test_a_bound_on_the_margin_counts_as_inside():
    # a constant difference of exactly the margin, through floating point noise
    assert judge(cell([0.92] * 3), "seed", 0.02).verdict == "reproduced"
    assert judge(cell([0.920002] * 3), "seed", 0.02).verdict == "differs"
    assert by_interval(3, 0.02, 0.03, 0.02) == "inconclusive"


def test_zero_variance_gives_a_point_interval():
    row = judge(cell([0.905] * 3), "seed", 0.02)
    assert (row.low, row.high, row.ours_std) == (0.005, 0.005, 0.0)
    assert row.verdict == "reproduced"


def test_two_runs_are_never_decided():
    same = judge(cell([0.9, 0.9]), "seed", 0.02)
    far = judge(cell([0.1, 0.1]), "seed", 0.02)
    assert (same.verdict, far.verdict) == ("inconclusive", "inconclusive")
    assert far.low == far.high == -0.8


def test_one_run_has_no_spread_and_no_interval():
    row = judge(cell([0.91]), "seed", 0.02)
    assert (row.ours, row.n, row.difference) == (0.91, 1, 0.01)
    assert (row.ours_std, row.low, row.high) == (None, None, None)
    assert row.verdict == "inconclusive"


@pytest.mark.parametrize("protocol", ["exact", "shortened", "substitute"])
def test_partial_runs_show_no_average(protocol):
    row = judge(cell([0.9, 0.9], planned=3, protocol=protocol), "seed", 0.02)
    assert (row.ours, row.ours_std, row.n, row.difference) == (None, None, 0, None)
    assert row.verdict == "not run"
    assert row.run_ids == ("r0", "r1")


def test_nothing_planned_is_not_run():
    assert judge(cell([], planned=0), "seed", 0.02).verdict == "not run"


def test_not_comparable_still_shows_the_difference():
    for protocol in ("shortened", "substitute"):
        row = judge(cell([0.905] * 3, protocol=protocol), "seed", 0.02)
        assert (row.verdict, row.difference, row.low) == ("not comparable", 0.005, 0.005)
    blank = judge(cell([0.905] * 3, published=""), "seed", 0.02)
    assert (blank.verdict, blank.ours, blank.difference) == ("not comparable", 0.905, None)


@pytest.mark.parametrize(
    ("values", "verdict", "ours"),
    [
        ([NAN, NAN, NAN], "reproduced", NAN),
        ([0.1, 0.2, 0.3], "differs", 0.2),
        ([NAN, 0.1, 0.3], "inconclusive", 0.2),
        ([NAN, NAN], "inconclusive", NAN),
    ],
)
def test_published_divergence(values, verdict, ours):
    row = judge(cell(values, published="NaN"), "seed", 0.02)
    assert row.verdict == verdict
    assert row.ours == pytest.approx(ours, nan_ok=True)
    assert (row.difference, row.low) == (None, None)


def test_our_divergence_where_the_paper_has_a_number():
    every = judge(cell([NAN] * 3), "seed", 0.02)
    assert every.verdict == "differs" and math.isnan(every.ours)
    # the row's own interval must give the same verdict
    assert by_interval(every.n, every.low, every.high, every.margin) == "differs"
    some = judge(cell([0.9, 0.9, NAN]), "seed", 0.02)
    assert some.verdict == "inconclusive" and math.isnan(some.ours)
    assert (some.ours_std, some.difference, some.low) == (None, None, None)
    assert judge(cell([NAN] * 2), "seed", 0.02).verdict == "inconclusive"


@pytest.mark.parametrize(
    ("ours", "published", "verdict"),
    [
        (0.0695, "0.069", "reproduced"),  # half-way: either rounding mode may have been used
        (0.0696, "0.069", "differs"),
        (0.0684, "0.069", "differs"),
        (53.4, "53", "reproduced"),
        (53.4, "53.0", "differs"),
        (0.0012, "1e-3", "reproduced"),
        (NAN, "0.9", "differs"),
        (NAN, "nan", "reproduced"),
    ],
)
def test_deterministic_is_compared_at_the_printed_precision(ours, published, verdict):
    assert judge(cell([ours], published=published), "deterministic", 0.0).verdict == verdict


def test_deterministic_on_other_data_is_not_comparable():
    row = judge(cell([0.9], protocol="substitute"), "deterministic", 0.0)
    assert row.verdict == "not comparable"


def test_decimals_as_printed():
    assert [decimals(text) for text in ("0.910", "53", "1e-3", "-0.5", "2.5E-2")] == [3, 0, 3, 1, 3]


def test_counts_and_chance():
    table = item(
        cell([0.9] * 3, key="a"),
        cell([0.5] * 3, key="b"),
        cell([0.9] * 2, key="c"),
        cell([0.9] * 3, key="d", protocol="shortened"),
        cell([], planned=3, key="e"),
    )
    assert verdict_counts(table) == {
        "reproduced": 1,
        "differs": 1,
        "inconclusive": 1,
        "not comparable": 1,
        "not run": 1,
    }
    # only a and b could have been decided: 2 * 0.05
    assert "Of 2 cells judged by an interval, up to 0.1 could be called reproduced" in chance_note(
        table
    )
    # a divergence has no interval, so the 5 % says nothing about it
    assert chance_note(item(cell([NAN] * 3, published="nan"))).startswith("No cell")
    assert chance_note(item(cell([], planned=3))).startswith("No cell")
    assert "no chance" in chance_note(item(cell([0.9]), unit="deterministic"))


def test_item_refuses_what_the_contract_forbids():
    with pytest.raises(ValueError, match="stands twice"):
        item(cell([0.9]), cell([0.9]))
    with pytest.raises(ValueError, match="substitute"):
        item(cell([0.9]), preset="quick")
    with pytest.raises(ValueError, match="unit 'fold'"):
        item(cell([0.9]), unit="fold")
    with pytest.raises(ValueError, match="names no run"):
        item(Cell({"row": "a"}, "0.9", "", {"0": 0.9}, 1, (), "exact"))
    with pytest.raises(ValueError, match="protocol"):
        cell([0.9], protocol="fast")


def units(*values):
    return {str(unit): value for unit, value in enumerate(values)}


def test_paired_by_hand():
    base = units(0.5, 0.6, 0.7)
    assert paired(units(0.6, 0.71, 0.82), base) == "supported"
    assert paired(base, units(0.6, 0.71, 0.82)) == "contradicted"
    # mean 0.01, bound 0.01 - 0.0168585 < 0
    assert paired(units(0.5, 0.61, 0.72), base) == "open"


def test_paired_looks_at_differences_of_the_same_unit():
    # the two overlap widely, yet a is above b in every unit by about the same
    assert paired(units(0.11, 0.52, 0.915), units(0.10, 0.51, 0.90)) == "supported"


def test_paired_edges():
    base = units(0.1, 0.2, 0.3)
    assert paired(units(0.2, 0.3, 0.4), base) == "supported"
    assert paired(base, units(0.2, 0.3, 0.4)) == "contradicted"
    assert paired(base, base) == "open"
    assert paired(units(0.9, 0.9), base) == "open"
    assert paired({"0": 0.9, "1": 0.9, "7": 0.9}, base) == "open"
    assert paired(units(0.9, 0.9, NAN), base) == "open"
    # the same whole number thrice: of counts that is no spread, and chance in 1 of 8
    assert paired(units(4, 4, 4), units(3, 3, 3)) == "open"
    assert paired(units(4, 4, 4, 4, 4), units(3, 3, 3, 3, 3)) == "supported"
    # a stricter level: mean .11, bound .11 - 2.92 or 20 times .0058
    assert paired(units(0.6, 0.71, 0.82), units(0.5, 0.6, 0.7), 0.05) == "supported"
    assert paired(units(0.6, 0.71, 0.82), units(0.5, 0.6, 0.7), 0.001) == "open"
    # noise of the last bit is no difference
    assert paired(units(*[0.1 + 0.2] * 3), units(0.3, 0.3, 0.3)) == "open"


@pytest.mark.parametrize(
    ("supported", "contradicted", "left_open", "verdict"),
    [
        (2, 0, 1, "holds"),
        (1, 0, 1, "not tested"),
        (0, 2, 1, "fails"),
        (1, 1, 1, "partly"),
        (13, 1, 2, "partly"),
        (10, 0, 6, "not tested"),
        (11, 0, 5, "holds"),
        (0, 0, 0, "not tested"),
    ],
)
def test_two_thirds_rule(supported, contradicted, left_open, verdict):
    outcomes = ["supported"] * supported + ["contradicted"] * contradicted + ["open"] * left_open
    assert claim_verdict(outcomes) == verdict


def test_evidence_sentence():
    outcomes = ["supported"] * 13 + ["contradicted"] + ["open"] * 2
    wanted = "13 supported, 1 contradicted, 2 open of 16, n = 3 splits"
    assert evidence(outcomes, 3, "split") == wanted
    assert evidence(["open"], 1, "seed").endswith("1 open of 1, n = 1 seed")
