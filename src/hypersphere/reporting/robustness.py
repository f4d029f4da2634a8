"""Divergence as evidence: which cells have no number, and which settings bear a larger one of some
key (a learning rate)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hypersphere.reporting.cells import Cell
from hypersphere.reporting.verdicts import MIN_UNITS, common_units

HALF = 0.5  # a decade: less than from one learning rate of a grid to the next


def diverged(cell: Cell, chance: float | None) -> str:
    """`supported` when every run of the cell diverged (or stayed at `chance` or below),
    `contradicted` when none did, `open` otherwise, with fewer than three runs, and unless the
    protocol is the paper's."""
    if not cell.complete or cell.protocol != "exact" or len(cell.values) < MIN_UNITS:
        return "open"
    failed = [
        math.isnan(value) or (chance is not None and value <= chance)
        for value in cell.values.values()
    ]
    return "supported" if all(failed) else "open" if any(failed) else "contradicted"


Numbers = dict[str, float]  # by unit


def tolerance(
    more: Sequence[Cell], less: Sequence[Cell], key: str
) -> list[tuple[Numbers, Numbers]]:
    """Two comparisons `left > right`, by common unit, that say that `more` bears larger values of
    `key` than `less`: its best value is not the smaller one, and it loses less from its best value
    to the largest one. A run that diverged counts as 0: it classifies nothing."""
    units: set[str] = set(common_units(more[0].values, less[0].values))
    for cell in (*more, *less):
        units &= {*cell.values}

    def number(cell: Cell, unit: str) -> float:
        value = cell.values[unit]
        return 0.0 if math.isnan(value) else value

    def best(cells: Sequence[Cell], unit: str) -> float:
        """Of several, the largest."""
        return max((number(c, unit), float(c.keys[key])) for c in cells)[1]

    def loss(cells: Sequence[Cell], unit: str) -> float:
        largest = max(cells, key=lambda cell: float(cell.keys[key]))
        return max(number(cell, unit) for cell in cells) - number(largest, unit)

    places = [{u: math.log10(best(cells, u)) for u in units} for cells in (more, less)]
    losses = [{u: loss(cells, u) for u in units} for cells in (less, more)]
    return [
        (places[0], {u: value - HALF for u, value in places[1].items()}),
        (losses[0], losses[1]),
    ]
