"""Numbers by rank, with thresholds and how many reach each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator

from hypersphere.reporting.cells import Item
from hypersphere.reporting.kinds import Bars
from hypersphere.reporting.plots.style import COLOURS, panels, save, titled


def write(item: Item, plot: Bars, folder: Path) -> tuple[Path, Path] | None:
    """Write `<item>.png` and `<item>.pdf`; None when there are no counts yet."""
    found = [arrays for cell in item.cells for arrays in cell.arrays.values()]
    if not found:
        return None
    counts = np.sort(found[0]["counts"])[::-1]
    with panels(1, wide=1.3) as (figure, axes):
        axis = axes[0]
        axis.bar(np.arange(1, len(counts) + 1), counts, width=1.0, color=COLOURS[0], linewidth=0)
        for threshold in sorted({float(cell.keys[plot.thresholds]) for cell in item.cells}):
            number = int((counts >= threshold).sum())
            axis.axhline(threshold, color="0.3", linewidth=0.6, linestyle="--")
            axis.annotate(
                f"{number} classes with {threshold:g} or more", (len(counts), threshold),
                ha="right", va="bottom", fontsize=7,
            )  # fmt: skip
        axis.set_xlabel(plot.x_label)
        axis.set_ylabel(plot.y_label)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_xlim(0.5, len(counts) + 0.5)
        figure.suptitle(titled(item, 1.3), fontsize=8.5)
        return save(figure, item, folder)
