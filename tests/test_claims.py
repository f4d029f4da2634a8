"""Claims on made-up cells: which comparisons a spec makes, and what they decide."""

import csv
import dataclasses
import math

import pytest

from hypersphere.papers.spec import PRESETS, paper, paper_keys
from hypersphere.reporting.cells import Cell, Item
from hypersphere.reporting.claims import COLUMNS, judge_claims, parts_of, write_claims
from hypersphere.reporting.comparisons import comparisons
from hypersphere.reporting.declared import Largest
from hypersphere.reporting.derived import largest

BEATS = {"item": "table1-2", "claim": "New beats old everywhere", "check": "4/4"}
FALLS = {"item": "table1", "claim": "Accuracy falls with k", "check": "monotone"}
DRAWN = {"item": "figure1", "claim": "Diagram", "check": "drawn schematic"}
LATER = {"item": "figure2", "claim": "Cosines are high", "check": "cos > 0.9"}
PUBLISHED = [BEATS, FALLS, DRAWN, LATER]

# means by (k, method): new is above old except at k = 10, and falls with k except from 2 to 10
MEANS = {("2", "new"): 0.6, ("2", "old"): 0.5, ("10", "new"): 0.7, ("10", "old"): 0.8}


def table(name="table1", preset="paper", means=MEANS, units=3, planned=3):
    cells = []
    for (k, method), mean in means.items():
        values = {str(unit): mean + 0.01 * unit for unit in range(units)}
        runs = tuple(f"{k}{method}{unit}" for unit in values)
        protocol = "substitute" if preset == "quick" else "exact"
        cells.append(Cell({"k": k, "method": method}, "0.5", "", values, planned, runs, protocol))
    return Item("p", name, "t", preset, "split", 0.02, ("k",), ("method",), tuple(cells))


def beats(*tables, **more):
    part = {"tables": list(tables), "greater": {"method": "new"}, "than": [{"method": "old"}]}
    return {"item": "table1-2", "claim": BEATS["claim"], **part, **more}


def judged(specs, items, preset="paper", published=PUBLISHED):
    rows = judge_claims("p", preset, published, specs, items, "real data, exact, small net")
    return {row["claim"]: row for row in rows}


def test_every_published_claim_gets_a_row():
    rows = judged([], {})
    assert list(rows) == [row["claim"] for row in PUBLISHED]
    assert {row["verdict"] for row in rows.values()} == {"not tested"}
    assert rows[LATER["claim"]]["evidence"] == "its items are not built yet"
    assert "drawing" in rows[DRAWN["claim"]]["evidence"]
    named_only = judged([{"item": "figure2", "claim": LATER["claim"]}], {})
    assert named_only[LATER["claim"]]["evidence"] == "its items are not built yet"


def test_greater_pairs_cells_that_agree_elsewhere():
    row = judged([beats("table1")], {"table1": table()})[BEATS["claim"]]
    assert row["verdict"] == "partly"
    assert row["evidence"] == "1 supported, 1 contradicted, 0 open of 2, n = 3 splits"
    assert (row["n"], row["scope"]) == ("3", "real data, exact, small net")


def test_where_narrows_and_numbers_match_text():
    row = judged([beats("table1", where={"k": 2})], {"table1": table()})[BEATS["claim"]]
    assert (row["verdict"], row["evidence"][:30]) == ("holds", "1 supported, 0 contradicted, 0")
    row = judged([beats("table1", where={"k": [10]})], {"table1": table()})[BEATS["claim"]]
    assert row["verdict"] == "fails"


def test_a_preset_may_set_out_to_compare_less():
    """Added to `where`, other keys in the place of the part's; other presets see nothing of it."""
    fewer = {"small": {"where": {"k": 2}}, "quick": {"by": 0.5}}
    spec = beats("table1", where={"method": ["new", "old"]}, presets=fewer)
    evidence = {
        preset: judged([spec], {"table1": table(preset=preset)}, preset)[BEATS["claim"]]["evidence"]
        for preset in ("paper", "small", "quick")
    }
    assert evidence["paper"] == "1 supported, 1 contradicted, 0 open of 2, n = 3 splits"
    assert evidence["small"] == "1 supported, 0 contradicted, 0 open of 1, n = 3 splits"
    assert evidence["quick"].startswith("0 supported, 2 contradicted")


