"""Panels of embeddings, as the pictures and the page draw them: where the points are, which window
shows them, from where a panel in three dimensions is seen."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex

from hypersphere.reporting.cells import Cell, Item
from hypersphere.reporting.kinds import Embedding
from hypersphere.reporting.layout import ours_text
from hypersphere.reporting.verdicts import judge

# Ten colours found by a search for the largest smallest difference, with normal colour vision and
# with each of the three deficiencies simulated (Machado et al. 2009, differences in OKLab): at
# least 0.10, where the ten-colour sequences of plotting libraries fall to 0.06 and less. None
# vanishes on white or on near-black. Ten stay hard to tell apart: each class's number stands in the
# panel too.
COLOURS = (
    "#0E5FFC", "#FF43B4", "#A1D702", "#C11D08", "#22D8FF",
    "#B18910", "#9535AE", "#316C5F", "#FAA8AB", "#A58BFF",
)  # fmt: skip
# Numbers from low to high: viridis, which is perceptually uniform and grows lighter with any colour
# vision, without its ends, which would vanish on near-black and on white.
SEQUENCE = tuple(to_hex(colour) for colour in colormaps["viridis"](np.arange(51, 226, 3)))
SHOWN = 0.995  # share of the points that a panel's window covers
AZIMUTH, ELEVATION = 35.0, 20.0  # degrees: from where three dimensions are seen at first


@dataclass(frozen=True, eq=False)
class Panel:
    """One panel. `points` are those of `unit`, in an order in which no class hides another; None
    where there is nothing to draw, for the reason in `state`. `captions` are lines of text.
    `values` are the points' numbers where these colour them instead of their classes; the ends of
    SEQUENCE stand for `scale`. `names` are those of the classes, by label."""

    row: str
    column: str
    on_sphere: bool
    captions: tuple[str, ...]
    unit: str
    state: str
    points: np.ndarray | None = None
    labels: np.ndarray | None = None
    targets: np.ndarray | None = None
    values: np.ndarray | None = None
    scale: tuple[float, float] = (0.0, 1.0)
    names: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What it is called where rows and columns are not seen."""
        return ", ".join(filter(None, (self.row, self.column)))

    @property
    def dimensions(self) -> int:
        """2 or 3; 0 where there is nothing to draw."""
        return 0 if self.points is None else self.points.shape[1]

    @property
    def classes(self) -> list[int]:
        """The classes that its colours show, ascending."""
        by_class = self.labels is not None and self.values is None
        return np.unique(self.labels).tolist() if by_class else []

    def called(self, label: int) -> str:
        """The name of a class."""
        return self.names[label] if self.names else str(label)

    def shades(self) -> np.ndarray:
        """The place of each point's colour in SEQUENCE where numbers give it, else in COLOURS."""
        if self.values is None:
            return self.labels % len(COLOURS)
        low, high = self.scale
        share = (self.values - low) / max(high - low, 1e-12)
        return np.rint(share.clip(0, 1) * (len(SEQUENCE) - 1)).astype(int)

    def middles(self) -> np.ndarray:
        """The median of each class, where its number stands (a mean would follow an outlier): on
        the circle or sphere where the points lie there."""
        medians = [np.median(self.points[self.labels == label], axis=0) for label in self.classes]
        found = np.array(medians).reshape(-1, self.dimensions)
        return _directions(found) if self.on_sphere else found

    def window(self) -> tuple[np.ndarray, float]:
        """Centre and half width of the square or cube to show.

        It covers the medians of all classes, all targets, and the 99.5 % of the points that are
        nearest to the middle of all: a few stray ones do not crush the rest. Around the unit circle
        or sphere it is the same for every panel.
        """
        if self.on_sphere:
            return np.zeros(self.dimensions), 1.0
        distances = np.linalg.norm(self.points - np.median(self.points, axis=0), axis=1)
        near = self.points[distances <= np.quantile(distances, SHOWN)]
        covered = [near, *([self.middles()] if self.classes else [])]
        covered += [] if self.targets is None else [self.targets]
        low = np.min([part.min(axis=0) for part in covered], axis=0)
        high = np.max([part.max(axis=0) for part in covered], axis=0)
        return (low + high) / 2, float(max((high - low).max() / 2, 1e-6))


