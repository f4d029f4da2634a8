"""From what a person types (`nsl table2 NSL 3`) to cells of a table, with our numbers in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hypersphere.errors import UserError, did_you_mean
from hypersphere.papers.plan import plan_item
from hypersphere.papers.planned import PlannedCell, PlannedItem
from hypersphere.papers.render import judged_items, settled
from hypersphere.papers.spec import PRESETS, paper
from hypersphere.reporting.cells import Cell, Item
from hypersphere.reporting.verdicts import Judged, judge
from hypersphere.store import Store


@dataclass(frozen=True)
class Found:
    """One cell: as planned (the best setting alone, where it shows the best of several), with our
    numbers, and judged."""

    item: Item
    planned_item: PlannedItem
    planned: PlannedCell
    cell: Cell
    judged: Judged

    @property
    def name(self) -> str:
        """`nsl table2, preset small`."""
        return f"{self.item.paper} {self.item.stem}, preset {self.item.preset}"


def find(
    key: str, name: str, words: Sequence[str], preset: str, variant: str, store: Store
) -> list[Found]:
    """The cells of an item that `words` choose: each is `column=value`, or a value that stands in
    one column alone. All cells where there are no words.

    Raises UserError for what does not exist, naming what does.
    """
    check_preset(preset)
    declared = paper(key)
    whole = plan_item(declared, declared.item(name), preset)
    items = judged_items(whole, store)
    variants = {item.variant: item for item in items}
    if variant not in variants:
        known = ", ".join(filter(None, variants)) or "none"
        hint = did_you_mean(variant, variants)
        raise UserError(f"{key} {name}: no variant {variant!r}{hint} (there are: {known})")
    item, planned = variants[variant], whole.only(variant)
    found = [
        Found(item, planned, settled(one, store)[0], cell, _judged(item, cell))
        for one, cell in zip(planned.cells, item.cells, strict=True)
    ]
    for word in words:
        found = _chosen(found, word, f"{key} {name}")
    return found


def only(found: Sequence[Found], where: str) -> Found:
    """The cell, where one alone was found. Raises UserError telling what to choose among."""
    if len(found) > 1:
        keys = [each.cell.keys for each in found]
        values = {name: dict.fromkeys(each[name] for each in keys) for name in keys[0]}
        told = "; ".join(f"{name}: {', '.join(v)}" for name, v in values.items() if len(v) > 1)
        raise UserError(f"{where}: names {len(found)} cells; choose one ({told})")
    return found[0]


def parse(text: str, preset: str) -> tuple[str, str, list[str], str]:
    """Paper, item, words and preset of `[preset:]paper/item[/word,word...]`."""
    first, colon, rest = text.partition(":")
    if colon and first in PRESETS:
        preset, text = first, rest
    parts = text.split("/", 2)
    if len(parts) < 2:
        raise UserError(
            f"{text!r}: neither a run nor a cell; a cell is written paper/item/value,value"
            " (nsl/table2/NSL,3), small:nsl/table2/NSL,3 in a preset of its own"
        )
    words = [word for word in (parts[2] if parts[2:] else "").split(",") if word]
    return parts[0], parts[1], words, preset


def check_preset(preset: str) -> None:
    if preset not in PRESETS:
        hint = did_you_mean(preset, PRESETS)
        raise UserError(f"no preset {preset!r}{hint} (presets: {', '.join(PRESETS)})")


def _judged(item: Item, cell: Cell) -> Judged:
    return judge(cell, item.unit_of(cell), item.margin_of(cell))


def _chosen(found: list[Found], word: str, where: str) -> list[Found]:
    columns = list(found[0].cell.keys)
    column, equals, value = word.partition("=")
    if equals and column in columns:
        values = dict.fromkeys(each.cell.keys[column] for each in found)
        wanted = _equal(value, list(values))
        if wanted is None:
            hint = did_you_mean(value, values)
            raise UserError(
                f"{where}: no {column} {value!r}{hint} (there are: {', '.join(values)})"
            )
        return [each for each in found if each.cell.keys[column] == wanted]
    in_columns = {
        name: wanted
        for name in columns
        if (wanted := _equal(word, [each.cell.keys[name] for each in found])) is not None
    }
    if len(in_columns) > 1 and len(found) > 1:
        either = " or ".join(f"{name}={value}" for name, value in in_columns.items())
        raise UserError(f"{where}: {word!r} stands in several columns; write {either}")
    if not in_columns:
        values = dict.fromkeys(v for each in found for v in each.cell.keys.values())
        told = "; ".join(
            f"{name}: {', '.join(dict.fromkeys(each.cell.keys[name] for each in found))}"
            for name in columns
        )
        raise UserError(f"{where}: no cell {word!r}{did_you_mean(word, values)} ({told})")
    column, wanted = next(iter(in_columns.items()))
    return [each for each in found if each.cell.keys[column] == wanted]


def _equal(word: str, values: Sequence[str]) -> str | None:
    """The value that a word means: itself, or the one that differs in upper and lower case."""
    if word in values:
        return word
    alike = {value for value in values if value.casefold() == word.casefold()}
    return alike.pop() if len(alike) == 1 else None
