"""Test images where the network puts them: one panel, or a page of them, in two or three
dimensions."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from hypersphere.reporting.cells import Item
from hypersphere.reporting.embeddings import COLOURS, SEQUENCE, Grid, Panel, camera, far_edges, grid
from hypersphere.reporting.kinds import Embedding
from hypersphere.reporting.plots.style import PANEL, save, several, sheet, titled

PAGE = (11.0, 7.6)  # inches: what a page leaves between its margins, on its side or upright
LARGEST, SMALLEST = 2.9, 0.9  # inches: side of a panel
ROOMY = 1.6  # inches: panels from here on have larger letters
POINT = 1 / 72  # inches
DPI = 200
FAINT = "0.75"
NAME = 0.28  # inches: a name in the legend
CHARACTER = 0.6  # width of a letter by its size, at most
BAR = 0.46  # inches: a colour bar with its numbers and what they are


@dataclass(frozen=True)
class Layout:
    """Where things go, in inches. Panels are squares of `side`, all equally far apart."""

    side: float
    left: float
    gap: float  # between columns: holds the numbers at the ticks
    beneath: float  # under each panel: tick labels and captions
    head: float  # column labels
    title: float
    foot: float  # colour bar and legend
    letters: float  # points
    captions: float  # points: their letters, so that the longest fits between its neighbours
    width: float
    height: float
    wrapped: tuple[str, ...]  # column labels in lines

    def place(self, row: int, column: int) -> tuple[float, float, float, float]:
        """Left, bottom, width and height of a panel, as shares of the figure."""
        x = self.left + column * (self.side + self.gap)
        y = self.title + self.head + row * (self.side + self.beneath) + self.side
        return (
            x / self.width, 1 - y / self.height, self.side / self.width, self.side / self.height
        )  # fmt: skip


def write(item: Item, plot: Embedding, folder: Path) -> tuple[Path, Path] | None:
    """Write `<item>.png` and `<item>.pdf`; None while no panel has its embeddings."""
    drawn = grid(item, plot)
    if not any(panel.dimensions for panel in drawn.all):
        return None
    layout = _layout(item, plot, drawn)
    with sheet(layout.width, layout.height) as figure:
        for i, panels in enumerate(drawn.panels):
            for j, panel in enumerate(panels):
                if panel is None:
                    continue
                axis = figure.add_axes(layout.place(i, j))
                _frame(axis, layout)
                _draw(axis, panel, layout)
                _captions(axis, panel, layout)
        _labels(figure, drawn, layout)
        _colour_bar(figure, drawn, plot, layout)
        figure.suptitle(
            titled(item, layout.width / PANEL[0]), fontsize=8.5, y=1 - 0.07 / layout.height
        )
        legend = figure.legend(
            handles=_legend(drawn, plot.crosses), loc="lower center", bbox_to_anchor=(0.5, 0.0),
            ncols=_in_a_row(layout.width), frameon=False, fontsize=7,
            title=_note(item, plot, drawn, layout.width), title_fontsize=6.5, columnspacing=0.9,
            handletextpad=0.0, handlelength=1.2,
        )  # fmt: skip
        legend.get_title().set_multialignment("center")
        return save(figure, item, folder, dpi=DPI)


def _layout(item: Item, plot: Embedding, drawn: Grid) -> Layout:
    """The largest panels of which all fit on a page, as long as they can be read."""
    rows, columns = len(drawn.rows), len(drawn.columns)
    page = PAGE if columns >= rows else PAGE[::-1]
    captions = [panel.captions for panel in drawn.all]
    left = 0.55 if any(drawn.rows) else 0.32
    bar = BAR if _by_value(drawn) else 0.0

    def beneath_of(letters: float) -> float:
        return (max(map(len, captions)) * 1.25 + 2.2) * letters * POINT

    def side_of(letters: float, gap: float) -> float:
        wide = (page[0] - left) / columns - gap
        high = (page[1] - 1.3 - bar) / rows - beneath_of(letters)
        return max(SMALLEST, min(LARGEST, wide, high))

    letters, gap = 6.5, 0.32
    if side_of(letters, gap) < ROOMY:
        letters, gap = 5.0, 0.21
    side, beneath = side_of(letters, gap), beneath_of(letters)
    room = (side + gap - 0.03) / POINT
    longest = max((len(line) for lines in captions for line in lines), default=1)
    across = int(room / (CHARACTER * (letters + 1)))
    wrapped = tuple("\n".join(textwrap.wrap(name, across)) for name in drawn.columns)
    head = max(name.count("\n") + bool(name) for name in wrapped) * (letters + 1) * 1.25 * POINT
    width = left + columns * (side + gap)
    title = (titled(item, width / PANEL[0]).count("\n") + 1) * 0.145 + 0.14
    names = -(-len(_legend(drawn, plot.crosses)) // _in_a_row(width))
    foot = bar + 0.15 + 0.15 * names
    foot += 0.12 * (_note(item, plot, drawn, width).count("\n") + 1)
    return Layout(
        side, left, gap, beneath, head, title, foot, letters,
        min(letters, room / (CHARACTER * longest)), width,
        title + head + rows * (side + beneath) + foot, wrapped,
    )  # fmt: skip


def _labels(figure: Figure, drawn: Grid, layout: Layout) -> None:
    """Names of the rows at the left, of the columns above."""
    for j, name in enumerate(layout.wrapped):
        x, y, width, height = layout.place(0, j)
        figure.text(
            x + width / 2, y + height + 0.05 / layout.height, name,
            ha="center", va="bottom", fontsize=layout.letters + 1,
        )  # fmt: skip
    for i, name in enumerate(drawn.rows):
        _, y, _, height = layout.place(i, 0)
        figure.text(
            0.06 / layout.width, y + height / 2, name.replace(", ", "\n"), rotation=90,
            ha="left", va="center", multialignment="center", fontsize=layout.letters + 1,
        )  # fmt: skip


def _colour_bar(figure: Figure, drawn: Grid, plot: Embedding, layout: Layout) -> None:
    """What the colours of numbers mean, beneath the columns that have them."""
    if not (panels := _by_value(drawn)):
        return
    columns = [j for row in drawn.panels for j, panel in enumerate(row) if panel in panels]
    first, last = (layout.place(0, j) for j in (min(columns), max(columns)))
    middle = (first[0] + last[0] + last[2]) / 2
    width, height = first[2] * 0.8, 0.08 / layout.height
    bottom = (layout.foot - 0.12) / layout.height
    axis = figure.add_axes((middle - width / 2, bottom, width, height))
    axis.imshow(np.arange(len(SEQUENCE))[None], cmap=ListedColormap(SEQUENCE), aspect="auto",
                extent=(*panels[0].scale, 0, 1))  # fmt: skip
    axis.set_yticks([])
    axis.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    axis.tick_params(labelsize=layout.letters - 0.5, length=1.5, width=0.4, pad=1.0)
    axis.set_xlabel(plot.value_label, fontsize=layout.letters, labelpad=1.5)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _frame(axis: Axes, layout: Layout) -> None:
    for spine in axis.spines.values():
        spine.set(visible=True, linewidth=0.4, color=FAINT)
    axis.tick_params(
        labelsize=layout.letters - 0.5, length=1.5, width=0.4, pad=1.0, color=FAINT,
        labelcolor="0.35",
    )  # fmt: skip
    axis.set_xticks([])
    axis.set_yticks([])


def _captions(axis: Axes, panel: Panel, layout: Layout) -> None:
    down = 1.7 * layout.letters * POINT / layout.side  # below the numbers at the ticks
    axis.text(
        0.5, -down, "\n".join(panel.captions), transform=axis.transAxes, ha="center", va="top",
        fontsize=layout.captions, linespacing=1.15,
    )  # fmt: skip


def _draw(axis: Axes, panel: Panel, layout: Layout) -> None:
    if not panel.dimensions:
        axis.text(
            0.5, 0.5, panel.state, transform=axis.transAxes, ha="center", va="center",
            fontsize=layout.letters + 1, color="0.4",
        )  # fmt: skip
    elif panel.dimensions == 2:
        _flat(axis, panel, layout)
    else:
        _deep(axis, panel, layout)


def _flat(axis: Axes, panel: Panel, layout: Layout) -> None:
    """Two dimensions: the coordinates themselves."""
    centre, half = panel.window()
    reach = half * (1.32 if panel.on_sphere else 1.06)
    if panel.on_sphere:
        _curve(axis, _circle(np.eye(3))[:, :2])
    for line in (axis.axhline, axis.axvline):
        line(0, color="0.88", linewidth=0.4, zorder=0)
    _dots(axis, panel.points, _colours(panel), _size(panel, layout))
    middles = panel.middles() * (1.17 if panel.on_sphere else 1)
    _numbers(axis, panel, middles, layout)
    if panel.targets is not None:
        _crosses(axis, panel.targets, layout)
    axis.set_xlim(centre[0] - reach, centre[0] + reach)
    axis.set_ylim(centre[1] - reach, centre[1] + reach)
    for one in (axis.xaxis, axis.yaxis):
        one.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))


def _deep(axis: Axes, panel: Panel, layout: Layout) -> None:
    """Three dimensions, seen from a fixed place: nearer points are larger and stronger. The cube is
    the window, the length of its edges stands in the corner."""
    view = camera()
    centre, half = panel.window()
    reach = 1.3 if panel.on_sphere else 1.06 * np.abs(np.ones(3) @ np.abs(view.T))[:2].max()
    for line in _wires() if panel.on_sphere else far_edges(view):
        _curve(axis, line @ view.T)
    if not panel.on_sphere:
        axis.text(
            0.98, 0.02, f"edge {2 * half:.3g}", transform=axis.transAxes, ha="right", va="bottom",
            fontsize=layout.letters - 0.5, color="0.35",
        )  # fmt: skip
    points = (panel.points - centre) / half
    inside = (np.abs(points) <= 1 + 1e-9).all(axis=1)
    seen, colours = points[inside] @ view.T, _colours(panel)[inside]
    order = np.argsort(seen[:, 2], kind="stable")
    near = ((seen[order, 2] + 1.5) / 3).clip(0, 1)
    _dots(axis, seen[order], colours[order], _size(panel, layout) * (0.5 + near), 0.25 + 0.6 * near)
    # outside the sphere, but where a target is it says which class that is for
    outside = panel.on_sphere and panel.targets is None
    middles = (panel.middles() - centre) / half * (1.14 if outside else 1)
    _numbers(axis, panel, middles @ view.T, layout)
    if panel.targets is not None:
        _crosses(axis, (panel.targets - centre) / half @ view.T, layout)
    axis.set_xlim(-reach, reach)
    axis.set_ylim(-reach, reach)


def _size(panel: Panel, layout: Layout) -> float:
    """Area of a dot in square points: panels of any size and number of points look alike."""
    return float(np.clip(1.6 * layout.side * np.sqrt(1000 / len(panel.points)), 0.4, 6.0))


def _colours(panel: Panel) -> np.ndarray:
    return np.array(COLOURS if panel.values is None else SEQUENCE)[panel.shades()]


def _dots(axis: Axes, points: np.ndarray, colours: np.ndarray, size: object,
          alpha: object = 0.55) -> None:  # fmt: skip
    # rasterised: thousands of dots would make the PDF slow to open
    axis.scatter(points[:, 0], points[:, 1], s=size, c=colours, alpha=alpha, linewidths=0,
                 rasterized=True, zorder=2)  # fmt: skip


def _numbers(axis: Axes, panel: Panel, places: np.ndarray, layout: Layout) -> None:
    """Each class's number at its place; above it where a target is to be seen there."""
    up = 0.0 if panel.targets is None else layout.letters
    for label, place in zip(panel.classes, places, strict=True):
        axis.annotate(
            panel.called(label), place[:2], (0, up), textcoords="offset points", zorder=4,
            fontsize=layout.letters - 0.5, fontweight="bold", ha="center", va="center",
            annotation_clip=True, path_effects=[withStroke(linewidth=1.2, foreground="white")],
        )  # fmt: skip


