"""Panels in three dimensions that the page turns."""

import base64
import json
import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from hypersphere.reporting import viewers
from hypersphere.reporting.cells import Cell, Item
from hypersphere.reporting.embeddings import SEQUENCE, grid
from hypersphere.reporting.page import page_html
from tests.test_embedding_plots import PLOT, arrays, item, numbered


def test_the_page_turns_panels_in_three_dimensions_alone():
    made = item(targets=True)
    text = page_html("small", [made], [], {})
    script = (Path(viewers.__file__).parent / "viewer.js").read_text()
    assert script in text and "</script" not in script
    assert 'table.sortable thead button"' in text
    assert "http" not in text and "src=" not in text
    names = re.findall(r'aria-label="([^"]*): embeddings in three', text)
    assert names == ["birds, dim 3, features", "birds, dim 3, unit sphere"]
    payloads = [json.loads(unescape(found)) for found in re.findall(r"data-panel='([^']*)'", text)]
    assert [data["sphere"] for data in payloads] == [False, True]
    panels = [panel for panel in grid(made, PLOT).all if panel.dimensions == 3]
    for data, panel in zip(payloads, panels):
        raw = base64.b64decode(data["points"])
        count = len(raw) // 7
        places = np.frombuffer(raw, "<i2", 3 * count).reshape(-1, 3) / viewers.STEPS
        labels = np.frombuffer(raw, np.uint8, offset=6 * count)
        centre, half = panel.window()
        assert count >= 0.995 * len(panel.points) - 1
        found = places * half + centre
        distances = np.linalg.norm(found[:, None] - panel.points[None], axis=2)
        assert distances.min(axis=1).max() < 1e-3 * half
        assert (panel.labels[distances.argmin(axis=1)] == labels).all()
        for few, places in (("targets", panel.targets), ("middles", panel.middles())):
            assert np.array(data[few]) == pytest.approx((places - centre) / half, abs=1e-3)
        assert data["classes"] == list(range(10))


def test_the_page_colours_by_numbers_as_the_picture_does():
    made = numbered(targets=True)
    text = page_html("small", [made], [], {})
    assert f'data-sequence="{" ".join(SEQUENCE)}"' in text
    assert text.count("Rotation (degrees): 0 <span") == 1 and "></span> 180." in text
    assert re.findall(r'"dot" style="background: (#\w+)"></span>(\w)', text)[1] == ("#FF43B4", "b")
    by_class, by_value = (
        json.loads(unescape(found)) for found in re.findall(r"data-panel='([^']*)'", text)
    )
    assert not by_class["by_value"] and by_class["names"] == list("abcdefghij")
    assert by_value["by_value"] and by_value["names"] == by_value["middles"] == []
    raw = base64.b64decode(by_value["points"])
    shades = np.frombuffer(raw, np.uint8, offset=6 * (len(raw) // 7))
    (panel,) = [p for p in grid(made, made.plot).all if p.dimensions == 3 and p.on_sphere]
    assert (shades == np.rint(panel.values / 180 * (len(SEQUENCE) - 1))).all()


def test_a_page_without_them_carries_nothing_for_them():
    flat = item(empty={("birds", "3")})
    assert "canvas" not in page_html("small", [flat, item(units=())], [], {})


def test_the_page_stays_small():
    panel = arrays(3, each=500)
    made = item()
    cells = [Cell(**{**vars(cell), "arrays": {"0": panel}}) for cell in made.cells]
    data = viewers.viewers(Item(**{**vars(made), "cells": tuple(cells)}))
    assert len(data) == 5 and all(len(json.dumps(each)) < 250_000 / 18 for each in data)
