"""Embeddings in the plane around their class vectors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from hypersphere.reporting.cells import Item
from hypersphere.reporting.plots.style import look, panels, save, titled

FIRST_RING, RING = 1.3, 0.07  # radii of the features of class 0, and from class to class


def write(item: Item, folder: Path) -> tuple[Path, Path] | None:
    """Write `<item>.png` and `<item>.pdf`; None when no run has its scatter yet."""
    shown = _first_of_each(item)
    if not shown:
        return None
    with panels(len(shown), high=1.25) as (figure, axes):
        for axis, (name, unit, arrays) in zip(axes, shown, strict=True):
            _panel(axis, arrays)
            axis.set_title(f"{name}, {item.unit} {unit}", fontsize=8)
        figure.suptitle(titled(item, len(shown)), fontsize=8.5)
        number = max(len(arrays["class_vectors"]) for _, _, arrays in shown)
        figure.legend(
            handles=_legend(number), loc="outside lower center", ncols=5, frameon=False,
            fontsize=7, title="circle: class vectors; rings outside: features, one per class",
            title_fontsize=7, columnspacing=0.8, handletextpad=0.1,
        )  # fmt: skip
        return save(figure, item, folder)


def _first_of_each(item: Item) -> list[tuple[str, str, Mapping[str, np.ndarray]]]:
    """(dataset, unit, arrays) of the first unit of each different run."""
    found: dict[str, tuple[str, str, Mapping[str, np.ndarray]]] = {}
    for cell in item.cells:
        name = cell.keys.get("dataset", item.name)
        for unit in sorted(cell.arrays)[:1]:
            found.setdefault(name, (name, unit, cell.arrays[unit]))
    return list(found.values())


def _panel(axis: Axes, arrays: Mapping[str, np.ndarray]) -> None:
    vectors, labels = arrays["class_vectors"], arrays["labels"]
    points = arrays["embeddings"].astype(float)
    points = points / np.linalg.norm(points, axis=1, keepdims=True).clip(1e-12)
    points = points * (FIRST_RING + RING * labels[:, None])
    for index, vector in enumerate(vectors):
        colour, marker = look(index)
        mine = points[labels == index]
        # rasterised: thousands of dots would make the PDF slow to open
        axis.plot(*mine.T[:2], ".", color=colour, markersize=1.5, alpha=0.4, rasterized=True)
        axis.plot([0, vector[0]], [0, vector[1]], color=colour, linewidth=0.8)
        axis.plot(*vector[:2], marker, color=colour, markersize=5, markeredgecolor="black",
                  markeredgewidth=0.4)  # fmt: skip
    angle = np.linspace(0, 2 * np.pi, 200)
    axis.plot(np.cos(angle), np.sin(angle), color="0.7", linewidth=0.5)
    axis.set_aspect("equal")
    axis.set_xlabel("first dimension")
    axis.set_ylabel("second dimension")


def _legend(number: int) -> list[Line2D]:
    handles = []
    for index in range(number):
        colour, marker = look(index)
        handles.append(
            Line2D(
                [], [], color=colour, marker=marker, ls="", markersize=4.5, label=f"class {index}"
            )
        )
    return handles