def _crosses(axis: Axes, places: np.ndarray, layout: Layout) -> None:
    axis.plot(
        places[:, 0], places[:, 1], "x", color="black", zorder=3, markersize=layout.letters * 0.6,
        markeredgewidth=0.9, path_effects=[withStroke(linewidth=1.8, foreground="white")],
    )  # fmt: skip


def _curve(axis: Axes, line: np.ndarray) -> None:
    axis.plot(line[:, 0], line[:, 1], color=FAINT, linewidth=0.4, zorder=1)


def _circle(basis: np.ndarray, height: float = 0.0) -> np.ndarray:
    """A circle of the unit sphere around the third vector of `basis`, that high above 0."""
    angle = np.linspace(0, 2 * np.pi, 121)
    radius = np.sqrt(1 - height**2)
    ring = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.full(121, height)], axis=1)
    return ring @ basis


def _wires() -> list[np.ndarray]:
    """The unit sphere: its outline as seen, circles of latitude, circles through the poles."""
    turns = [camera(azimuth, 0) for azimuth in (0, 45, 90, 135)]
    latitudes = [_circle(np.eye(3), height) for height in (-0.7, 0.0, 0.7)]
    return [_circle(camera()), *latitudes, *(_circle(turn) for turn in turns)]


def _note(item: Item, plot: Embedding, drawn: Grid, width: float) -> str:
    units = sorted({panel.unit for panel in drawn.all if panel.dimensions})
    one = f"{item.unit} {units[0]}" if len(units) == 1 else f"the first {item.unit} that is there"
    numbers = sorted({len(cell.values) for cell in item.cells if cell.complete})
    text = f"Dots: {plot.dots}"
    if item.unit != "deterministic":
        text += f", {one}"
    if labelled := [panel for panel in drawn.all if panel.classes]:
        said = "names" if all(panel.names for panel in labelled) else "numbers"
        text += f"; {said} in the panels: classes, at their medians"
    text += "."
    if numbers and numbers[-1] > 1 and any(panel.captions for panel in drawn.all):
        over = f"{numbers[0]} to " if len(numbers) > 1 else ""
        over += several(numbers[-1], item.unit)
        text += f" Beneath: mean ± standard deviation over {over}."
    return "\n".join(textwrap.wrap(text, int(width * 20)))


def _by_value(drawn: Grid) -> list[Panel]:
    return [panel for panel in drawn.all if panel.values is not None]


def _in_a_row(width: float) -> int:
    return min(11, int((width - 0.4) / NAME))


def _legend(drawn: Grid, crosses: str) -> list[Line2D]:
    names = {label: panel.called(label) for panel in drawn.all for label in panel.classes}
    handles = [
        Line2D([], [], color=COLOURS[label % len(COLOURS)], marker="o", ls="", markersize=4.5,
               label=names[label])
        for label in sorted(names)
    ]  # fmt: skip
    if any(panel.targets is not None for panel in drawn.all):
        handles.append(
            Line2D([], [], color="black", marker="x", ls="", markersize=4.5, label=crosses)
        )
    return handles
