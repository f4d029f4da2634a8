"""Curves over a numeric key: mean over the units, and a band of one standard deviation."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import fmean, stdev

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from hypersphere.reporting.cells import Cell, Item
from hypersphere.reporting.kinds import Lines
from hypersphere.reporting.plots.style import in_a_row, look, panels, save, several, titled
from hypersphere.reporting.verdicts import as_number


def write(item: Item, plot: Lines, folder: Path) -> tuple[Path, Path] | None:
    """Write `<item>.png` and `<item>.pdf`; None when no cell is complete yet."""
    if not any(cell.complete for cell in item.cells):
        return None
    groups: dict[str, list[Cell]] = {}
    for cell in item.cells:
        groups.setdefault(cell.keys[plot.panels] if plot.panels else "", []).append(cell)
    series = list(dict.fromkeys(cell.keys[plot.series] for cell in item.cells))
    with panels(len(groups), sharey=True) as (figure, axes):
        for axis, (name, cells) in zip(axes, groups.items(), strict=True):
            _panel(axis, plot, cells, series)
            axis.set_title(plot.panel_name.format(name), fontsize=8)
        axes[0].set_ylabel(plot.y_label)
        figure.suptitle(titled(item, len(groups)), fontsize=8.5)
        handles = _legend(item, plot, series)
        figure.legend(
            handles=handles, loc="outside lower center",
            ncols=in_a_row(handles, len(groups), most=min(4 * len(groups), 8)), frameon=False,
            fontsize=7, title=_band(item), title_fontsize=7, columnspacing=1.0, handlelength=1.6,
        )  # fmt: skip
        return save(figure, item, folder)


def _panel(axis: Axes, plot: Lines, cells: list[Cell], series: list[str]) -> None:
    for index, name in enumerate(series):
        colour, marker = look(index)
        mine = [cell for cell in cells if cell.keys[plot.series] == name]
        mine.sort(key=lambda cell: _x(plot, cell))
        done = [cell for cell in mine if cell.complete]
        points = [(_x(plot, c), _finite(c)) for c in done]
        points = [(x, values) for x, values in points if values]
        if points:
            xs = [x for x, _ in points]
            means = [fmean(values) for _, values in points]
            spread = [stdev(values) if len(values) > 1 else 0.0 for _, values in points]
            low = [m - s for m, s in zip(means, spread, strict=True)]
            high = [m + s for m, s in zip(means, spread, strict=True)]
            axis.plot(xs, means, color=colour, marker=marker, markersize=3.5, linewidth=1.1)
            axis.fill_between(xs, low, high, color=colour, alpha=0.15, linewidth=0)
        for cell in mine:
            published = as_number(cell.published)
            if published is not None and math.isfinite(published):
                axis.plot(_x(plot, cell), published, "x", color=colour, markersize=5)
    if plot.reference is not None:
        axis.axhline(plot.reference, color="0.5", linewidth=0.8, linestyle="--")
    xs = sorted({_x(plot, cell) for cell in cells})
    if len(xs) <= 12:
        axis.set_xticks(xs, [f"{x:g}" for x in xs])
    axis.set_xlabel(plot.x_label)
    axis.grid(axis="y", linewidth=0.3)


def _x(plot: Lines, cell: Cell) -> float:
    return float(cell.keys[plot.x])


def _finite(cell: Cell) -> list[float]:
    return [value for value in cell.values.values() if math.isfinite(value)]


def _band(item: Item) -> str:
    """How many repeats the marks stand for; cells may have different numbers of them."""
    numbers = sorted({len(cell.values) for cell in item.cells if cell.complete}) or [1]
    if numbers == [1]:
        return f"one {item.unit}"
    fewer = "".join(f"{number} or " for number in numbers[:-1])
    return f"mean of {fewer}{several(numbers[-1], item.unit)}; band: one standard deviation"


def _legend(item: Item, plot: Lines, series: list[str]) -> list[Line2D]:
    handles = []
    for index, name in enumerate(series):
        colour, marker = look(index)
        handles.append(
            Line2D([], [], color=colour, marker=marker, markersize=3.5, linewidth=1.1,
                   label=plot.name.format(name))
        )  # fmt: skip
    if plot.reference is not None:
        handles.append(
            Line2D([], [], color="0.5", linewidth=0.8, ls="--", label=plot.reference_label)
        )
    if any(as_number(cell.published) is not None for cell in item.cells):
        handles.append(Line2D([], [], color="0.3", marker="x", ls="", label="published"))
    return handles