@dataclass(frozen=True)
class Grid:
    """Panels by row and column; None where the item has no such combination."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    panels: tuple[tuple[Panel | None, ...], ...]

    @property
    def all(self) -> list[Panel]:
        """Every panel, row by row."""
        return [panel for row in self.panels for panel in row if panel is not None]


def grid(item: Item, plot: Embedding) -> Grid:
    """The item's panels. Raises ValueError where one measures the same thing twice, or is to be
    coloured by numbers that its runs have not saved."""
    digits = {name: _digits(item, plot.measure, name) for name in plot.captions}
    found: dict[tuple[str, str], list[Cell]] = {}
    for cell in item.cells:
        place = (_label(cell, plot.rows), _label(cell, plot.columns))
        found.setdefault(place, []).append(cell)
    rows, columns = (tuple(dict.fromkeys(place[i] for place in found)) for i in (0, 1))
    panels = {}
    for place, cells in found.items():
        measured = {cell.keys[plot.measure]: cell for cell in cells}
        if len(measured) < len(cells):
            raise ValueError(
                f"{item.paper}/{item.stem}: panel {place} measures the same thing twice; name the"
                " key that differs in the plot's rows or columns"
            )
        captions = [
            text.replace("{}", _number(item, measured[name], digits[name]))
            for name, text in plot.captions.items()
            if name in measured and measured[name].complete
        ]
        panels[place] = _panel(*place, cells, plot, tuple(captions))
    # one scale for all, so that one colour bar tells them
    numbers = [panel.values for panel in panels.values() if panel.values is not None]
    if numbers:
        scale = (float(min(map(np.min, numbers))), float(max(map(np.max, numbers))))
        panels = {place: replace(panel, scale=scale) for place, panel in panels.items()}
    return Grid(rows, columns, tuple(tuple(panels.get((r, c)) for c in columns) for r in rows))


def camera(azimuth: float = AZIMUTH, elevation: float = ELEVATION) -> np.ndarray:
    """Rotation that turns the space as seen from these angles: to the right, up, to the viewer."""
    a, e = math.radians(azimuth), math.radians(elevation)
    return np.array(
        [
            [-math.sin(a), math.cos(a), 0.0],
            [-math.sin(e) * math.cos(a), -math.sin(e) * math.sin(a), math.cos(e)],
            [math.cos(e) * math.cos(a), math.cos(e) * math.sin(a), math.sin(e)],
        ]
    )


def far_edges(view: np.ndarray) -> list[np.ndarray]:
    """The nine edges (two ends each) of the cube from -1 to 1 that do not meet in its nearest
    corner: with those three, one could not tell its front from its back."""
    nearest = np.where(view[2] >= 0, 1, -1)
    edges = []
    for axis, one, other in product(range(3), (-1, 1), (-1, 1)):
        ends = np.insert(np.array([[one, other], [one, other]]), axis, [-1, 1], axis=1)
        if not (ends == nearest).all(axis=1).any():
            edges.append(ends.astype(float))
    return edges


def _panel(
    row: str, column: str, cells: list[Cell], plot: Embedding, captions: tuple[str, ...]
) -> Panel:
    on_sphere = _names(plot.on_sphere, cells[0])
    arrays = {unit: arrays for cell in cells for unit, arrays in cell.arrays.items()}
    started = any(cell.values for cell in cells)
    if not arrays:
        state = "not drawn" if started else "no run yet"
        return Panel(row, column, on_sphere, captions, "", state)
    unit = min(arrays, key=lambda name: (len(name), name))  # 2 before 10
    points = arrays[unit]["embeddings"].astype(float)
    finite = np.isfinite(points).all(axis=1)
    values = None
    if _names(plot.by_value, cells[0]):
        if "values" not in arrays[unit]:
            raise ValueError(f"panel {(row, column)}: its runs saved no `values` to colour it by")
        values = arrays[unit]["values"].astype(float)
        finite &= np.isfinite(values)
    if points.shape[1] not in (2, 3) or not finite.any():
        state = "diverged" if not finite.any() else f"{points.shape[1]} dimensions"
        return Panel(row, column, on_sphere, captions, unit, state)
    if not np.ptp(points[finite], axis=0).any():  # a dead ReLU, say
        return Panel(row, column, on_sphere, captions, unit, "all images at one point")
    # test sets come sorted by class: drawn so, the last class would cover the others
    order = np.random.default_rng(0).permutation(np.flatnonzero(finite))
    points, labels = points[order], arrays[unit]["labels"][order].astype(int)
    targets = arrays[unit].get("targets")
    targets = None if targets is None else targets.astype(float)
    if on_sphere:
        points = _directions(points)
        targets = None if targets is None else _directions(targets)
    if plot.class_names and labels.max() >= len(plot.class_names):
        raise ValueError(f"panel {(row, column)}: class {labels.max()} has no name in class_names")
    values = None if values is None else values[order]
    return Panel(
        row, column, on_sphere, captions, unit, "", points, labels, targets, values,
        names=plot.class_names,
    )  # fmt: skip


def _directions(points: np.ndarray) -> np.ndarray:
    return points / np.linalg.norm(points, axis=1, keepdims=True).clip(1e-12)


def _names(chosen: dict[str, tuple[str, ...]], cell: Cell) -> bool:
    """Whether a choice of the plot (key -> values) is of this cell's panel."""
    fits = [cell.keys[key] in values for key, values in chosen.items()]
    return bool(fits) and all(fits)


def _label(cell: Cell, keys: tuple[str, ...]) -> str:
    """`mnist, dim 2`: a bare number says nothing without its key."""
    values = [(key, cell.keys[key]) for key in keys]
    return ", ".join(f"{key} {text}" if _is_number(text) else text for key, text in values)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(item: Item, cell: Cell, digits: int) -> str:
    """`0.981 ± 0.002`; how many units there are is said once per picture."""
    judged = judge(cell, item.unit_of(cell), item.margin_of(cell))
    return ours_text(item, cell, judged, digits).removesuffix(f" ({judged.n})")


def _digits(item: Item, measure: str, name: str) -> int:
    """Decimals of a measure: three figures of its largest mean, the same in every panel."""
    cells = [cell for cell in item.cells if cell.keys[measure] == name and cell.complete]
    means = [judge(cell, item.unit_of(cell), item.margin_of(cell)).ours for cell in cells]
    largest = max((abs(mean) for mean in means if math.isfinite(mean)), default=0.0)
    return min(3, max(0, 2 - math.floor(math.log10(largest)))) if largest > 0 else 3
