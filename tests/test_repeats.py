"""How many repeats a verdict would take: the least with which the rule itself would decide."""

import math
from statistics import fmean, stdev

import numpy as np
import pytest
from scipy.stats import t as student_t

from hypersphere.papers.claimed import places
from hypersphere.papers.plan import make_plan
from hypersphere.papers.undecided import ONLY_OTHERS, _cells, _price, _row, _urgency, _verdict, text
from hypersphere.reporting.cells import Cell, Item
from hypersphere.reporting.claims import comparisons_of
from hypersphere.reporting.comparisons import Comparison, comparisons
from hypersphere.reporting.repeats import MOST, to_judge, to_order
from hypersphere.reporting.verdicts import judge_item
from tests.toy import run_all

NOTHING = {"repeats": None, "trainings": None, "seconds": None}


def bounds(differences, n):
    half = student_t.ppf(0.95, n - 1) * stdev(differences) / math.sqrt(n)
    return fmean(differences) - half, fmean(differences) + half


@pytest.mark.parametrize("differences", [[0.1, 0.3, -0.1], [-2.0, -1.0, 0.5], [0.01, 0.2]])
def test_an_order_is_settled_by_the_least_number(differences):
    n = to_order(differences)
    low, high = bounds(differences, n)
    assert low > 0 or high < 0
    low, high = bounds(differences, n - 1)
    assert n == 3 or low <= 0 <= high


@pytest.mark.parametrize(("differences", "margin"), [([0.01, 0.05, -0.02], 0.03), ([1, 4, 5], 2)])
def test_a_verdict_is_settled_by_the_least_number(differences, margin):
    n = to_judge(differences, margin)

    def decided(n):
        low, high = bounds(differences, n)
        return (-margin <= low and high <= margin) or low > margin or high < -margin

    assert decided(n) and not decided(n - 1)


def test_how_often_the_number_suffices():
    """Little more than half the time, as docs/answers.md says: by what the repeats so far leave
    likely of mean and spread."""
    rng, often = np.random.default_rng(1), []
    for _ in range(400):
        seen = rng.normal(rng.uniform(-2, 2), 1, 3)
        n = to_order(seen.tolist())
        if n is None or not 3 < n <= 60:
            continue
        spread = np.sqrt(2 * seen.var(ddof=1) / rng.chisquare(2, 500))
        mean = rng.normal(seen.mean(), spread / math.sqrt(3))
        more = rng.normal(mean[:, None], spread[:, None], (500, n - 3))
        every = np.concatenate([np.tile(seen, (500, 1)), more], axis=1)
        t = every.mean(1) / (every.std(1, ddof=1) / math.sqrt(n))
        often.append(np.mean(np.abs(t) > student_t.ppf(0.95, n - 1)))
    assert len(often) > 100 and 0.5 < np.mean(often) < 0.65


def test_what_cannot_be_told():
    assert to_order([0.1]) is None and to_order([]) is None
    assert to_order([1.0, -1.0, 0.0]) is None  # a mean of zero is settled by no number
    assert to_order([math.nan, 1.0, 2.0]) is None
    assert to_judge([0.02 + 0.1, 0.02 - 0.1], 0.02) is None  # on the margin
    assert to_order([0.5, 0.5, 0.5]) == 3  # never fewer than a verdict takes
    assert to_order([1 + MOST, 1 - MOST]) is None


def an_item(**values):
    cells = tuple(
        Cell({"method": name}, "0.93", "", {str(i): v for i, v in enumerate(found)}, len(found),
             ("a" * 12,), "exact")
        for name, found in values.items()
    )  # fmt: skip
    return Item("toy", "table1", "t", "paper", "seed", 0.02, ("method",), (), cells)


def test_inconclusive_cells_and_open_comparisons_are_told():
    item = an_item(a=[0.90, 0.99, 0.95], b=[0.91, 0.93, 0.97], c=[0.93, 0.931, 0.929])
    verdicts = {cell.keys["method"]: judged.verdict for cell, judged in judge_item(item)}
    assert verdicts == {"a": "inconclusive", "b": "inconclusive", "c": "reproduced"}
    rows = _cells(item)
    assert [row["what"] for row in rows] == ["a", "b"] and all(row["n"] == 3 for row in rows)
    assert rows[0]["needs"] == to_judge([-0.03, 0.06, 0.02], 0.02)
    claim = {"item": "table1", "claim": "a > b", "tables": ["table1"],
             "greater": {"method": "a"}, "than": [{"method": "b"}]}  # fmt: skip
    other = claim | {"tables": ["table2"]}
    ((spec, found),) = comparisons_of("toy", [claim, other, {"item": "x", "claim": "y"}],
                                      {"table1": item})  # fmt: skip
    assert spec is claim and [each.outcome for each in found] == ["open"]
    assert found[0].needs == to_order([0.90 - 0.91, 0.99 - 0.93, 0.95 - 0.97])
    assert "a > b" not in text(rows) and "2 cells and comparisons" in text(rows)


