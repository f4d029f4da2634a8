"""A strip per cell: each single value a dot beside the published number, on its table's scale."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hypersphere.reporting.cells import Cell, Item
from hypersphere.reporting.layout import number_text
from hypersphere.reporting.verdicts import as_number

WIDTH, HEIGHT = 132, 22  # of a strip, in pixels
EDGE = 5  # free on either side, so that the outermost dots are whole
LANES = (11, 5, 17)  # heights at which dots lie; the first one that is free
APART = 4.5  # pixels between the middles of two dots that do not cover each other
LEAST_BAND = 2  # pixels: a margin that the scale makes thinner is still seen


@dataclass(frozen=True)
class Scale:
    """The numbers that one pixel axis covers, in the printed unit."""

    low: float
    high: float

    def place(self, value: float) -> float:
        """Pixels from the left of the strip, to a tenth."""
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return round(EDGE + min(1.0, max(0.0, share)) * (WIDTH - 2 * EDGE), 1)


def scales(item: Item) -> dict[str, Scale]:
    """One scale for all cells of an item, or one by each of its metrics (their units differ)."""
    numbers: dict[str, list[float]] = {}
    for cell in item.cells:
        shown = [value for value in cell.values.values() if math.isfinite(value)]
        if shown:
            numbers.setdefault(_metric(cell), []).extend([*shown, *_band(item, cell)])
    return {metric: Scale(min(each), max(each)) for metric, each in numbers.items()}


def strip(item: Item, cell: Cell, scales: dict[str, Scale]) -> dict[str, Any] | None:
    """`text` (what the strip says, for those who do not see it) and the paths `band`, `line`,
    `dots` and `crosses` (diverged); None where there is no value to show."""
    if not cell.values:
        return None
    scale = scales.get(_metric(cell), Scale(0, 0))
    band = _band(item, cell)
    marks = [x for x in map(scale.place, band)]
    finite = sorted(value for value in cell.values.values() if math.isfinite(value))
    crosses = "".join(f"M{WIDTH - 9 - 9 * i} 7l7 8m0-8l-7 8" for i in range(min(cell.diverged, 3)))
    return {
        "band": _box(marks[0], marks[-1]) if len(marks) > 1 else "",
        "line": f"M{_short(marks[len(marks) // 2])} 0v{HEIGHT}" if marks else "",
        "dots": "".join(f"M{_short(x)} {y}h0" for x, y in _spread(map(scale.place, finite))),
        "crosses": crosses,
        "text": _text(item, cell),
    }


def scale_text(item: Item, scales: dict[str, Scale]) -> str:
    """`0.51 to 0.97`, by metric where there are several; '' without numbers."""
    texts = {
        metric: f"{_rough(scale.low, scale)} to {_rough(scale.high, scale)}"
        for metric, scale in scales.items()
    }
    if len(texts) < 2:
        return next(iter(texts.values()), "")
    return "; ".join(f"{metric} {text}" for metric, text in texts.items())


def _metric(cell: Cell) -> str:
    return cell.keys.get("metric", "")


def _band(item: Item, cell: Cell) -> list[float]:
    """Lower margin, published number, upper margin; the number alone where no chance is involved
    (it is compared as printed); nothing where the paper has no number."""
    published = as_number(cell.published)
    if published is None or not math.isfinite(published):
        return []
    if item.unit == "deterministic":
        return [published]
    margin = item.margin_of(cell)
    return [published - margin, published, published + margin]


def _box(left: float, right: float) -> str:
    wide = max(right - left, LEAST_BAND)
    return f"M{_short((left + right - wide) / 2)} 0h{_short(wide)}v{HEIGHT}h-{_short(wide)}z"


def _spread(places: Iterable[float]) -> list[tuple[float, int]]:
    """Ascending places, each at the first height where it covers no other (or at the first)."""
    last = dict.fromkeys(LANES, -math.inf)
    found = []
    for x in places:
        y = next((lane for lane in LANES if x - last[lane] >= APART), LANES[0])
        last[y] = x
        found.append((x, y))
    return found


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _rough(value: float, scale: Scale) -> str:
    """Three digits of the scale's length."""
    length = scale.high - scale.low or abs(value) or 1.0
    return f"{value + 0.0:.{max(0, 2 - math.floor(math.log10(length)))}f}"


def _text(item: Item, cell: Cell) -> str:
    said = [f"{item.unit} {unit}: {_said(value)}" for unit, value in cell.values.items()]
    if cell.published.strip():
        said.append(f"published: {cell.published.strip()}")
    return "; ".join(said)


def _said(value: float) -> str:
    return "diverged" if math.isnan(value) else number_text(value)
