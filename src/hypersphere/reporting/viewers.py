"""What the page needs to turn a panel in three dimensions (drawn by viewer.js)."""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np

from hypersphere.reporting.cells import Item
from hypersphere.reporting.embeddings import AZIMUTH, ELEVATION, Panel, grid
from hypersphere.reporting.kinds import Embedding

POINTS = 1200  # of one panel: enough to see its shape, few enough for a page of twenty
STEPS = 32767  # coordinates from -1 to 1, the panel's window, as 16-bit integers


def viewers(item: Item) -> list[dict[str, Any]]:
    """`name`, `scale` (a line of text) and `data` of each panel in three dimensions, row by row;
    `numbers` is what its sequence of colours stands for (texts: lowest, highest, their label), None
    where its colours are of classes."""
    if not isinstance(item.plot, Embedding):
        return []
    panels = [panel for panel in grid(item, item.plot).all if panel.dimensions == 3]
    return [
        {
            "name": panel.name or item.title,
            "scale": _scale(panel),
            "data": _data(panel),
            "numbers": _numbers(panel, item.plot),
        }
        for panel in panels
    ]


def _data(panel: Panel) -> dict[str, Any]:
    """`points`: base64 of x, y, z of all points (16-bit, little-endian), then of their colours (8
    bit each): places in the page's colours of classes, or `by_value` in its sequence. Places of
    classes and targets are few: plain numbers, in the same window."""
    centre, half = panel.window()
    points = (panel.points - centre) / half
    chosen = np.flatnonzero((np.abs(points) <= 1 + 1e-9).all(axis=1))[:POINTS]
    packed = np.rint(points[chosen].clip(-1, 1) * STEPS).astype("<i2").tobytes()
    packed += panel.shades()[chosen].astype(np.uint8).tobytes()
    targets = [] if panel.targets is None else (panel.targets - centre) / half
    return {
        "azimuth": AZIMUTH,
        "elevation": ELEVATION,
        "sphere": panel.on_sphere,
        "by_value": panel.values is not None,
        "points": base64.b64encode(packed).decode(),
        "classes": panel.classes,
        "names": [panel.called(label) for label in panel.classes],
        "middles": np.round((panel.middles() - centre) / half, 3).tolist(),
        "targets": np.round(targets, 3).tolist(),
    }


def _numbers(panel: Panel, plot: Embedding) -> tuple[str, str, str] | None:
    if panel.values is None:
        return None
    low, high = panel.scale
    digits = max(0, 2 - math.floor(math.log10(max(high - low, 1e-12))))  # of their difference
    return f"{low + 0.0:.{digits}f}", f"{high + 0.0:.{digits}f}", plot.value_label


def _scale(panel: Panel) -> str:
    if panel.on_sphere:
        return "directions, on the unit sphere"
    return f"edge of the cube: {2 * panel.window()[1]:.3g}"
