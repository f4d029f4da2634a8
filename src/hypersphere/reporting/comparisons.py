"""The parts of a claim: what is compared with what, over the same units.

A part names `tables` (or figures, by item) and optionally `where` (key -> value or values), and one
of these kinds, of which those that compare with a number (`above`, `below`, `equals`, `gains`) are
open unless the protocol is the paper's:

* `greater` with `than`: cells with these keys against those that agree in every other key; `by`: at
  least so much greater (negative: not much less), in the table's unit; `any: true`: in at least one
  place (one comparison per table); `on_average: true`: in the mean over all places, unit by unit;
  `with`: another table of the same keys whose cells are compared too, where both have the same
  protocol;
* `differs` with `than` and `by`: these cells and those, whichever is greater: supported when the
  90 % interval of the difference lies wholly outside +-by, contradicted when it lies inside;
* `agrees` with `than` and `by`: the other way round, no farther apart than that;
* `falls` or `rises`: adjacent cells along a numeric key; `beside`: keys that change with it; with
  `gain` and `over` not the cells' values but the relative gains of those over these;
* `above` or `below`: every cell against a number; `shortened: true` where that number holds for
  any training (the bound of a function, half the way to the next target);
* `equals`: key column -> {its value: the number}, for numbers without chance;
* `wider` with `than`: the spread (largest minus smallest, mean over all other keys) `over` a key
  among the cells `where`, against another spread;
* `diverges`: cells with these keys have no number, or (`or_below`) not more than chance gives;
* `tolerates` a numeric key, with `more` and `than`: those cells against these, over all values of
  the key (robustness.py);
* `gains` with `over` and `reaches`: the relative gain of cells with these keys over the best of the
  others reaches a number in at least one place (one comparison per table);
* `leads` with `over`, `more_at` and `than_at`: by how much cells with these keys lead those others
  is more in one place than in another (`with`: of another table).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from hypersphere.reporting import repeats, robustness
from hypersphere.reporting.cells import Cell, Item, check_key, select_cells
from hypersphere.reporting.verdicts import by_interval, common_units, interval, paired

# kind -> what else belongs to it
KINDS = {
    "greater": {"than", "by", "any", "on_average", "with"},
    "differs": {"than", "by"},
    "agrees": {"than", "by"},
    "falls": {"beside", "gain", "over"},
    "rises": {"beside", "gain", "over"},
    "above": {"shortened"},
    "below": {"shortened"},
    "equals": set(),
    "wider": {"than"},
    "gains": {"over", "reaches"},
    "leads": {"over", "more_at", "than_at", "with"},
    "diverges": {"or_below"},
    "tolerates": {"more", "than"},
}
NEEDS = {
    "greater": {"than"},
    "differs": {"than", "by"},
    "agrees": {"than", "by"},
    "wider": {"than"},
    "gains": {"over", "reaches"},
    "leads": {"over", "more_at", "than_at"},
    "tolerates": {"more", "than"},
}
Values = Mapping[str, float]  # by unit


@dataclass(frozen=True)
class Comparison:
    """One paired comparison `left > right`: its outcome, over how many common units, and while it
    is open although its runs are there, how many it would take by their spread (repeats.py)."""

    outcome: str
    n: int
    unit: str
    needs: int | None = None


def comparisons(part: Mapping[str, Any], items: Mapping[str, Item], where: str) -> list[Comparison]:
    """All comparisons of a part. Raises ValueError when it names what does not exist."""
    kind = _kind(part, where)
    if not part.get("tables"):
        raise ValueError(f"{where}: a part names no `tables`")
    found = []
    for name in part["tables"]:
        if name not in items:
            raise ValueError(f"{where}: no table {name!r}, there are {sorted(items)}")
        place, unit = f"{where}: {name}", items[name].unit
        every = [*items[name].cells, *_beside(part, items, items[name], where)]
        cells = select_cells(every, part.get("where", {}), place)
        made = _MAKERS[kind](cells, part, unit, place)
        if not made:
            raise ValueError(f"{place}: no two cells to compare in {dict(part)}")
        found += made
    return found


def _beside(
    part: Mapping[str, Any], items: Mapping[str, Item], item: Item, where: str
) -> Sequence[Cell]:
    """Cells of the table that a part compares `with`."""
    if (name := part.get("with")) is None:
        return ()
    if name not in items or items[name].unit != item.unit:
        raise ValueError(f"{where}: with: no table {name!r} by {item.unit}")
    return items[name].cells


def _kind(part: Mapping[str, Any], where: str) -> str:
    kinds = [kind for kind in KINDS if kind in part]
    if len(kinds) == 1:
        stray = part.keys() - {"tables", "where", kinds[0]} - KINDS[kinds[0]]
        if not stray and NEEDS.get(kinds[0], set()) <= part.keys():
            return kinds[0]
    raise ValueError(
        f"{where}: a part has `tables`, optional `where`, and one of `greater` with `than`,"
        " `differs` or `agrees` with `than` and `by`,"
        " `falls`, `rises`, `above`, `below`, `equals`, `wider` with `than`, `gains` with `over`"
        " and `reaches`, `leads` with `over`, `more_at` and `than_at`, `diverges`, `tolerates` with"
        " `more` and `than`;"
        f" got {sorted(part)}"
    )


def _counts(cell: Cell, shortened: bool = False) -> bool:
    """Whether a cell can be held against a number: orderings show after a shortened training or on
    other data too, values do not, unless the claim says so."""
    return cell.complete and cell.protocol in ("exact", "shortened" if shortened else "exact")


def _compare(left: Values, right: Values, done: bool, unit: str) -> Comparison:
    outcome = paired(left, right) if done else "open"
    name = "value" if unit == "deterministic" else unit
    units = common_units(left, right)
    needs = None
    if done and outcome == "open" and unit != "deterministic":
        needs = repeats.to_order([left[u] - right[u] for u in units])
    return Comparison(outcome, len(units), name, needs)


def _cells(left: Cell, right: Cell, unit: str, by: float = 0.0) -> Comparison:
    shifted = {each: value + by for each, value in right.values.items()}
    return _compare(left.values, shifted, left.complete and right.complete, unit)


def _greater(
    cells: Sequence[Cell], part: Mapping[str, Any], unit: str, place: str
) -> list[Comparison]:
    pairs = _pairs(cells, part["greater"], part["than"], place)
    by = part.get("by", 0.0)
    if part.get("on_average"):
        return [_mean_of(pairs, unit, by)]
    found = [
        # what trained otherwise, or another network, is no partner from another table
        _cells(one, other, unit, by)
        if one.protocol == other.protocol
        else Comparison("open", 0, unit)
        for one, other in pairs
    ]
    return [_any_of(found)] if part.get("any") else found


def _mean_of(pairs: Sequence[tuple[Cell, Cell]], unit: str, by: float) -> Comparison:
    """One comparison of the means over all pairs, within each unit that all of them have."""
    units = set.intersection(*({*cell.values} for pair in pairs for cell in pair))
    left, right = (
        {u: fmean(pair[side].values[u] for pair in pairs) for u in units} for side in (0, 1)
    )
    done = all(cell.complete for pair in pairs for cell in pair)
    return _compare(left, {u: value + by for u, value in right.items()}, done, unit)


def _any_of(found: Sequence[Comparison]) -> Comparison:
    """Supported when one of them is, contradicted when all are."""
    outcomes = {each.outcome for each in found}
    outcome = "supported" if "supported" in outcomes else "open"
    if outcomes == {"contradicted"}:
        outcome = "contradicted"
    return Comparison(outcome, min(each.n for each in found), found[0].unit)


def _differs(
    cells: Sequence[Cell], part: Mapping[str, Any], unit: str, place: str
) -> list[Comparison]:
    found = []
    kind = "differs" if "differs" in part else "agrees"
    for one, other in _pairs(cells, part[kind], part["than"], place):
        units = common_units(one.values, other.values)
        bounds = interval([one.values[u] - other.values[u] for u in units])
        done = one.complete and other.complete and bounds is not None
        verdict = by_interval(len(units), *bounds, float(part["by"])) if done else "inconclusive"
        says = {"differs": "differs", "reproduced": "agrees"}.get(verdict)
        outcome = "open" if says is None else "supported" if says == kind else "contradicted"
        found.append(Comparison(outcome, len(units), unit))
    return found


def _pairs(
    cells: Sequence[Cell], these: Mapping[str, Any], than: Any, place: str
) -> list[tuple[Cell, Cell]]:
    """Pairs that agree in every key which neither side names."""
    pairs = []
    left = select_cells(cells, these, place)
    for other in [than] if isinstance(than, Mapping) else than:
        compared = {*these, *other}
        partners = {_rest(cell, compared): cell for cell in select_cells(cells, other, place)}
        found = [
            (cell, partners[_rest(cell, compared)])
            for cell in left
            if _rest(cell, compared) in partners
        ]
        if not found:
            raise ValueError(f"{place}: no cell of {dict(these)} has a partner in {dict(other)}")
        pairs += found
    return pairs


def _falls(
    cells: Sequence[Cell], part: Mapping[str, Any], unit: str, place: str
) -> list[Comparison]:
    steps = _steps(_series(cells, part, place), part["falls"], part.get("beside", []), place)
    return [_cells(before, after, unit) for before, after in steps]


def _rises(
    cells: Sequence[Cell], part: Mapping[str, Any], unit: str, place: str
) -> list[Comparison]:
    steps = _steps(_series(cells, part, place), part["rises"], part.get("beside", []), place)
    return [_cells(after, before, unit) for before, after in steps]


def _series(cells: Sequence[Cell], part: Mapping[str, Any], place: str) -> Sequence[Cell]:
    """The cells themselves, or what one gains over the others as cells of their own."""
    if "gain" not in part:
        return cells
    found = []
    for gain, rests_on in gains(cells, part["gain"], part.get("over", []), place):
        done = all(cell.complete for cell in rests_on)
        planned = len(gain) if done else len(gain) + 1
        found.append(replace(rests_on[0], values=dict(gain), planned=planned))
    return found


def _above(
    cells: Sequence[Cell], part: Mapping[str, Any], unit: str, place: str
) -> list[Comparison]:
    return [
        _compare(cell.values, _constant(cell, part["above"]), _counts(cell, _any(part)), unit)
        for cell in cells
    ]


def _below(
    cells: Sequence[Cell], part: Mapping[str, Any], unit: str, place: str
) -> list[Comparison]:
    return [
        _compare(_constant(cell, part["below"]), cell.values, _counts(cell, _any(part)), unit)
        for cell in cells
    ]


def _constant(cell: Cell, number: float) -> dict[str, float]:
    return dict.fromkeys(cell.values, float(number))


def _any(part: Mapping[str, Any]) -> bool:
    return bool(part.get("shortened"))


def _equals(
    cells: Sequence[Cell], part: Mapping[str, Any], unit: str, place: str
) -> list[Comparison]:
    if unit != "deterministic":
        raise ValueError(f"{place}: `equals` is for numbers without chance, not for {unit}s")
    ((key, wanted),) = part["equals"].items()
    wanted = {str(value): number for value, number in wanted.items()}
    found = []
    for cell in select_cells(cells, {key: list(wanted)}, place):
        outcome = "open"
        if _counts(cell):
            same = all(value == wanted[cell.keys[key]] for value in cell.values.values())
            outcome = "supported" if same else "contradicted"
        found.append(Comparison(outcome, len(cell.values), "value"))
    return found


def _wider(
    cells: Sequence[Cell], part: Mapping[str, Any], unit: str, place: str
) -> list[Comparison]:
    left, right = (_spread(cells, part[side], place) for side in ("wider", "than"))
    return [_compare(left[0], right[0], left[1] and right[1], unit)]


def _spread(
    cells: Sequence[Cell], side: Mapping[str, Any], place: str
) -> tuple[dict[str, float], bool]:
    """Largest minus smallest over a key, mean over the other keys, by unit; and whether all cells
    are complete."""
    chosen = select_cells(cells, side.get("where", {}), place)
    check_key(chosen, side["over"], place)
    groups: dict[tuple[tuple[str, str], ...], list[Cell]] = {}
    for cell in chosen:
        groups.setdefault(_rest(cell, {side["over"]}), []).append(cell)
    units = set.intersection(*({*cell.values} for cell in chosen))
    spread = {
        unit: fmean(
            max(cell.values[unit] for cell in group) - min(cell.values[unit] for cell in group)
            for group in groups.values()
        )
        for unit in units
    }
    return spread, all(cell.complete for cell in chosen)


def _gains(
    cells: Sequence[Cell], part: Mapping[str, Any], unit: str, place: str
) -> list[Comparison]:
    """Supported when one place reaches it, contradicted when all places stay below."""
    found = []
    for gain, rests_on in gains(cells, part["gains"], part["over"], place):
        done = all(_counts(each) for each in rests_on)
        found.append(_compare(gain, dict.fromkeys(gain, float(part["reaches"])), done, unit))
    return [_any_of(found)] if found else []


def _leads(
    cells: Sequence[Cell], part: Mapping[str, Any], unit: str, place: str
) -> list[Comparison]:
    """Whether the lead of some cells over others is larger in one place than in another."""
    sides = []
    for where in (part["more_at"], part["than_at"]):
        leads = gains(
            select_cells(cells, where, place), part["leads"], [part["over"]], place, relative=False
        )
        sides.append({_rest(rests[0], {*where}): (lead, rests) for lead, rests in leads})
    left, right = sides
    found = []
    for group in left.keys() & right.keys():
        (lead, rests), (other, others) = left[group], right[group]
        done = all(cell.complete for cell in (*rests, *others))
        found.append(_compare(lead, other, done, unit))
    return found


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
            if _rest(other, compared) == _rest(cell, compared)
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


def _diverges(
    cells: Sequence[Cell], part: Mapping[str, Any], unit: str, place: str
) -> list[Comparison]:
    chosen = select_cells(cells, part["diverges"], place)
    return [
        Comparison(robustness.diverged(cell, part.get("or_below")), len(cell.values), unit)
        for cell in chosen
    ]


def _tolerates(
    cells: Sequence[Cell], part: Mapping[str, Any], unit: str, place: str
) -> list[Comparison]:
    key = part["tolerates"]
    check_key(cells, key, place)
    more, less = (_series_of(cells, part[side], key, place) for side in ("more", "than"))
    found = []
    for group in more.keys() & less.keys():
        done = all(cell.complete for cell in (*more[group], *less[group]))
        pairs = robustness.tolerance(more[group], less[group], key)
        found += [_compare(left, right, done, unit) for left, right in pairs]
    return found


def _series_of(
    cells: Sequence[Cell], these: Mapping[str, Any], key: str, place: str
) -> dict[tuple[tuple[str, str], ...], list[Cell]]:
    """Cells with `these` keys along a key, by all other keys."""
    found: dict[tuple[tuple[str, str], ...], list[Cell]] = {}
    for cell in select_cells(cells, these, place):
        found.setdefault(_rest(cell, {key, *these}), []).append(cell)
    return found


_MAKERS = {
    "greater": _greater,
    "differs": _differs,
    "agrees": _differs,
    "falls": _falls,
    "rises": _rises,
    "above": _above,
    "below": _below,
    "equals": _equals,
    "wider": _wider,
    "gains": _gains,
    "leads": _leads,
    "diverges": _diverges,
    "tolerates": _tolerates,
}


def _rest(cell: Cell, compared: set[str]) -> tuple[tuple[str, str], ...]:
    return tuple((key, value) for key, value in cell.keys.items() if key not in compared)


def _steps(
    cells: Sequence[Cell], key: str, beside: Sequence[str], place: str
) -> list[tuple[Cell, Cell]]:
    """Adjacent cells (smaller key, larger key) along a numeric key, all keys but those `beside` it
    equal."""
    check_key(cells, key, place)
    series: dict[tuple[tuple[str, str], ...], list[Cell]] = {}
    for cell in cells:
        series.setdefault(_rest(cell, {key, *beside}), []).append(cell)
    pairs: list[tuple[Cell, Cell]] = []
    for members in series.values():
        try:
            members.sort(key=lambda cell: float(cell.keys[key]))
        except ValueError as error:
            raise ValueError(f"{place}: {key} is not numeric: {error}") from error
        pairs += zip(members, members[1:], strict=False)
    return pairs
