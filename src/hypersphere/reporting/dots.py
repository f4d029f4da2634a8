"""A table as a picture: the published value beside every single one of ours."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from hypersphere.files import write_atomically
from hypersphere.reporting.cells import Cell, Item
from hypersphere.reporting.layout import quick_banner
from hypersphere.reporting.verdicts import as_number, judge

# Okabe and Ito's colours, told apart with any kind of colour vision; markers repeat the message.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
PANEL = (3.6, 3.2)  # inches: a column of a paper
STYLE = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,
    "svg.hashsalt": "hypersphere",
}


def write(item: Item, folder: Path) -> tuple[Path, Path] | None:
    """Write `<item>.png` and `<item>.pdf`; None when no cell is complete yet.

    One panel per value of the leading column keys, one colour per value of the last one, the
    first row key along the x axis. Published: a horizontal bar; ours: a dot per unit and the mean
    with the 90 % interval of its difference. Equal items give equal bytes.
    """
    if not any(cell.complete for cell in item.cells):
        return None
    panels: dict[str, list[Cell]] = {}
    for cell in item.cells:
        panels.setdefault(", ".join(cell.keys[c] for c in item.columns[:-1]), []).append(cell)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1,
            len(panels),
            figsize=(PANEL[0] * len(panels), PANEL[1]),
            sharey=True,
            squeeze=False,
            layout="constrained",
        )
        for axis, (name, cells) in zip(axes[0], panels.items(), strict=True):
            _panel(axis, item, cells)
            axis.set_title(name, fontsize=8)
        axes[0][0].set_ylabel(item.metric_label)
        figure.suptitle(item.title + _warning(item), fontsize=8.5)
        columns = min(3 * len(panels), 6)
        figure.legend(
            handles=_legend(item), loc="outside lower center", ncols=columns, frameon=False,
            fontsize=7,
        )  # fmt: skip
        paths = (folder / f"{item.stem}.png", folder / f"{item.stem}.pdf")
        for path, metadata in zip(paths, ({"Software": None}, {"CreationDate": None}), strict=True):
            kind = path.suffix[1:]
            write_atomically(
                path,
                lambda file, kind=kind, m=metadata: figure.savefig(
                    file, format=kind, dpi=150, metadata=m
                ),
            )
        plt.close(figure)
    return paths


def _panel(axis: Axes, item: Item, cells: list[Cell]) -> None:
    rows = list(dict.fromkeys(cell.keys[item.rows[0]] for cell in cells))
    series = _series(item)
    width = 0.8 / len(series)
    for cell in cells:
        index = series.index(_last(item, cell))
        x = rows.index(cell.keys[item.rows[0]]) + (index - (len(series) - 1) / 2) * width
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
        judged = judge(cell, item.unit, item.margin)
        if judged.ours is not None and judged.low is not None and math.isfinite(judged.low):
            half = (judged.high - judged.low) / 2 if judged.high is not None else 0
            axis.errorbar(
                x, judged.ours, half, fmt=marker, color=colour, mfc="white", markersize=4,
                linewidth=0.9,
            )  # fmt: skip
    axis.set_xticks(range(len(rows)), rows)
    axis.set_xlabel(item.rows[0])
    axis.grid(axis="y", linewidth=0.3)


def _series(item: Item) -> list[str]:
    return list(dict.fromkeys(_last(item, cell) for cell in item.cells))


def _last(item: Item, cell: Cell) -> str:
    return cell.keys[item.columns[-1]] if item.columns else item.metric_label


def _legend(item: Item) -> list[Line2D]:
    names = [
        Line2D([], [], color=COLOURS[i % len(COLOURS)], marker=MARKERS[i % len(MARKERS)], ls="",
               markersize=4, label=name)
        for i, name in enumerate(_series(item))
    ]  # fmt: skip
    return [
        *names,
        Line2D([], [], color="0.3", linewidth=2, label="published"),
        Line2D([], [], color="0.3", marker="o", ls="", alpha=0.55, markersize=3.5,
               label=f"ours, one {item.unit}"),
        Line2D([], [], color="0.3", marker="o", mfc="white", linewidth=0.9, markersize=4,
               label="mean, 90 % interval"),
    ]  # fmt: skip


def _warning(item: Item) -> str:
    if quick_banner(item):
        return "\nquick preset: substitute data,\nnot comparable with the paper"
    protocols = sorted({cell.protocol for cell in item.cells} - {"exact"})
    return f"\n{', '.join(protocols)} protocol: not comparable" if protocols else ""
