"""Kinds that hold cells against a number: they need the paper's protocol, unless a claim says that
its number holds for any training."""

from __future__ import annotations

from collections.abc import Sequence

from hypersphere.reporting import robustness
from hypersphere.reporting.cells import Cell, select_cells
from hypersphere.reporting.comparisons.gains import gains
from hypersphere.reporting.comparisons.paired import Comparison, Part, compare
from hypersphere.reporting.verdicts import CHANCE


def above(cells: Sequence[Cell], part: Part, unit: str, place: str) -> list[Comparison]:
    return [
        compare(cell.values, _constant(cell, part["above"]), _counts(cell, part), unit)
        for cell in cells
    ]


def below(cells: Sequence[Cell], part: Part, unit: str, place: str) -> list[Comparison]:
    return [
        compare(_constant(cell, part["below"]), cell.values, _counts(cell, part), unit)
        for cell in cells
    ]


def _counts(cell: Cell, part: Part) -> bool:
    """Whether a cell can be held against a number: orderings show after a shortened training or on
    other data too, values do not, unless the claim says so."""
    shortened = part.get("shortened", False)
    return cell.complete and cell.protocol in ("exact", "shortened" if shortened else "exact")


def _constant(cell: Cell, number: float) -> dict[str, float]:
    return dict.fromkeys(cell.values, float(number))


def equals(cells: Sequence[Cell], part: Part, unit: str, place: str) -> list[Comparison]:
    if unit != "deterministic":
        raise ValueError(f"{place}: `equals` is for numbers without chance, not for {unit}s")
    ((key, wanted),) = part["equals"].items()
    wanted = {str(value): number for value, number in wanted.items()}
    found = []
    for cell in select_cells(cells, {key: list(wanted)}, place):
        outcome = "open"
        if _counts(cell, part):
            same = all(value == wanted[cell.keys[key]] for value in cell.values.values())
            outcome = "supported" if same else "contradicted"
        found.append(Comparison(outcome, len(cell.values), "value"))
    return found


def reaches(cells: Sequence[Cell], part: Part, unit: str, place: str) -> list[Comparison]:
    """`gains` with `reaches`: at every place whether it is reached."""
    found = []
    for gain, rests_on in gains(cells, part["gains"], part["over"], place):
        done = all(_counts(each, part) for each in rests_on)
        wanted = dict.fromkeys(gain, float(part["reaches"]))
        found.append(compare(gain, wanted, done, unit, part.get("level", CHANCE)))
    return found


def diverges(cells: Sequence[Cell], part: Part, unit: str, place: str) -> list[Comparison]:
    return [
        Comparison(robustness.diverged(cell, part.get("or_below")), len(cell.values), unit)
        for cell in select_cells(cells, part["diverges"], place)
    ]
