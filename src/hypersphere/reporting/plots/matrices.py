"""Cosines between class vectors as matrices, and beside them how often the classes are confused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from hypersphere.reporting.cells import Cell, Item
from hypersphere.reporting.kinds import Matrices
from hypersphere.reporting.plots.style import COLOURS, panels, save, several, titled

NAMED = 12  # classes, of which each has its name at the side


def write(item: Item, plot: Matrices, folder: Path) -> tuple[Path, Path] | None:
    """Write `<item>.png` and `<item>.pdf`; None when no run has its matrix yet."""
    shown = _first_of_each(item, plot)
    if not shown:
        return None
    confused = [each for each in shown if each[0] == plot.confusions]
    number = len(shown) + len(confused)
    with panels(number, high=1.1) as (figure, axes):
        image = None
        for axis, (name, unit, arrays, _) in zip(axes, shown, strict=False):
            image = _matrix(axis, arrays["cosines"].astype(float), plot)
            axis.set_title(f"{plot.name.format(name)}, {item.unit} {unit}", fontsize=8)
        figure.colorbar(image, ax=list(axes[: len(shown)]), shrink=0.75, label="cosine")
        for axis, (name, unit, arrays, cell) in zip(axes[len(shown) :], confused, strict=True):
            _confusions(axis, arrays)
            title = f"{plot.name.format(name)}, {item.unit} {unit}"
            axis.set_title("\n".join([title, *_measured(item, plot, cell)]), fontsize=8)
        figure.suptitle(titled(item, number), fontsize=8.5)
        return save(figure, item, folder)


Shown = tuple[str, str, Mapping[str, np.ndarray], Cell]


def _first_of_each(item: Item, plot: Matrices) -> list[Shown]:
    """(value of the key `panels`, unit, arrays, cell) of the first unit of each panel."""
    found: dict[str, Shown] = {}
    for cell in item.cells:
        for unit in sorted(cell.arrays)[:1]:
            name = cell.keys[plot.panels]
            found.setdefault(name, (name, unit, cell.arrays[unit], cell))
    return list(found.values())


def _matrix(axis: Axes, cosines: np.ndarray, plot: Matrices) -> object:
    image = axis.imshow(cosines, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    number = len(cosines)
    names = plot.class_names if len(plot.class_names) == number else range(number)
    if number <= NAMED:
        axis.set_xticks(range(number), names, rotation=90, fontsize=6.5)
        axis.set_yticks(range(number), names, fontsize=6.5)
        for (i, j), value in np.ndenumerate(cosines):
            if i != j:
                strong = abs(value) > 0.6
                axis.text(j, i, f"{value:.2f}".replace("0.", "."), ha="center", va="center",
                          fontsize=4.5, color="white" if strong else "0.25")  # fmt: skip
    else:
        axis.set_xlabel("class")
        axis.set_ylabel("class")
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)
    return image


def _confusions(axis: Axes, arrays: Mapping[str, np.ndarray]) -> None:
    apart = ~np.eye(len(arrays["cosines"]), dtype=bool)
    axis.plot(arrays["cosines"][apart].astype(float), arrays["confusions"][apart], "o",
              color=COLOURS[0], markersize=2.5, alpha=0.6, markeredgewidth=0,
              rasterized=True)  # fmt: skip
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("cosine between the class vectors")
    axis.set_ylabel("images of the one class called the other")


def _measured(item: Item, plot: Matrices, shown: Cell) -> list[str]:
    """The measure of the caption, of the network whose confusions are shown."""
    wanted = {**shown.keys, plot.measure: plot.caption}
    found = [cell for cell in item.cells if cell.complete and cell.keys == wanted]
    return [
        f"{plot.caption}: {np.mean([*cell.values.values()]):.2f}"
        f" ({several(len(cell.values), item.unit)})"
        for cell in found
    ]
