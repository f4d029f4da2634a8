"""A table as a picture: the published value beside every single one of ours."""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from hypersphere.reporting.cells import Cell, Item
from hypersphere.reporting.layout import ascending
from hypersphere.reporting.plots.style import COLOURS, MARKERS, in_a_row, panels, save, titled
from hypersphere.reporting.verdicts import Judged, as_number, judge


def write(item: Item, folder: Path) -> tuple[Path, Path] | None:
    """Write `<item>.png` and `<item>.pdf`; None when no cell is complete yet.

    One panel per value of the leading column keys, one colour per value of the last one, the
    row keys along the x axis. Published: a horizontal bar; ours: a dot per unit and the mean with
    the 90 % interval of its difference, or where nothing is printed with one standard deviation.
    """
    if not any(cell.complete for cell in item.cells):
        return None
    groups: dict[str, list[Cell]] = {}
    for cell in item.cells:
        groups.setdefault(", ".join(cell.keys[c] for c in item.columns[:-1]), []).append(cell)
    with panels(len(groups), sharey=True) as (figure, axes):
        for axis, (name, cells) in zip(axes, groups.items(), strict=True):
            _panel(axis, item, cells)
            axis.set_title(name, fontsize=8)
        axes[0].set_ylabel(item.metric_label)
        figure.suptitle(titled(item, len(groups)), fontsize=8.5)
        handles = _legend(item)
        figure.legend(
            handles=handles, loc="outside lower center", frameon=False, fontsize=7,
            ncols=in_a_row(handles, len(groups), most=min(3 * len(groups), 6)),
        )  # fmt: skip
        return save(figure, item, folder)


def _panel(axis: Axes, item: Item, cells: list[Cell]) -> None:
    rows = list(dict.fromkeys(_row(item, cell) for cell in cells))
    own = [name for name in _series(item) if name in {_last(item, cell) for cell in cells}]
    width = 0.8 / len(own)
    for cell in cells:
        place, index = own.index(_last(item, cell)), _series(item).index(_last(item, cell))
        x = rows.index(_row(item, cell)) + (place - (len(own) - 1) / 2) * width
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        published = as_number(cell.published)
        if published is not None and math.isfinite(published):
            axis.hlines(published, x - 0.4 * width, x + 0.4 * width, color=colour, linewidth=2)
        if not cell.complete:
            continue
        values = [value for value in cell.values.values() if math.isfinite(value)]
        axis.plot(
            [x] * len(values), values, marker, color=colour, markersize=3.5, alpha=0.55,
            markeredgewidth=0, linestyle="none",
        )  # fmt: skip
        judged = judge(cell, item.unit_of(cell), item.margin_of(cell))
        half = _half(judged)
        if half is not None:
            axis.errorbar(
                x, judged.ours, half, fmt=marker, color=colour, mfc="white", markersize=4,
                linewidth=0.9,
            )  # fmt: skip
    crowded = len(rows) > 5 and max(map(len, rows)) > 5
    axis.set_xticks(range(len(rows)), rows, rotation=40 if crowded else 0,
                    ha="right" if crowded else "center")  # fmt: skip
    axis.set_xlabel(", ".join(item.rows))
    axis.grid(axis="y", linewidth=0.3)


def _half(judged: Judged) -> float | None:
    """Half the length of the bar at our mean, None where there is no mean to show."""
    if judged.ours is None or not math.isfinite(judged.ours):
        return None
    if as_number(judged.published) is None:
        return judged.ours_std or 0.0
    if judged.low is None or judged.high is None or not math.isfinite(judged.low):
        return None
    return (judged.high - judged.low) / 2


def _row(item: Item, cell: Cell) -> str:
    return " ".join(cell.keys[name] for name in item.rows)


def _series(item: Item) -> list[str]:
    return ascending(_last(item, cell) for cell in item.cells)


def _last(item: Item, cell: Cell) -> str:
    return cell.keys[item.columns[-1]] if item.columns else item.metric_label


def _legend(item: Item) -> list[Line2D]:
    names = [
        Line2D([], [], color=COLOURS[i % len(COLOURS)], marker=MARKERS[i % len(MARKERS)], ls="",
               markersize=4, label=name)
        for i, name in enumerate(_series(item))
    ]  # fmt: skip
    printed = any(as_number(cell.published) is not None for cell in item.cells)
    return [
        *names,
        *([Line2D([], [], color="0.3", linewidth=2, label="published")] if printed else []),
        Line2D([], [], color="0.3", marker="o", ls="", alpha=0.55, markersize=3.5,
               label=f"ours, one {item.unit}"),
        Line2D([], [], color="0.3", marker="o", mfc="white", linewidth=0.9, markersize=4,
               label="mean, 90 % interval" if printed else "mean, one standard deviation"),
    ]  # fmt: skip
