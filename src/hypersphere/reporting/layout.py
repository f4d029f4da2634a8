"""The readable layout of an item: grids of cells, and the text in which numbers are shown."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from hypersphere.reporting.cells import Cell, Item
from hypersphere.reporting.declared import ByKey
from hypersphere.reporting.verdicts import (
    DIGITS,
    Judged,
    as_number,
    decimals,
    judge_item,
    verdict_counts,
)

LEGEND = (
    ("✓", "reproduced"),
    ("✗", "differs"),
    ("?", "inconclusive"),
    ("n/c", "not comparable"),
)
MARKS = {verdict: mark for mark, verdict in LEGEND} | {"not run": ""}
LEGEND_LINE = (
    "Marks: "
    + ", ".join(f"{mark} {verdict}" for mark, verdict in LEGEND)
    + "; k/n runs: not run yet, no average is shown before all planned runs are there."
)
QUICK_BANNER = (
    "QUICK PRESET: these numbers come from substitute data (small handwritten digits) and"
    " small networks. They are not comparable with the paper."
)


@dataclass(frozen=True)
class Grid:
    """One grid: `cells[row label][column label]` is the text, '' where the paper has no cell."""

    caption: str
    corner: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]


def quick_banner(item: Item) -> str:
    """The warning that a table of substitute data must carry, '' for any other table."""
    substitute = any(cell.protocol == "substitute" for cell in item.cells)
    return QUICK_BANNER if item.preset == "quick" and substitute else ""


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def places(item: Item, cell: Cell) -> int:
    """Decimals to show: the most that the paper prints in this metric, 3 where it prints none."""
    metric = cell.keys.get("metric")
    same = (other.published for other in item.cells if other.keys.get("metric") == metric)
    return most_decimals(same)


def most_decimals(printed: Iterable[str]) -> int:
    """The most decimals of the numbers among printed texts, 3 where there are none."""
    numbers = [text for text in printed if _finite(as_number(text))]
    return max(map(decimals, numbers), default=3)


def number_text(value: float | None) -> str:
    """A number with up to six decimals, `nan` for a divergence, blank when there is none."""
    if value is None:
        return ""
    if not math.isfinite(value):
        return str(value)
    text = f"{value:.{DIGITS}f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _fixed(value: float, digits: int) -> str:
    return f"{value + 0.0:.{digits}f}"


def ours_text(item: Item, cell: Cell, judged: Judged, digits: int) -> str:
    """`0.905 ± 0.005 (3)`, `1/3 runs`, or how many runs diverged (of a measure: how many have
    none, such as a ratio over nothing)."""
    if judged.n == 0:
        return f"{len(cell.values)}/{cell.planned} runs" if cell.planned else "not run"
    shown = []
    if _finite(judged.ours):
        spread = "" if judged.ours_std is None else f" ± {_fixed(judged.ours_std, digits)}"
        shown.append(_fixed(judged.ours, digits) + spread)
    if cell.diverged:
        what = "diverged" if item.printed else "without a number"
        shown.append(f"{cell.diverged}/{judged.n} {what}")
    return f"{', '.join(shown)} ({judged.n})"


def published_text(judged: Judged) -> str:
    """The paper's number as printed, with its deviation; `–` for blank, `diverged` for NaN."""
    number = as_number(judged.published)
    text = "diverged" if number is not None and math.isnan(number) else judged.published.strip()
    return (text or "–") + (f" ± {judged.published_std}" if judged.published_std.strip() else "")


def cell_text(item: Item, cell: Cell, judged: Judged) -> str:
    """`published → ours ± sd (n) mark`; ours alone where nothing is printed."""
    ours = ours_text(item, cell, judged, places(item, cell))
    if not item.printed:
        return ours
    text = f"{published_text(judged)} → {ours}"
    return f"{text} {MARKS[judged.verdict]}".rstrip()


def _label(keys: dict[str, str], names: tuple[str, ...]) -> str:
    return ", ".join(f"{name} = {keys[name]}" for name in names)


def shown_counts(item: Item) -> dict[str, int]:
    """How many cells got each verdict that occurs; `measured` where the paper prints no number to
    compare with."""
    counts = verdict_counts(item)
    if not item.printed:
        counts = {"measured": counts["not comparable"], "not run": counts["not run"]}
    return {verdict: number for verdict, number in counts.items() if number}