@pytest.mark.parametrize("key", paper_keys())
def test_presets_of_declared_claims_exist(key):
    for spec in paper(key).claims:
        for part in [spec, *spec.get("parts", [])]:
            assert set(part.get("presets", {})) <= set(PRESETS)


def test_unfinished_tables_count_as_open():
    # table2 has three values of five planned: its two comparisons stay open, so 1 of 3 is decided
    whole = {key: mean for key, mean in MEANS.items() if key[0] == "2"}
    items = {"table1": table(means=whole), "table2": table("table2", planned=5)}
    row = judged([beats("table1", "table2")], items)[BEATS["claim"]]
    assert row["evidence"] == "1 supported, 0 contradicted, 2 open of 3, n = 3 splits"
    assert (row["verdict"], row["n"]) == ("not tested", "3")


def test_n_is_blank_when_nothing_is_decided():
    row = judged([beats("table1")], {"table1": table(units=2, planned=2)})[BEATS["claim"]]
    assert row["evidence"] == "0 supported, 0 contradicted, 2 open of 2, n = 2 splits"
    assert (row["verdict"], row["n"]) == ("not tested", "")


def test_n_is_the_smallest_of_the_decided():
    items = {"table1": table(units=4), "table2": table("table2", units=3)}
    row = judged([beats("table1", "table2")], items)[BEATS["claim"]]
    assert row["n"] == "3"


def falls(word="falls", **more):
    return {"item": "table1", "claim": FALLS["claim"], "tables": ["table1"], word: "k", **more}


def test_falls_steps_along_the_numeric_order():
    means = {("10", "new"): 0.4, ("2", "new"): 0.8, ("3", "new"): 0.6, ("3", "old"): 0.1}
    items = {"table1": table(means=means)}
    # as text 10 sorts before 2, which would contradict one of the two steps
    row = judged([falls()], items)[FALLS["claim"]]
    assert row["evidence"] == "2 supported, 0 contradicted, 0 open of 2, n = 3 splits"
    assert row["verdict"] == "holds"
    assert judged([falls("rises")], items)[FALLS["claim"]]["verdict"] == "fails"


def test_parts_are_pooled():
    spec = beats("table1")
    part = {key: spec[key] for key in ("tables", "greater", "than")}
    both = {"item": "table1-2", "claim": BEATS["claim"]} | {
        "parts": [part, {"tables": ["table1"], "rises": "k", "where": {"method": "old"}}]
    }
    row = judged([both], {"table1": table()})[BEATS["claim"]]
    assert row["evidence"].startswith("2 supported, 1 contradicted, 0 open of 3")


def test_quick_decides_nothing_but_counts():
    row = judged([beats("table1")], {"table1": table(preset="quick")}, "quick")[BEATS["claim"]]
    assert row["verdict"] == "not tested"
    assert row["evidence"] == (
        "1 supported, 1 contradicted, 0 open of 2, n = 3 splits; quick decides no claim"
    )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (beats("table1") | {"claim": "New beats old"}, "nearest is 'table1-2 New beats old every"),
        (beats("table9"), "no table 'table9'"),
        (beats("table1", where={"depth": 2}), "no key 'depth'"),
        (beats("table1", where={"k": 7}), "no k .'7'."),
        (beats("table1", greater={"method": "newer"}), "no method .'newer'."),
        (falls("falls", where={"k": 2}), "no two cells to compare"),
        ({"item": "table1", "claim": FALLS["claim"], "tables": ["table1"], "falls": "m"}, "no key"),
        (falls(rises="k"), "one of"),
        (falls(grater={}), "got .*grater"),
        ({"item": "table1", "claim": FALLS["claim"], "tables": [], "falls": "k"}, "no `tables`"),
    ],
)
def test_a_wrong_spec_says_what_is_wrong(spec, message):
    with pytest.raises(ValueError, match=message):
        judged([spec], {"table1": table()})


def test_a_claim_has_one_spec():
    with pytest.raises(ValueError, match="two specs"):
        judged([beats("table1"), beats("table1")], {"table1": table()})