def test_when_a_claim_would_be_decided():
    """Two thirds of its comparisons are enough."""
    supported, hopeless = Comparison("supported", 3, "seed"), Comparison("open", 3, "seed")
    soon, late = Comparison("open", 3, "seed", 5), Comparison("open", 3, "seed", 40)
    assert _verdict([supported, soon, late]) == "with about 5"
    assert _verdict([soon, soon, late]) == "with about 5"
    assert _verdict([soon, late, hopeless]) == "with about 40"
    assert _verdict([supported, hopeless, hopeless, late]) == "only with other runs"
    assert _verdict([supported, supported, late]) == "holds"


def test_what_is_to_agree_or_differ_somewhere_tells_its_needs_too():
    item = an_item(a=[0.90, 0.99, 0.95], b=[0.91, 0.93, 0.97])
    part = {"tables": ["table1"], "agrees": {"method": "a"}, "than": {"method": "b"}, "by": 0.03}
    (found,) = comparisons(part, {"table1": item}, "here")
    assert found.outcome == "open"
    assert found.needs == to_judge([0.90 - 0.91, 0.99 - 0.93, 0.95 - 0.97], 0.03)
    part = {"tables": ["table1"], "greater": {"method": "a"}, "than": {"method": "b"}, "any": True}
    (found,) = comparisons(part, {"table1": item}, "here")
    assert found.needs == to_order([0.90 - 0.91, 0.99 - 0.93, 0.95 - 0.97])


def test_what_deciding_a_claim_takes(toy, store):
    """As many trainings as one repeat of its cells has, times the repeats that it lacks."""
    plan = make_plan("quick", ["toy"], ["table1"])
    cells = [place.cell for place in places(plan) if not place.variant]
    assert len(cells) == 2 and len(plan.trainings()) == 4  # two class splits each
    supported, soon = Comparison("supported", 2, "split"), Comparison("open", 2, "split", 5)
    late, hopeless = Comparison("open", 2, "split", 40), Comparison("open", 2, "split")
    told = _price([supported, soon, late], cells, store)
    assert told == {"repeats": 3, "trainings": 6, "seconds": None}  # none has been trained yet
    run_all(plan, store)
    for record in store.records.values():  # ten seconds for each class that is trained on
        if record["identity"]["kind"] == "training":
            record["seconds"] = 10.0 * (10 - record["identity"]["split"]["num_unseen"])
    assert _price([supported, soon, late], cells, store) == told | {"seconds": 3 * (80.0 + 70.0)}
    assert _price([supported, supported, late], cells, store) == NOTHING  # it holds
    assert _price([supported, hopeless, hopeless, late], cells, store) == NOTHING  # other runs


def test_what_more_repeats_would_decide_comes_first():
    def row(what, n, needs, **more):
        return _row("p", "t", what, "seed", n, needs) | more

    cheap = row("claim: c", 3, 9, verdict="with about 9", repeats=1, trainings=2, seconds=120.0)
    dear = row("claim: d", 3, 4, verdict="with about 4", repeats=1, trainings=2, seconds=7200.0)
    others = row("claim: o", 3, 4, verdict=ONLY_OTHERS, **NOTHING)
    settled = row("claim: s", 3, 4, verdict="holds", **NOTHING)
    rows = [settled, others, row("never", 3, None), row("cell", 3, 5), dear, cheap]
    ordered = sorted(rows, key=_urgency)
    assert [each["what"].removeprefix("claim: ") for each in ordered] == [
        "c", "d", "cell", "o", "never", "s"
    ]  # fmt: skip
    told = text(ordered).splitlines()
    assert told[1].startswith(
        "  9 seeds (3 there; decided: with about 9, at most 2 trainings, 2 min"
    )
    assert "at most" not in told[-1]
