"""One example of each of some new classes, and test images that were recognised by them or not."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from hypersphere.reporting.cells import Item
from hypersphere.reporting.kinds import Exemplars
from hypersphere.reporting.plots.style import PANEL, save, sheet, titled
from hypersphere.store import thumbnails

WIDTH, MARGIN, GAP = 7.4, 0.1, 0.08  # inches: of the page, around it, between images
LABEL = 0.24  # inches: what a row is, on its left
LINE = 0.105  # inches: a line of a caption
HEADING, SECTION, TITLE = 0.34, 0.14, 0.42  # inches: above a part, below it, above all
LETTERS, LETTER = 6.0, 0.58  # points, and width of a letter by its size
LONGEST = 132  # letters of a heading's line
SHARP = 64  # images of fewer pixels are shown pixel by pixel
RIGHT, WRONG = "#2E8B57", "#C8102E"


@dataclass(frozen=True)
class _Row:
    """Images with captions beneath; `label` says on the left what they are."""

    images: list[np.ndarray]
    captions: list[str]
    label: str = ""
    border: str = "0.6"
    strong: bool = False  # the last line of each caption

    @property
    def lines(self) -> int:
        return max(caption.count("\n") + 1 for caption in self.captions)


def write(item: Item, plot: Exemplars, folder: Path) -> tuple[Path, Path] | None:
    """Write `<item>.png` and `<item>.pdf`; None while no run has its images."""
    found = [arrays for cell in item.cells for _, arrays in sorted(cell.arrays.items())]
    if not found:
        return None
    side = (WIDTH - 2 * MARGIN - LABEL - (plot.columns - 1) * GAP) / plot.columns
    parts = _parts(dict(found[0]), plot.columns, int(side * 72 / LETTERS / LETTER))
    height = TITLE + sum(
        HEADING + SECTION + sum(side + row.lines * LINE + GAP for row in rows) for _, rows in parts
    )
    with sheet(WIDTH, height) as figure:
        figure.suptitle(titled(item, WIDTH / PANEL[0]), fontsize=8.5, y=1 - 0.06 / height)
        top = TITLE
        for heading, rows in parts:
            figure.text(
                MARGIN / WIDTH,
                1 - (top + 0.02) / height,
                textwrap.fill(heading, LONGEST),
                fontsize=7.5,
                va="top",
            )
            top += HEADING
            for row in rows:
                _draw(figure, row, top, side)
                top += side + row.lines * LINE + GAP
            top += SECTION
        return save(figure, item, folder)


def _parts(arrays: dict[str, np.ndarray], columns: int, width: int) -> list[tuple[str, list[_Row]]]:
    """Headings and what stands beneath; captions in lines of at most `width` characters."""
    images = thumbnails.unpack(arrays)
    names = arrays["names"]
    tested, right, to_seen, classes = arrays["counts"].tolist()

    def name(number: int) -> str:
        # folders of datasets are called 036.Northern_Flicker
        plain = re.sub(r"^\d+\.(?=\D)", "", str(names[number])).replace("_", " ")
        return "\n".join(textwrap.wrap(plain, width))

    shown = [
        (images[image], f"{name(c)}\n{100 * recall:.0f} %")
        for image, c, recall in zip(
            arrays["images"], arrays["shown"], arrays["recalls"], strict=True
        )
    ]
    rows = [
        _Row(*map(list, zip(*shown[i : i + columns], strict=True)), strong=True)
        for i in range(0, len(shown), columns)
    ]
    parts = [
        (f"(a) The one example of {len(shown)} of the {len(names)} new classes, and the share of"
         " the class's test images that it recognises (recall@1)", rows)
    ]  # fmt: skip
    for letter, key, colour, said in (
        ("b", "right", RIGHT, f"recognised among all {classes} classes: {right} of {tested}"),
        ("c", "wrong", WRONG, f"taken for another new class: {tested - right - to_seen} of {tested}"
         f" (and {to_seen} for a base class)"),
    ):  # fmt: skip
        cases = arrays[key][:columns]
        if not len(cases):
            continue
        caption = [name(own) for _, own, _, _ in cases], [name(p) for _, _, p, _ in cases]
        parts.append(
            (f"({letter}) Random test images of new classes that were {said}; beneath each the"
             " one example of the class that was predicted",
             [_Row([images[c[0]] for c in cases], caption[0], "test image", colour),
              _Row([images[c[3]] for c in cases], caption[1], "taken for")])
        )  # fmt: skip
    return parts


def _draw(figure: Figure, row: _Row, top: float, side: float) -> None:
    """One row whose images begin `top` inches below the upper edge."""
    width, height = figure.get_size_inches()
    middle = 1 - (top + side / 2) / height
    figure.text(
        (MARGIN + LABEL / 2) / width, middle, row.label, fontsize=LETTERS + 0.5, rotation=90,
        ha="center", va="center", color="0.3",
    )  # fmt: skip
    for i, (image, caption) in enumerate(zip(row.images, row.captions, strict=True)):
        left = MARGIN + LABEL + i * (side + GAP)
        axis = figure.add_axes(
            (left / width, 1 - (top + side) / height, side / width, side / height)
        )
        sharp = max(image.shape[:2]) < SHARP
        axis.imshow(image, interpolation="nearest" if sharp else "antialiased", aspect="equal")
        axis.set_xticks([])
        axis.set_yticks([])
        coloured = row.border in (RIGHT, WRONG)
        for spine in axis.spines.values():
            spine.set(visible=True, color=row.border, linewidth=2.2 if coloured else 0.6)
        centre, lines = (left + side / 2) / width, caption.split("\n")
        for j, line in enumerate(lines):
            figure.text(
                centre, 1 - (top + side + 0.04 + j * LINE) / height, line,
                fontsize=LETTERS, ha="center", va="top",
                fontweight="bold" if row.strong and j == len(lines) - 1 else "normal",
            )  # fmt: skip