def test_write_keeps_other_papers_and_replaces_its_own(tmp_path):
    path = tmp_path / "claims.csv"

    def row(paper, item, verdict):
        return dict.fromkeys(COLUMNS, "") | {"paper": paper, "item": item, "verdict": verdict}

    write_claims([row("b", "figure10", "holds"), row("b", "figure2", "holds")], path)
    write_claims([row("a", "table1", "fails")], path)
    write_claims([row("b", "figure10", "partly"), row("b", "figure2", "partly")], path)
    with path.open(newline="") as file:
        found = [(each["paper"], each["item"], each["verdict"]) for each in csv.DictReader(file)]
    assert found == [
        ("a", "table1", "fails"),
        ("b", "figure2", "partly"),
        ("b", "figure10", "partly"),
    ]
    assert path.read_text().splitlines()[0] == "paper,item,claim,verdict,evidence,n,scope"
    assert [each.name for each in tmp_path.iterdir()] == ["claims.csv"]


# Other kinds of comparisons


def outcome(part, items, preset="paper"):
    """The evidence of a claim of one part."""
    spec = {"item": "table1-2", "claim": BEATS["claim"], **part}
    return judged([spec], items, preset)[BEATS["claim"]]["evidence"]


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ({"above": 0.55}, "3 supported, 1 contradicted"),  # .6, .5, .7, .8 and two hundredths
        ({"below": 0.55}, "1 supported, 3 contradicted"),
        ({"above": 0.55, "where": {"k": 10}}, "2 supported, 0 contradicted"),
        ({"greater": {"method": "new"}, "than": {"method": "old"}, "by": -0.2},
         "2 supported, 0 contradicted"),
        ({"greater": {"method": "new"}, "than": {"method": "old"}, "by": 0.05},
         "1 supported, 1 contradicted"),
        # new - old is .1 at k = 2 and -.1 at 10: either way is a difference
        ({"differs": {"method": "new"}, "than": {"method": "old"}, "by": 0.05},
         "2 supported, 0 contradicted"),
        ({"differs": {"method": "new"}, "than": {"method": "old"}, "by": 0.15},
         "0 supported, 2 contradicted"),
        ({"agrees": {"method": "new"}, "than": {"method": "old"}, "by": 0.05},
         "0 supported, 2 contradicted"),
        ({"agrees": {"method": "new"}, "than": {"method": "old"}, "by": 0.15},
         "2 supported, 0 contradicted"),
        # new gains .2 on old at k = 2 and loses .125 at 10, while both rise
        ({"falls": "k", "gain": {"method": "new"}, "over": [{"method": "old"}]},
         "1 supported, 0 contradicted"),
        ({"rises": "k", "gain": {"method": "new"}, "over": [{"method": "old"}]},
         "0 supported, 1 contradicted"),
        # over k: new .1, old .3; over methods: .1 and .1
        ({"wider": {"over": "k", "where": {"method": "old"}}, "than": {"over": "method"}},
         "1 supported, 0 contradicted"),
        ({"wider": {"over": "method"}, "than": {"over": "k"}}, "0 supported, 1 contradicted"),
        ({"wider": {"over": "method"}, "than": {"over": "k"}, "by": -0.15},
         "1 supported, 0 contradicted"),
        # new over old: .2 at k = 2, less than nothing at 10
        ({"gains": {"method": "new"}, "over": [{"method": "old"}], "reaches": 0.15},
         "1 supported, 0 contradicted"),
        ({"gains": {"method": "new"}, "over": [{"method": "old"}], "reaches": 0.81},
         "0 supported, 1 contradicted"),
    ],
)  # fmt: skip
def test_kinds_of_comparisons(part, says):
    means = {k: m for k, m in MEANS.items()}
    items = {"table1": table(means=means)}
    # units that do not move together, so that differences have a spread
    assert outcome({"tables": ["table1"], **part}, items).startswith(says)


def test_somewhere_is_one_comparison_of_all_tables():
    """A gain that one of several tables reaches is reached, whatever the others say."""
    low = {key: mean + (0.1 if key[1] == "old" else 0.0) for key, mean in MEANS.items()}
    items = {"table1": table(), "table2": table("table2", means=low)}
    part = {"gains": {"method": "new"}, "over": [{"method": "old"}], "reaches": 0.15}
    assert outcome({"tables": ["table2"], **part}, items).startswith("0 supported, 1 contradicted")
    both = {"tables": ["table1", "table2"], **part}
    assert outcome(both, items).startswith("1 supported, 0 contradicted, 0 open of 1")
    part = {"greater": {"method": "new"}, "than": {"method": "old"}, "any": True}
    both = {"tables": ["table1", "table2"], **part}
    assert outcome(both, items).startswith("1 supported, 0 contradicted, 0 open of 1")


