"""Numbers that a paper's text takes from its tables: the largest of many, unit by unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hypersphere.reporting.cells import PROTOCOLS, Cell
from hypersphere.reporting.comparisons.gains import gains, largest_of
from hypersphere.reporting.comparisons.paired import Values
from hypersphere.reporting.declared import Largest


def describe(how: Largest, unit: str) -> str:
    """How such a cell comes about, in one line."""
    what = "largest value"
    if how.gains is not None:
        others = " and ".join(map(_said, how.over))
        gain = "relative gain" if how.relative else "difference"
        best = "the better of " if len(how.over) > 1 else ""
        what = f"largest {gain} of {_said(how.gains)} over {best}{others}"
    places = f" at {_said(how.where)}" if how.where else ""
    scaled = "" if how.scale == 1 else f", times {how.scale:g}"
    return f"{what} in {', '.join(how.tables)}{places}, within each {unit}{scaled}"


def _said(keys: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} = {' or '.join(map(str, v)) if isinstance(v, list) else v}"
        for key, v in keys.items()
    )


def largest(
    how: Largest,
    tables: Mapping[str, Sequence[Cell]],
    keys: Mapping[str, str],
    published: tuple[str, str],
) -> Cell:
    """The cell of `keys`, printed as `published` (value, deviation), from those cells of `tables`
    that count (`where`).

    It has a value for every unit that all those cells have, nan where one of them diverged, and is
    complete when all of them are; it names all their runs, and the weakest of their protocols.
    Raises ValueError when there is nothing to take the largest of, or a key does not exist.
    """
    numbers: list[Values] = []
    used: list[Cell] = []
    for name in how.tables:
        if how.gains is None:
            found = [(cell.values, [cell]) for cell in tables[name]]
        else:
            found = gains(tables[name], how.gains, how.over, name, how.relative)
        numbers += [values for values, _ in found]
        used += [cell for _, rests_on in found for cell in rests_on]
    if not numbers:
        raise ValueError(f"no cell of {', '.join(how.tables)} to take the largest of")
    units = set.intersection(*({*values} for values in numbers))
    done = all(cell.complete for cell in used)  # some may have more units than all have
    return Cell(
        keys=dict(keys),
        published=published[0],
        published_std=published[1],
        values={u: how.scale * largest_of(each[u] for each in numbers) for u in sorted(units)},
        planned=len(units) if done else max(cell.planned for cell in used),
        run_ids=tuple(dict.fromkeys(run for cell in used for run in cell.run_ids)),
        protocol=max((cell.protocol for cell in used), key=PROTOCOLS.index),
    )
