"""Kinds that compare cells with cells: an order shows after a shortened training as well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from hypersphere.reporting import repeats, robustness
from hypersphere.reporting.cells import Cell, check_key, select_cells
from hypersphere.reporting.comparisons.gains import gains
from hypersphere.reporting.comparisons.paired import (
    Comparison,
    Part,
    can_decide,
    can_decide_leads,
    compare,
    compare_cells,
    grouped,
    pairs,
    rest_of,
    steps,
)
from hypersphere.reporting.verdicts import CHANCE, by_interval, common_units, interval


def greater(cells: Sequence[Cell], part: Part, unit: str, place: str) -> list[Comparison]:
    sides = pairs(cells, part["greater"], part["than"], place)
    by = part.get("by", 0.0)
    if part.get("on_average"):
        return [_mean_of(sides, unit, by)]
    return [
        # what trained otherwise, or another network, is no partner from another table
        compare_cells(one, other, unit, by, part.get("level", CHANCE))
        if one.protocol == other.protocol
        else Comparison("open", 0, unit)
        for one, other in sides
    ]


def _mean_of(sides: Sequence[tuple[Cell, Cell]], unit: str, by: float) -> Comparison:
    """One comparison of the means over all pairs, within each unit that all of them have."""
    units = set.intersection(*({*cell.values} for pair in sides for cell in pair))
    left, right = (
        {u: fmean(pair[side].values[u] for pair in sides) for u in units} for side in (0, 1)
    )
    done = all(can_decide(*pair, unit) for pair in sides)
    return compare(left, {u: value + by for u, value in right.items()}, done, unit)


def differs(cells: Sequence[Cell], part: Part, unit: str, place: str) -> list[Comparison]:
    """`differs` and `agrees`: outside or inside a margin."""
    found = []
    kind, margin = "differs" if "differs" in part else "agrees", float(part["by"])
    for one, other in pairs(cells, part[kind], part["than"], place):
        units = common_units(one.values, other.values)
        differences = [one.values[u] - other.values[u] for u in units]
        bounds = interval(differences)
        done = can_decide(one, other, unit) and bounds is not None
        verdict = by_interval(len(units), *bounds, margin) if done else "inconclusive"
        says = {"differs": "differs", "reproduced": "agrees"}.get(verdict)
        outcome = "open" if says is None else "supported" if says == kind else "contradicted"
        needs = repeats.to_judge(differences, margin) if done and outcome == "open" else None
        found.append(Comparison(outcome, len(units), unit, needs))
    return found


def falls(cells: Sequence[Cell], part: Part, unit: str, place: str) -> list[Comparison]:
    series = _series(cells, part, place)
    return [
        compare_cells(before, after, unit)
        for before, after in steps(series, part["falls"], part.get("beside", []), place)
    ]


def rises(cells: Sequence[Cell], part: Part, unit: str, place: str) -> list[Comparison]:
    series = _series(cells, part, place)
    return [
        compare_cells(after, before, unit)
        for before, after in steps(series, part["rises"], part.get("beside", []), place)
    ]


def _series(cells: Sequence[Cell], part: Part, place: str) -> Sequence[Cell]:
    """The cells themselves, or what one gains over the others as cells of their own."""
    if "gain" not in part:
        return cells
    found = []
    for gain, rests_on in gains(cells, part["gain"], part.get("over", []), place):
        done = all(cell.complete for cell in rests_on)
        planned = len(gain) if done else len(gain) + 1
        found.append(replace(rests_on[0], values=dict(gain), planned=planned))
    return found


def wider(cells: Sequence[Cell], part: Part, unit: str, place: str) -> list[Comparison]:
    left, right = (_spread(cells, part[side], place) for side in ("wider", "than"))
    shifted = {each: value + part.get("by", 0.0) for each, value in right[0].items()}
    return [compare(left[0], shifted, left[1] and right[1], unit)]


def _spread(cells: Sequence[Cell], side: Part, place: str) -> tuple[dict[str, float], bool]:
    """Largest minus smallest over a key, mean over the other keys, by unit; and whether all cells
    are complete."""
    chosen = select_cells(cells, side.get("where", {}), place)
    check_key(chosen, side["over"], place)
    groups = grouped(chosen, {side["over"]}).values()
    units = set.intersection(*({*cell.values} for cell in chosen))
    spread = {
        unit: fmean(
            max(cell.values[unit] for cell in group) - min(cell.values[unit] for cell in group)
            for group in groups
        )
        for unit in units
    }
    return spread, all(cell.complete for cell in chosen)


def leads(cells: Sequence[Cell], part: Part, unit: str, place: str) -> list[Comparison]:
    """Whether the lead of some cells over others is larger in one place than in another."""
    sides = []
    for where in (part["more_at"], part["than_at"]):
        chosen = select_cells(cells, where, place)
        made = gains(chosen, part["leads"], [part["over"]], place, relative=False)
        sides.append({rest_of(rests[0], {*where}): (lead, rests) for lead, rests in made})
    left, right = sides
    found = []
    for group in left.keys() & right.keys():
        (lead, rests), (other, others) = left[group], right[group]
        done = can_decide_leads(rests, others, unit)
        found.append(compare(lead, other, done, unit))
    return found


def tolerates(cells: Sequence[Cell], part: Part, unit: str, place: str) -> list[Comparison]:
    key = part["tolerates"]
    check_key(cells, key, place)
    more, less = (
        grouped(select_cells(cells, part[side], place), {key, *part[side]})
        for side in ("more", "than")
    )
    found = []
    for group in more.keys() & less.keys():
        done = all(cell.complete for cell in (*more[group], *less[group]))
        sides = robustness.tolerance(more[group], less[group], key)
        found += [compare(left, right, done, unit) for left, right in sides]
    return found
