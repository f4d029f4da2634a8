"""One comparison over common units, and how the partners of a comparison are found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hypersphere.reporting import repeats
from hypersphere.reporting.cells import Cell, check_key, select_cells
from hypersphere.reporting.verdicts import CHANCE, MIN_UNITS, common_units, paired

Part = Mapping[str, Any]  # as a claim's YAML states it
Values = Mapping[str, float]  # by unit
Keys = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Comparison:
    """One paired comparison `left > right`: its outcome, over how many common units, and while it
    is open although its runs are there, how many it would take by their spread (repeats.py)."""

    outcome: str
    n: int
    unit: str
    needs: int | None = None


def compare(
    left: Values, right: Values, done: bool, unit: str, level: float = CHANCE
) -> Comparison:
    """Whether left is greater, by a one-sided test at `level`; open while runs of either are
    missing (not `done`)."""
    outcome = paired(left, right, level) if done else "open"
    name = "value" if unit == "deterministic" else unit
    units = common_units(left, right)
    needs = None
    if done and outcome == "open" and unit != "deterministic":
        needs = repeats.to_order([left[u] - right[u] for u in units])
    return Comparison(outcome, len(units), name, needs)


def compare_cells(
    left: Cell, right: Cell, unit: str, by: float = 0.0, level: float = CHANCE
) -> Comparison:
    """Whether the left cell is greater by at least `by`."""
    shifted = {each: value + by for each, value in right.values.items()}
    return compare(left.values, shifted, can_decide(left, right, unit), unit, level)


def can_decide(left: Cell, right: Cell, unit: str) -> bool:
    """Whether the two are complete, and not one model against another: draws of examples say
    nothing of how far two trainings are apart by chance, so with fewer than three trainings on
    either side, none of them shared, they decide nothing."""
    models = unit == "draw" and _few_apart(left.run_ids, right.run_ids)
    return left.complete and right.complete and not models


def can_decide_leads(left: Sequence[Cell], right: Sequence[Cell], unit: str) -> bool:
    """The same of leads in two places, each of models that were tuned from one of its own: the
    draws say nothing of another base model."""
    bases = [{base for cell in side for base in cell.bases} for side in (left, right)]
    models = unit == "draw" and _few_apart(*bases)
    return all(cell.complete for cell in (*left, *right)) and not models


def _few_apart(left: Iterable[str], right: Iterable[str]) -> bool:
    left, right = {*left}, {*right}
    return max(len(left), len(right)) < MIN_UNITS and not left & right


def any_of(found: Sequence[Comparison], strict: Sequence[Comparison]) -> Comparison:
    """Contradicted when all of them are, supported when one is that is held to its share of the
    level (`strict`, in the same order): by chance one of many is soon ahead somewhere."""
    outcome = "supported" if any(each.outcome == "supported" for each in strict) else "open"
    if all(each.outcome == "contradicted" for each in found):
        outcome = "contradicted"
    needs = [each.needs for each in strict if each.needs is not None] if outcome == "open" else []
    return Comparison(
        outcome, min(each.n for each in found), found[0].unit, min(needs, default=None)
    )


def rest_of(cell: Cell, compared: set[str]) -> Keys:
    """The keys of a cell that a comparison does not name: partners share them."""
    return tuple((key, value) for key, value in cell.keys.items() if key not in compared)


def grouped(cells: Sequence[Cell], compared: set[str]) -> dict[Keys, list[Cell]]:
    """Cells by the keys that a comparison does not name."""
    groups: dict[Keys, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(rest_of(cell, compared), []).append(cell)
    return groups


def pairs(
    cells: Sequence[Cell], these: Mapping[str, Any], than: Any, place: str
) -> list[tuple[Cell, Cell]]:
    """Pairs that agree in every key which neither side names."""
    made = []
    left = select_cells(cells, these, place)
    for other in [than] if isinstance(than, Mapping) else than:
        compared = {*these, *other}
        partners = {rest_of(cell, compared): cell for cell in select_cells(cells, other, place)}
        found = [
            (cell, partners[rest_of(cell, compared)])
            for cell in left
            if rest_of(cell, compared) in partners
        ]
        if not found:
            raise ValueError(f"{place}: no cell of {dict(these)} has a partner in {dict(other)}")
        made += found
    return made


def steps(
    cells: Sequence[Cell], key: str, beside: Sequence[str], place: str
) -> list[tuple[Cell, Cell]]:
    """Adjacent cells (smaller key, larger key) along a numeric key, all keys but those `beside` it
    equal."""
    check_key(cells, key, place)
    made: list[tuple[Cell, Cell]] = []
    for members in grouped(cells, {key, *beside}).values():
        try:
            members.sort(key=lambda cell: float(cell.keys[key]))
        except ValueError as error:
            raise ValueError(f"{place}: {key} is not numeric: {error}") from error
        made += zip(members, members[1:], strict=False)
    return made