def test_somewhere_among_many_is_held_to_its_share_of_the_level():
    """A lead that one comparison would support is soon found somewhere by chance."""

    def cells(places):
        for k in range(places):
            for method, extra in (("new", 0.1), ("old", 0.0)):
                ahead = extra if k == 0 else 0.0
                spread = (0.05, -0.05, 0.06) if method == "new" else (0.0, 0.0, 0.0)
                values = {str(i): 0.5 + ahead + s for i, s in enumerate(spread)}
                keys = {"k": str(k), "method": method}
                yield Cell(keys, "", "", values, 3, ("a", "b", "c"), "exact")

    part = {"tables": ["t"], "greater": {"method": "new"}, "than": [{"method": "old"}], "any": True}
    found = {}
    for places in (1, 12):
        item = Item("p", "t", "t", "paper", "seed", 0.02, ("k",), ("method",), (*cells(places),))
        (one,) = comparisons(part, {"t": item}, "here")
        found[places] = one.outcome
    assert found == {1: "supported", 12: "open"}


@pytest.mark.parametrize("methods", [("old", "older"), ("older", "old")])
def test_a_gain_over_a_run_that_diverged_is_open(methods):
    means = MEANS | {("2", "older"): 0.4, ("10", "older"): 0.4}
    cells = tuple(
        dataclasses.replace(cell, values={**cell.values, "1": math.nan})
        if cell.keys["method"] == "older"
        else cell
        for cell in table(means=means).cells
    )
    item = dataclasses.replace(table(means=means), cells=cells)
    over = [{"method": each} for each in methods]
    part = {"tables": ["table1"], "gains": {"method": "new"}, "over": over, "reaches": 0.0}
    assert outcome(part, {"table1": item}).startswith("0 supported, 0 contradicted, 1 open")


@pytest.mark.parametrize(
    ("part", "decides"),
    [
        ({"above": 0.1}, False),
        ({"below": 9}, False),
        ({"gains": {"method": "new"}, "over": [{"method": "old"}], "reaches": 0.0}, False),
        ({"above": 0.1, "shortened": True}, True),
        ({"rises": "k"}, True),
        ({"rises": "k", "shortened": False}, False),  # needs the whole course
        # by how much: two networks near chance are never far apart
        ({"greater": {"method": "new"}, "than": {"method": "old"}, "by": -0.2}, False),
        (
            {
                "greater": {"method": "new"},
                "than": {"method": "old"},
                "by": -0.2,
                "shortened": True,
            },
            True,
        ),
        ({"agrees": {"method": "new"}, "than": {"method": "old"}, "by": 0.15}, False),
        ({"wider": {"over": "k"}, "than": {"over": "method"}}, True),
        ({"wider": {"over": "k"}, "than": {"over": "method"}, "by": -0.1}, False),
    ],
)
def test_a_shortened_training_decides_orderings_alone(part, decides):
    whole = table()
    cells = tuple(dataclasses.replace(cell, protocol="shortened") for cell in whole.cells)
    short = dataclasses.replace(whole, cells=cells)
    assert outcome({"tables": ["table1"], **part}, {"table1": whole}).startswith("0 supp") is False
    found = outcome({"tables": ["table1"], **part}, {"table1": short})
    assert found.startswith("0 supported, 0 contradicted") is not decides


def test_numbers_without_chance_are_compared_as_they_are():
    cells = tuple(
        Cell({"k": k}, "", "", {"value": value}, 1, ("r",), "exact")
        for k, value in (("2", 10.0), ("10", 16.0))
    )
    exact = Item("p", "figure2", "t", "paper", "deterministic", 0.5, ("k",), (), cells)
    found = outcome({"tables": ["figure2"], "equals": {"k": {2: 10, 10: 17}}}, {"figure2": exact})
    assert found.startswith("1 supported, 1 contradicted, 0 open of 2, n = 1 value")
    with pytest.raises(ValueError, match="`equals` is for numbers without chance"):
        outcome({"tables": ["table1"], "equals": {"k": {2: 1}}}, {"table1": table()})


