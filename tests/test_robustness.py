"""Claims across tables, on average, by divergence and by tolerance of larger values, on made-up
cells."""

import math

import pytest

from hypersphere.reporting.cells import Cell, Item
from hypersphere.reporting.comparisons import comparisons

NAN = math.nan


def item(numbers, name="table1", keys=("loss", "k", "method"), protocol="exact", planned=3):
    """numbers: key values -> one number per seed."""
    cells = [
        Cell(dict(zip(keys, map(str, label), strict=True)), "0.5", "",
             dict(enumerate_text(values)), planned, ("r",), protocol)
        for label, values in numbers.items()
    ]  # fmt: skip
    return Item("p", name, "t", "paper", "seed", 0.02, keys[1:2], ("method",), tuple(cells))


def enumerate_text(values):
    return [(str(i), value) for i, value in enumerate(values)]


def around(mean):
    return [mean - 0.01, mean, mean + 0.01]


def outcomes(part, *items):
    return [c.outcome for c in comparisons(part, {each.name: each for each in items}, "claim")]


FIXED = {"greater": {"method": "new"}, "than": [{"method": "old"}]}


def test_cells_of_two_tables():
    one = item({("cos", 1, "new"): around(0.7), ("cos", 2, "new"): around(0.4)})
    two = item({("dot", 1, "new"): around(0.6), ("dot", 2, "new"): around(0.5)}, "table2")
    part = {
        "tables": ["table1"],
        "with": "table2",
        "greater": {"loss": "cos"},
        "than": [{"loss": "dot"}],
    }
    assert outcomes(part, one, two) == ["supported", "contradicted"]
    assert outcomes(part | {"any": True}, one, two) == ["supported"]
    low = item({("cos", 1, "new"): around(0.1), ("cos", 2, "new"): around(0.1)})
    assert outcomes(part | {"any": True}, low, two) == ["contradicted"]
    # another protocol is another training: nothing is compared
    other = item({("dot", 1, "new"): around(0.6), ("dot", 2, "new"): around(0.5)}, "table2",
                 protocol="substitute")  # fmt: skip
    assert outcomes(part, one, other) == ["open", "open"]
    with pytest.raises(ValueError, match="with: no table 'table9' by seed"):
        outcomes(part | {"with": "table9"}, one, two)


def test_the_mean_over_all_places():
    numbers = {("l", 1, "new"): around(0.9), ("l", 1, "old"): around(0.5),
               ("l", 2, "new"): around(0.4), ("l", 2, "old"): around(0.6)}  # fmt: skip
    part = {"tables": ["table1"], **FIXED}
    assert outcomes(part, item(numbers)) == ["supported", "contradicted"]
    assert outcomes(part | {"on_average": True}, item(numbers)) == ["supported"]
    assert outcomes(part | {"on_average": True, "by": 0.2}, item(numbers)) == ["contradicted"]
    assert outcomes(part | {"on_average": True}, item(numbers, planned=4)) == ["open"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([NAN, NAN, NAN], "supported"),
        ([NAN, 1.0, 2.0], "supported"),  # chance
        ([NAN, NAN, 70.0], "open"),
        ([60.0, 70.0, 65.0], "contradicted"),
        ([NAN, NAN], "open"),
    ],
)
def test_divergence_is_evidence(values, expected):
    part = {"tables": ["table1"], "diverges": {"method": "old"}, "or_below": 2.0}
    planned = len(values)
    found = item({("l", 1, "old"): values, ("l", 1, "new"): around(70)}, planned=planned)
    assert outcomes(part, found) == [expected]
    short = item({("l", 1, "old"): values}, protocol="shortened", planned=planned)
    assert outcomes(part, short) == ["open"]
    if 1.0 in values:
        assert outcomes({k: v for k, v in part.items() if k != "or_below"}, found) == ["open"]


def test_tolerance_of_larger_rates():
    keys = ("dataset", "rate", "method")
    part = {
        "tables": ["table1"],
        "tolerates": "rate",
        "more": {"method": "new"},
        "than": {"method": "old"},
    }
    numbers = {
        ("d", "0.1", "new"): [70.1, 70.2, 70.3], ("d", "0.01", "new"): [69, 69, 69],
        ("d", "0.1", "old"): [NAN, NAN, NAN], ("d", "0.01", "old"): [68.1, 68.2, 68.4],
    }  # fmt: skip

    def found(numbers):
        made = item(numbers, keys=keys)
        return outcomes(part, made)

    # best at 0.1 against 0.01; loses nothing against everything
    assert sorted(found(numbers)) == ["supported", "supported"]
    turned = {(d, rate, "old" if m == "new" else "new"): v for (d, rate, m), v in numbers.items()}
    assert found(turned) == ["contradicted", "contradicted"]
    # the same best rate is no smaller one; equal losses decide nothing
    same = {(d, rate, m): numbers[d, rate, "new"] for d, rate, m in numbers}
    assert found(same) == ["supported", "open"]
    with pytest.raises(ValueError, match="no key 'lr'"):
        outcomes(part | {"tolerates": "lr"}, item(numbers, keys=keys))
