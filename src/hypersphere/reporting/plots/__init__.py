"""Pictures of items: one function per kind, the same bytes for the same numbers."""

from __future__ import annotations

from pathlib import Path

from hypersphere.reporting.cells import Item
from hypersphere.reporting.kinds import (
    Bars,
    Dots,
    Embedding,
    Exemplars,
    Lines,
    Matrices,
    Nothing,
    Plot,
    Scatter,
    Schematic,
)
from hypersphere.reporting.plots import (
    bars,
    dots,
    embedding,
    exemplars,
    lines,
    matrices,
    scatter,
    schematic,
)

__all__ = ["Plot", "write"]


def write(item: Item, folder: Path) -> tuple[Path, Path] | None:
    """Write `<item>.png` and `<item>.pdf` as the item's plot asks; None while there is nothing."""
    match item.plot:
        case Nothing():
            return None
        case Dots():
            return dots.write(item, folder)
        case Lines():
            return lines.write(item, item.plot, folder)
        case Scatter():
            return scatter.write(item, folder)
        case Embedding():
            return embedding.write(item, item.plot, folder)
        case Bars():
            return bars.write(item, item.plot, folder)
        case Matrices():
            return matrices.write(item, item.plot, folder)
        case Exemplars():
            return exemplars.write(item, item.plot, folder)
        case Schematic():
            return schematic.write(item, folder)