def test_keys_that_change_with_the_one_that_falls():
    cells = []
    for k, least, mean in (("2", "200", 0.8), ("10", "100", 0.7), ("16", "50", 0.75)):
        values = {str(u): mean + 0.01 * u for u in range(3)}
        cells.append(Cell({"k": k, "least": least}, "", "", values, 3, ("r",), "exact"))
    item = Item("p", "table1", "t", "paper", "split", 0.02, ("k",), ("least",), tuple(cells))
    part = {"tables": ["table1"], "falls": "k"}
    with pytest.raises(ValueError, match="no two cells to compare"):
        outcome(part, {"table1": item})
    assert outcome({**part, "beside": ["least"]}, {"table1": item}).startswith(
        "1 supported, 1 contradicted, 0 open of 2"
    )


def test_a_claim_may_have_a_note_or_a_scope_of_its_own():
    later = {"item": "figure2", "claim": LATER["claim"]}
    row = judged([{**later, "note": "no direction is stated"}], {})[LATER["claim"]]
    assert (row["verdict"], row["evidence"]) == ("not tested", "no direction is stated")
    spec = beats("table1", scope={"paper": "{data}, large net"})
    assert judged([spec], {"table1": table()})[BEATS["claim"]]["scope"] == "no data yet, large net"


def test_quick_may_have_other_rows_than_a_claim_names():
    spec = beats("table1", where={"k": 43})
    row = judged([spec], {"table1": table(preset="quick")}, preset="quick")[BEATS["claim"]]
    assert row["verdict"] == "not tested" and "other rows" in row["evidence"]
    with pytest.raises(ValueError, match=r"no k \['43'\]"):
        judged([spec], {"table1": table()})


@pytest.mark.parametrize(
    "unit, left, right, outcome",
    [
        ("draw", ("a",), ("b",), "open"),  # one model against another
        ("draw", ("a", "b"), ("c", "d"), "open"),
        ("draw", ("a",), ("a",), "supported"),  # two rules on one model
        ("draw", ("a", "b", "c"), ("base",), "supported"),  # tuned ones against what they came from
        ("seed", ("a",), ("b",), "supported"),  # computations: seeds are not draws of one model
    ],
)
def test_draws_of_one_model_do_not_speak_of_models(unit, left, right, outcome):
    values = {"0": 0.5, "1": 0.51, "2": 0.52}
    runs = {"new": left, "old": right}
    cells = tuple(
        Cell({"method": name}, "", "", {u: v + more for u, v in values.items()}, 3, runs[name],
             "substitute")
        for name, more in (("new", 0.1), ("old", 0.0))
    )  # fmt: skip
    item = Item("p", "t", "t", "small", unit, 0.02, ("method",), (), cells)
    part = {"tables": ["t"], "greater": {"method": "new"}, "than": {"method": "old"}}
    (found,) = comparisons(part, {"t": item}, "here")
    assert found.outcome == outcome
    part = {"tables": ["t"], "differs": {"method": "new"}, "than": {"method": "old"}, "by": 0.02}
    (found,) = comparisons(part, {"t": item}, "here")
    assert found.outcome == outcome


def test_the_largest_of_cells_with_more_and_fewer_units():
    """Complete when all are, over the units that all have."""
    how = Largest(tables=["t"], gains={"method": "new"}, over=[{"method": "old"}])

    def found(new, old, planned=7):
        cells = [
            Cell({"method": name}, "", "", {str(u): v for u, v in enumerate(values)}, n, (name,),
                 "exact")
            for name, values, n in (("new", new, planned), ("old", old, 3))
        ]  # fmt: skip
        return largest(how, {"t": cells}, {"where": "text"}, ("1", ""))

    whole = found([2.0] * 7, [1.0, 0.5, 1.0])
    assert whole.complete and whole.values == {"0": 1.0, "1": 3.0, "2": 1.0}
    assert not found([2.0] * 5, [1.0, 0.5, 1.0]).complete  # 5 of 7
    assert not found([2.0] * 7, [1.0, 0.5]).complete


def test_a_part_may_be_none_in_a_preset():
    part = {"tables": ["table1"], "presets": {"small": None, "quick": {"where": {"n": [1]}}}}
    spec = {"item": "table1", "claim": "c", "parts": [part, {"tables": ["table2"]}]}
    assert parts_of(spec, "small") == [{"tables": ["table2"]}]
    assert parts_of(spec, "paper") == [{"tables": ["table1"]}, {"tables": ["table2"]}]
    assert parts_of(spec, "quick")[0] == {"tables": ["table1"], "where": {"n": [1]}}
