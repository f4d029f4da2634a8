"""What all pictures share: colours, sizes, fonts, warnings, and files that are the same bytes for
the same numbers."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hypersphere.files import write_atomically
from hypersphere.reporting.cells import Item
from hypersphere.reporting.layout import quick_banner

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


def look(index: int) -> tuple[str, str]:
    """Colour and marker of series number `index`; 49 differ."""
    return COLOURS[index % len(COLOURS)], MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]


@contextmanager
def panels(number: int, *, wide: float = 1.0, high: float = 1.0, **choices: object) -> Iterator:
    """A figure of `number` panels side by side, and its axes; closed at the end."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1,
            number,
            figsize=(wide * PANEL[0] * number, high * PANEL[1]),
            squeeze=False,
            layout="constrained",
            **choices,
        )
        try:
            yield figure, axes[0]
        finally:
            plt.close(figure)


@contextmanager
def sheet(width: float, height: float) -> Iterator[Figure]:
    """An empty figure of that many inches, for pictures that place their panels themselves."""
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(width, height))
        try:
            yield figure
        finally:
            plt.close(figure)


def save(figure: Figure, item: Item, folder: Path, dpi: int = 150) -> tuple[Path, Path]:
    """Write `<item>.png` and `<item>.pdf`; equal figures give equal bytes."""
    paths = (folder / f"{item.stem}.png", folder / f"{item.stem}.pdf")
    for path, metadata in zip(paths, ({"Software": None}, {"CreationDate": None}), strict=True):
        kind = path.suffix[1:]
        write_atomically(
            path,
            lambda file, kind=kind, m=metadata: figure.savefig(
                file, format=kind, dpi=dpi, metadata=m
            ),
        )
    return paths


def titled(item: Item, number: float = 1.0) -> str:
    """The title in lines that fit `number` panels, and a warning where the numbers are no answer to
    the paper's."""
    width = round(54 * number)
    lines = textwrap.wrap(item.title, width)
    protocols = sorted({cell.protocol for cell in item.cells} - {"exact"})
    if quick_banner(item):
        warning = "quick preset: substitute data, not comparable with the paper"
    elif protocols:
        warning = f"{', '.join(protocols)} protocol: not comparable"
    else:
        warning = ""
    return "\n".join([*lines, *textwrap.wrap(warning, width)])


def in_a_row(handles: Sequence[Line2D], number: int, most: int) -> int:
    """How many names of a legend fit beside each other under `number` panels, `most` at most."""
    widest = max(len(str(handle.get_label())) for handle in handles) + 6
    return max(1, min(most, 66 * number // widest))


def several(number: int, unit: str) -> str:
    """`3 splits`, `1 seed`."""
    return f"{number} {unit}{'' if number == 1 else 's'}"
