"""The parts of a claim: what is compared with what, over the same units.

A part names `tables` (or figures, by item; `figure6--cifar-100` is one's variant) and optionally
`where` (key -> value or values), and one of the kinds below. Those that compare with a number
(`above`, `below`, `equals`, `gains`) are open unless the protocol is the paper's. An order shows
after a shortened training as well, but not by how much (`by`: two networks near chance are never
far apart): such a part is open there. `shortened: true` says that a size holds for any training
(the bound of a function, a collapse), `shortened: false` that an order needs all of it.

* `greater` with `than`: cells with these keys against those that agree in every other key; `by`: at
  least so much greater (negative: not much less), in the table's unit; `any: true`: in at least one
  place of all tables (one comparison; each place is held to its share of the level);
  `on_average: true`: in the mean over all places, unit by unit; `with`: another table of the same
  keys whose cells are compared too, where both have the same protocol;
* `differs` with `than` and `by`: these cells and those, whichever is greater: supported when the
  90 % interval of the difference lies wholly outside +-by, contradicted when it lies inside;
* `agrees` with `than` and `by`: the other way round, no farther apart than that;
* `falls` or `rises`: adjacent cells along a numeric key; `beside`: keys that change with it; with
  `gain` and `over` not the cells' values but the relative gains of those over these;
* `above` or `below`: every cell against a number;
* `equals`: key column -> {its value: the number}, for numbers without chance;
* `wider` with `than`: the spread (largest minus smallest, mean over all other keys) `over` a key
  among the cells `where`, against another spread; `by` as above;
* `diverges`: cells with these keys have no number, or (`or_below`) not more than chance gives;
* `tolerates` a numeric key, with `more` and `than`: those cells against these, over all values of
  the key (robustness.py);
* `gains` with `over` and `reaches`: the relative gain of cells with these keys over the best of the
  others reaches a number in at least one place of all tables (as with `any`);
* `leads` with `over`, `more_at` and `than_at`: by how much cells with these keys lead those others
  is more in one place than in another (by draws: open unless both places share a base model or
  have three).

By draws of examples one model against another decides nothing (paired.can_decide).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hypersphere.reporting.cells import Cell, Item, select_cells
from hypersphere.reporting.comparisons import numbers, orders
from hypersphere.reporting.comparisons.paired import Comparison, Part, any_of
from hypersphere.reporting.verdicts import CHANCE

__all__ = ["Comparison", "comparisons"]


@dataclass(frozen=True)
class _Kind:
    """How a kind's comparisons are made, and which words stand beside its own: those it needs, and
    those it may have."""

    make: Callable[[Sequence[Cell], Part, str, str], list[Comparison]]
    needs: set[str] = field(default_factory=set)
    may: set[str] = field(default_factory=set)


KINDS = {
    "greater": _Kind(orders.greater, {"than"}, {"by", "any", "on_average", "with"}),
    "differs": _Kind(orders.differs, {"than", "by"}),
    "agrees": _Kind(orders.differs, {"than", "by"}),
    "falls": _Kind(orders.falls, may={"beside", "gain", "over"}),
    "rises": _Kind(orders.rises, may={"beside", "gain", "over"}),
    "above": _Kind(numbers.above),
    "below": _Kind(numbers.below),
    "equals": _Kind(numbers.equals),
    "wider": _Kind(orders.wider, {"than"}, {"by"}),
    "gains": _Kind(numbers.reaches, {"over", "reaches"}),
    "leads": _Kind(orders.leads, {"over", "more_at", "than_at"}),
    "diverges": _Kind(numbers.diverges, may={"or_below"}),
    "tolerates": _Kind(orders.tolerates, {"more", "than"}),
}


def comparisons(part: Mapping[str, Any], items: Mapping[str, Item], where: str) -> list[Comparison]:
    """All comparisons of a part. Raises ValueError when it names what does not exist."""
    kind = _kind(part, where)
    found = _made(kind, part, items, where)
    if not (part.get("any") or "gains" in part):
        return found
    strict = _made(kind, {**part, "level": CHANCE / len(found)}, items, where)
    return [any_of(found, strict)]


def _made(kind: _Kind, part: Part, items: Mapping[str, Item], where: str) -> list[Comparison]:
    if not part.get("tables"):
        raise ValueError(f"{where}: a part names no `tables`")
    found = []
    for name in part["tables"]:
        if name not in items:
            raise ValueError(f"{where}: no table {name!r}, there are {sorted(items)}")
        place, unit = f"{where}: {name}", items[name].unit
        every = [*items[name].cells, *_beside(part, items, items[name], where)]
        cells = select_cells(every, part.get("where", {}), place)
        made = kind.make(cells, part, unit, place)
        if not made:
            raise ValueError(f"{place}: no two cells to compare in {dict(part)}")
        if not part.get("shortened", "by" not in part) and _any_shortened(cells):
            made = [replace(each, outcome="open", needs=None) for each in made]
        found += made
    return found


def _any_shortened(cells: Sequence[Cell]) -> bool:
    return any(cell.protocol == "shortened" for cell in cells)


def _beside(
    part: Mapping[str, Any], items: Mapping[str, Item], item: Item, where: str
) -> Sequence[Cell]:
    """Cells of the table that a part compares `with`."""
    if (name := part.get("with")) is None:
        return ()
    if name not in items or items[name].unit != item.unit:
        raise ValueError(f"{where}: with: no table {name!r} by {item.unit}")
    return items[name].cells


def _kind(part: Mapping[str, Any], where: str) -> _Kind:
    names = [name for name in KINDS if name in part]
    if len(names) == 1:
        kind = KINDS[names[0]]
        may = {"tables", "where", "shortened", *kind.may}
        if kind.needs <= part.keys() <= {names[0], *kind.needs, *may}:
            return kind
    *others, last = (_words(name, kind) for name, kind in KINDS.items())
    raise ValueError(
        f"{where}: a part has `tables`, optional `where`, and one of {', '.join(others)} or {last};"
        f" got {sorted(part)}"
    )


def _words(name: str, kind: _Kind) -> str:
    beside = " and ".join(f"`{each}`" for each in sorted(kind.needs))
    return f"`{name}` with {beside}" if beside else f"`{name}`"
