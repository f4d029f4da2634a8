"""Boxes and arrows, from what a computation found on live objects."""

from __future__ import annotations

from pathlib import Path

from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from hypersphere.reporting.cells import Item
from hypersphere.reporting.plots.style import COLOURS, panels, save, titled

WIDTH, HEIGHT = 0.78, 0.56  # of a box, in steps of the grid
FILLS = {"data": "#FFFFFF", "frozen": "#DDE6EE", "new": "#F7D9C4", "space": "#F7D9C4"}


def write(item: Item, folder: Path) -> tuple[Path, Path] | None:
    """Write `<item>.png` and `<item>.pdf`; None when the diagram is not worked out yet."""
    found = [arrays for cell in item.cells for arrays in cell.arrays.values()]
    if not found:
        return None
    diagram = found[0]
    x, y = diagram["x"].astype(float), diagram["y"].astype(float)
    wide = (x.max() - x.min() + 1) * 0.42
    with panels(1, wide=wide, high=(y.max() - y.min() + 1) * 0.24 + 0.3) as (figure, axes):
        axis = axes[0]
        boxes = [
            _box(axis, *parts)
            for parts in zip(x, y, diagram["labels"], diagram["details"], diagram["roles"],
                             strict=True)
        ]  # fmt: skip
        arrows = zip(diagram["sources"], diagram["targets"], diagram["notes"], strict=True)
        for source, target, note in arrows:
            dashed = "--" if diagram["roles"][target] == "new" else "-"
            axis.add_patch(
                FancyArrowPatch(
                    (x[source], y[source]), (x[target], y[target]), arrowstyle="-|>",
                    mutation_scale=8, linewidth=0.8, linestyle=dashed, color="0.25",
                    patchA=boxes[source], patchB=boxes[target], shrinkA=2, shrinkB=2,
                )
            )  # fmt: skip
            above = ((x[source] + x[target]) / 2, (y[source] + y[target]) / 2 + 0.04)
            axis.annotate(str(note), above, fontsize=6, ha="center", va="bottom", color=COLOURS[1])
        axis.set_xlim(x.min() - 0.6, x.max() + 0.6)
        axis.set_ylim(y.min() - 0.5, y.max() + 0.5)
        axis.axis("off")
        figure.suptitle(titled(item, wide), fontsize=8.5)
        return save(figure, item, folder)


def _box(axis: object, x: float, y: float, label: str, detail: str, role: str) -> FancyBboxPatch:
    box = FancyBboxPatch(
        (x - WIDTH / 2, y - HEIGHT / 2), WIDTH, HEIGHT,
        boxstyle="round,pad=0.02,rounding_size=0.06", facecolor=FILLS[str(role)],
        edgecolor="0.25", linewidth=0.8,
        linestyle="--" if str(role) == "new" else "-",
    )  # fmt: skip
    axis.add_patch(box)  # type: ignore[attr-defined]
    text = f"{label}\n{detail}" if str(detail) else str(label)
    axis.annotate(text, (x, y), ha="center", va="center", fontsize=6.5)  # type: ignore[attr-defined]
    return box