def fixed_names(item: Item) -> tuple[str, ...]:
    """The keys that are the same in every cell and label nothing."""
    return tuple(
        name
        for name in item.key_columns
        if name not in (*item.rows, *item.columns)
        and len({cell.keys[name] for cell in item.cells}) == 1
    )


def fixed_keys(item: Item) -> str:
    """`metric = accuracy`: the keys of `fixed_names` with their values."""
    return _label(item.cells[0].keys, fixed_names(item))


def grids(item: Item) -> list[Grid]:
    """One grid per combination of the varying keys that label neither rows nor columns."""
    placed = {*item.rows, *item.columns, *fixed_names(item)}
    spare = tuple(name for name in item.key_columns if name not in placed)
    groups: dict[str, list[tuple[Cell, Judged]]] = {}
    for cell, judged in judge_item(item):
        groups.setdefault(_label(cell.keys, spare), []).append((cell, judged))
    return [_grid(item, caption, members) for caption, members in groups.items()]


def _grid(item: Item, caption: str, members: list[tuple[Cell, Judged]]) -> Grid:
    texts: dict[tuple[str, ...], dict[tuple[str, ...], str]] = {}
    columns: dict[tuple[str, ...], None] = {}
    for cell, judged in members:
        row = tuple(cell.keys[name] for name in item.rows)
        column = tuple(cell.keys[name] for name in item.columns)
        columns[column] = None
        texts.setdefault(row, {})[column] = cell_text(item, cell, judged)
    ordered = grouped(columns)
    by_row = grouped(texts, numbers=False)  # the paper's order
    rows = tuple((row, tuple(texts[row].get(c, "") for c in ordered)) for row in by_row)
    names = tuple(" / ".join(column) or item.metric_label for column in ordered)
    return Grid(caption, item.rows, names, rows)


def grids_beside(item: Item) -> list[Grid]:
    """One grid for each publication of others, with the item's rows and columns as far as it has
    them, in the order in which it prints them."""
    found = []
    for beside in item.beside:
        keys = beside.numbers[0][0]
        rows, columns = (
            tuple(name for name in names if name in keys) for names in (item.rows, item.columns)
        )
        texts: dict[tuple[str, ...], dict[tuple[str, ...], str]] = {}
        for labels, text in beside.numbers:
            row = texts.setdefault(tuple(labels[name] for name in rows), {})
            row[tuple(labels[name] for name in columns)] = text
        across = grouped({column: None for row in texts.values() for column in row})
        found.append(
            Grid(
                beside.title,
                rows,
                tuple(" / ".join(column) or item.metric_label for column in across),
                tuple((row, tuple(each.get(c, "") for c in across)) for row, each in texts.items()),
            )
        )
    return found


def grouped(labels: Iterable[tuple[str, ...]], numbers: bool = True) -> list[tuple[str, ...]]:
    """Labels of several parts with those beside each other that share their first part, and so on,
    in the order they come in; with `numbers` parts that are numbers in ascending order."""
    found = list(labels)
    order = ascending if numbers else dict.fromkeys
    places = [{v: i for i, v in enumerate(order(values))} for values in zip(*found, strict=True)]
    return sorted(found, key=lambda label: [places[i][value] for i, value in enumerate(label)])


def ascending(values: Iterable[str]) -> list[str]:
    """Each once: in ascending order where all are numbers, else in the order they come in."""
    found = list(dict.fromkeys(values))
    try:
        return sorted(found, key=float)
    except ValueError:
        return found


def margin_text(item: Item) -> str:
    """`0.02`, or `5 (gain), 0.05 (ratio)` where it depends on a key column."""
    if isinstance(item.margin, ByKey):
        each = item.margin.told().items()
        return ", ".join(f"{number_text(margin)} ({value})" for value, margin in each)
    return number_text(item.margin)


def reading_line(item: Item) -> str:
    """How to read a cell of this item, in one sentence."""
    columns = f"; columns: {' / '.join(item.columns)}" if item.columns else ""
    fixed = f" Throughout: {fixed_keys(item)}." if fixed_keys(item) else ""
    unit = "values, no chance involved" if item.unit == "deterministic" else f"{item.unit}s"
    cell = f"ours ± standard deviation (n {unit})"
    if item.printed:
        cell = f"published → {cell} mark; margin ± {margin_text(item)}"
    return (
        f"{item.metric_label[:1].upper()}{item.metric_label[1:]}. Rows: {' / '.join(item.rows)}"
        f"{columns}. A cell reads: {cell}.{fixed}"
    )
