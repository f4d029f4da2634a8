"""What cells gain over the best of others, unit by unit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hypersphere.reporting.cells import Cell, select_cells
from hypersphere.reporting.comparisons.paired import Values, rest_of


def gains(
    cells: Sequence[Cell],
    these: Mapping[str, Any],
    over: Sequence[Mapping[str, Any]],
    place: str,
    relative: bool = True,
) -> list[tuple[Values, list[Cell]]]:
    """For every cell with `these` keys: its gain (relative, or the difference), by common unit,
    over the best of the cells `over` that agree in every other key; and the cells that this rests
    on."""
    compared = {*these, *(key for other in over for key in other)}
    found: list[tuple[Values, list[Cell]]] = []
    for cell in select_cells(cells, these, place):
        others = [
            other
            for names in over
            for other in select_cells(cells, names, place)
            if rest_of(other, compared) == rest_of(cell, compared)
        ]
        if not others:
            continue
        units = set.intersection(*({*each.values} for each in (cell, *others)))
        best = {u: largest_of(each.values[u] for each in others) for u in units}
        if relative:
            gain = {u: cell.values[u] / best[u] - 1 if best[u] else math.nan for u in units}
        else:
            gain = {u: cell.values[u] - best[u] for u in units}
        found.append((gain, [cell, *others]))
    return found


def largest_of(values: Iterable[float]) -> float:
    """nan where one of them is: max() would take or leave it by its place."""
    found = list(values)
    return math.nan if any(map(math.isnan, found)) else max(found)
