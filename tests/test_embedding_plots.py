"""Panels of made-up embeddings as still pictures."""

import dataclasses

import numpy as np
import pydantic
import pytest
from PIL import Image

from hypersphere.reporting import plots
from hypersphere.reporting.cells import Cell, Item
from hypersphere.reporting.embeddings import COLOURS, SEQUENCE, camera, far_edges, grid
from hypersphere.reporting.kinds import Embedding, Plot
from hypersphere.reporting.plots import embedding

ACCURACY, SPREAD = "accuracy, nearest class mean", "angular std (deg)"
PLOT = Embedding(
    kind="embedding",
    rows=("data", "dim"),
    columns=("view",),
    measure="measure",
    on_sphere={"view": ("unit sphere",)},
    captions={ACCURACY: "acc. {}", SPREAD: "spread {}"},
)


def arrays(dim, seed=0, targets=False, each=20):
    """Ten classes around ten corners, sorted by class as test sets are."""
    random = np.random.default_rng(seed)
    centres = random.normal(0, 5, (10, dim))
    labels = np.repeat(np.arange(10), each)
    found = {
        "embeddings": (centres[labels] + random.normal(0, 0.3, (10 * each, dim))).astype(
            np.float16
        ),
        "labels": labels,
        "class_vectors": centres.astype(np.float32),
    }
    return found | ({"targets": centres.astype(np.float32)} if targets else {})


NUMBERED = PLOT.model_copy(
    update={"by_value": {"view": ("unit sphere",)}, "value_label": "rotation (degrees)",
            "class_names": tuple("abcdefghij")}
)  # fmt: skip


def numbered(plot=NUMBERED, **more):
    """The same with a number of each point; the panels on the sphere are coloured by it."""
    made = item(plot, **more)
    for cell in made.cells:
        for found in cell.arrays.values():
            found["values"] = np.linspace(0, 180, len(found["labels"]), dtype=np.float32)
    return made


def item(plot=PLOT, empty=(), targets=False, units=("0", "1", "2"), planned=3, **more):
    """birds in the plane and in space, seen plainly and on the sphere; plants in the plane, plainly."""
    cells = []
    for data, dim, view in (
        ("birds", "2", "features"), ("birds", "2", "unit sphere"),
        ("birds", "3", "features"), ("birds", "3", "unit sphere"), ("plants", "2", "features"),
    ):  # fmt: skip
        started = () if (data, dim) in empty else units
        found = {unit: arrays(int(dim), int(unit), targets) for unit in started}
        for measure, value in ((ACCURACY, 0.9), (SPREAD, 12.34)):
            values = {unit: value + 0.01 * int(unit) for unit in started}
            keys = {"data": data, "dim": dim, "view": view, "measure": measure}
            cells.append(Cell(keys, "", "", values, planned, ("r1",), "shortened", arrays=found))
    settings = {
        "paper": "p",
        "name": "figure1",
        "title": "Made-up <birds> & plants",
        "preset": "small",
    }
    return Item(
        **(settings | {"unit": "seed", "margin": 0.02, "rows": ("data",), "columns": ("dim", "view", "measure")} | more),
        cells=tuple(cells), plot=plot,
    )  # fmt: skip


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """The axes and the legend of a picture, looked at before it is saved."""

    def draw(made):
        seen = {}

        def save(figure, *_, **__):
            for axis in figure.axes:
                texts = [text.get_text() for text in axis.texts]
                seen.setdefault("axes", []).append(
                    {"texts": texts, "xlim": axis.get_xlim(), "ylim": axis.get_ylim(),
                     "dots": [np.asarray(dots.get_offsets()) for dots in axis.collections],
                     "colours": [dots.get_facecolors() for dots in axis.collections],
                     "crosses": [line.get_xydata() for line in axis.lines if line.get_marker() == "x"]}
                )  # fmt: skip
            seen["bars"] = [a.get_xlabel() for a in figure.axes if a.images]
            seen["labels"] = [text.get_text() for text in figure.texts]
            seen["legend"] = [text.get_text() for text in figure.legends[0].texts]
            seen["note"] = figure.legends[0].get_title().get_text()

        monkeypatch.setattr(embedding, "save", save)
        embedding.write(made, made.plot, tmp_path)
        return seen

    return draw


def test_a_picture_twice_is_the_same_bytes(tmp_path):
    first = plots.write(item(targets=True), tmp_path / "a")
    second = plots.write(item(targets=True), tmp_path / "b")
    assert [path.name for path in first] == ["figure1.png", "figure1.pdf"]
    for one, other in zip(first, second):
        assert one.read_bytes() == other.read_bytes()
    with Image.open(first[0]) as image:
        pixels = np.asarray(image.convert("L"))
    # nothing is cut off at the edges
    assert all((edge == 255).all() for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]))


def test_nothing_is_drawn_before_a_run_is_there(tmp_path):
    assert plots.write(item(units=()), tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_panels_stand_in_rows_and_columns(drawn):
    seen = drawn(item(empty={("plants", "2")}))
    # the item has no plants on the sphere: blank; its other panel waits for a run
    assert len(seen["axes"]) == 5
    assert seen["axes"][-1]["texts"] == ["no run yet", ""]
    assert seen["labels"][:2] == ["features", "unit sphere"]
    assert [label.replace("\n", ", ") for label in seen["labels"][2:5]] == [
        "birds, dim 2", "birds, dim 3", "plants, dim 2",
    ]  # fmt: skip
    assert seen["legend"] == [str(label) for label in range(10)]
    assert "seed 0" in seen["note"] and "over 3 seeds" in seen["note"]


def test_a_single_panel_needs_no_labels(drawn):
    one = item(PLOT.model_copy(update={"rows": (), "columns": (), "on_sphere": {}}))
    only = [cell for cell in one.cells if cell.keys["data"] == "plants"]
    seen = drawn(Item(**{**vars(one), "cells": tuple(only)}))
    assert len(seen["axes"]) == 1 and [text for text in seen["labels"] if text][1:] == []


def test_captions_are_means_of_complete_cells(drawn):
    assert drawn(item())["axes"][0]["texts"][-1] == "acc. 0.910 ± 0.010\nspread 12.3 ± 0.0"
    assert drawn(item(planned=5))["axes"][0]["texts"][-1] == ""
    assert "over 3 seeds" in drawn(item())["note"].replace("\n", " ")
    first, *others = item(units=("0", "1")).cells
    first = dataclasses.replace(first, values={**first.values, "2": 0.9, "3": 0.9}, planned=4)
    others = [dataclasses.replace(cell, planned=2) for cell in others]
    several = dataclasses.replace(item(), cells=(first, *others))
    assert "over 2 to 4 seeds" in drawn(several)["note"].replace("\n", " ")


def test_the_first_unit_that_is_there_is_drawn(drawn):
    late = item(units=("10", "2"))
    assert {panel.unit for panel in grid(late, PLOT).all} == {"2"}
    assert "seed 2" in drawn(late)["note"]


def test_on_the_sphere_directions_alone_are_drawn(drawn):
    plain, circle, _, _, _ = drawn(item())["axes"]
    assert np.linalg.norm(circle["dots"][0], axis=1) == pytest.approx(1)
    assert circle["xlim"] == circle["ylim"] == pytest.approx((-1.32, 1.32))
    made = arrays(2)
    assert sorted(plain["dots"][0][:, 0]) == pytest.approx(
        sorted(made["embeddings"][:, 0].astype(float))
    )
    # each point has the colour of its class, and the classes are mixed as they are drawn
    colours = [tuple(np.round(row[:3] * 255).astype(int)) for row in plain["colours"][0]]
    wanted = {tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in COLOURS}
    assert set(colours) == wanted and len(set(colours[:20])) > 3


def test_targets_are_crosses(drawn):
    seen = drawn(item(targets=True))
    assert seen["axes"][0]["crosses"][0] == pytest.approx(arrays(2)["class_vectors"])
    assert np.linalg.norm(seen["axes"][1]["crosses"][0], axis=1) == pytest.approx(1)
    assert seen["legend"][-1] == "target"
    assert drawn(item())["axes"][0]["crosses"] == []


def test_numbers_colour_the_panels_that_ask_for_it(drawn):
    made = numbered(targets=True)
    seen = drawn(made)
    plain, circle, _, _, plants, bar = seen["axes"]
    assert seen["bars"] == ["rotation (degrees)"] and bar["xlim"] == (0, 180)
    assert plain["texts"][:10] == list("abcdefghij") == seen["legend"][:10]
    assert circle["texts"][0].startswith("acc.") and len(circle["crosses"][0]) == 10
    # each dot has the colour of its number, from the low end to the high one
    _, panel = grid(made, made.plot).panels[0]
    written = [[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in SEQUENCE]
    wanted = np.rint(panel.values / 180 * (len(SEQUENCE) - 1)).astype(int)
    assert circle["colours"][0][:, :3] == pytest.approx(np.array(written)[wanted], abs=1e-6)
    order = np.argsort(panel.values)
    assert panel.points[order] == pytest.approx(
        made.cells[0].arrays["0"]["embeddings"].astype(float)
        / np.linalg.norm(made.cells[0].arrays["0"]["embeddings"].astype(float), axis=1)[:, None]
    )
    everywhere = NUMBERED.model_copy(update={"by_value": {"view": ("features", "unit sphere")}})
    assert "classes" not in drawn(numbered(everywhere))["note"]
    assert drawn(item())["bars"] == [], "no colour bar where classes colour all"


def test_numbers_without_chance_name_no_unit(drawn):
    fixed = PLOT.model_copy(update={"dots": "random outputs"})
    assert drawn(item(fixed, unit="deterministic"))["note"].startswith("Dots: random outputs; num")


def test_what_colours_need_is_checked():
    with pytest.raises(ValueError, match="saved no `values`"):
        grid(item(NUMBERED), NUMBERED)
    few = PLOT.model_copy(update={"class_names": ("a", "b")})
    with pytest.raises(ValueError, match="class 9 has no name"):
        grid(item(few), few)


def test_a_few_stray_points_do_not_crush_a_panel():
    panel = grid(item(), PLOT).panels[0][0]
    _, plain = panel.window()
    panel.points[:1] = 1e4
    centre, half = panel.window()
    assert half <= plain
    assert (np.abs(panel.middles() - centre) <= half).all()
    inside = (np.abs(panel.points - centre) <= half * (1 + 1e-9)).all(axis=1)
    assert inside.mean() >= 0.995


def test_what_cannot_be_drawn_says_so():
    def state(points, values):
        found = (
            {"0": {"embeddings": points, "labels": np.zeros(len(points), int)}}
            if len(points)
            else {}
        )
        cells = [
            Cell({**cell.keys}, "", "", values, 3, ("r1",), "shortened", arrays=found)
            for cell in item().cells
        ]
        return grid(Item(**{**vars(item()), "cells": tuple(cells)}), PLOT).all[0].state

    assert state(np.full((3, 2), np.inf), {"0": np.nan}) == "diverged"
    assert state(np.ones((3, 8)), {"0": 1.0}) == "8 dimensions"
    assert state(np.ones((3, 2)), {"0": 1.0}) == "all images at one point"
    assert state([], {"0": 1.0}) == "not drawn"
    assert state([], {}) == "no run yet"


def test_the_view_is_a_rotation_and_the_cube_opens_to_the_viewer():
    view = camera()
    assert view @ view.T == pytest.approx(np.eye(3)) and np.linalg.det(view) == pytest.approx(1)
    edges = far_edges(view)
    nearest = np.sign(view[2])
    assert len(edges) == 9 and not any((end == nearest).all() for edge in edges for end in edge)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "Extra inputs"),
        ({"measure": "view"}, "must be different keys"),
        ({"captions": {ACCURACY: "acc."}}, "needs one {}"),
        ({"on_sphere": {"dim": [2]}}, "valid string"),
        ({"by_value": {"view": ["features"]}}, "go together"),
        ({"value_label": "year"}, "go together"),
    ],
)
def test_bad_yaml_is_refused(change, message):
    written = PLOT.model_dump() | change
    with pytest.raises(pydantic.ValidationError, match=message):
        pydantic.TypeAdapter(Plot).validate_python(written)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": ("epoch",)}, "must be distinct key columns"),
        ({"on_sphere": {"view": ("unit cirle",)}}, "'unit cirle'"),
        ({"captions": {"acuracy": "acc. {}"}}, "'acuracy'"),
        ({"by_value": {"view": ("rotation",)}}, "'rotation'"),
    ],
)
def test_a_plot_names_keys_and_values_that_are_there(change, message):
    with pytest.raises(ValueError, match=message):
        item(PLOT.model_copy(update=change))


def test_two_runs_do_not_share_a_panel():
    with pytest.raises(ValueError, match="measures the same thing twice"):
        grid(item(), PLOT.model_copy(update={"rows": ("dim",)}))


SIMULATED = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
TO_CONES = [[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]]
TO_LAB = [[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]]


def linear(colours):
    """Linear RGB (n, 3) of colours as written."""
    written = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in colours])
    return np.where(written <= 0.04045, written / 12.92, ((written + 0.055) / 1.055) ** 2.4)


def oklab(light, seen):
    """OKLab (n, 3) of linear RGB, as somebody sees it."""
    cones = np.clip(light @ np.transpose(seen), 0, 1) @ np.transpose(TO_CONES)
    return np.cbrt(cones) @ np.transpose(TO_LAB)


def test_ten_colours_differ_for_any_colour_vision():
    light = linear(COLOURS)
    for kind, seen in SIMULATED.items():
        lab = oklab(light, seen)
        apart = np.linalg.norm(lab[:, None] - lab[None], axis=2)[~np.eye(len(COLOURS), dtype=bool)]
        assert apart.min() > 0.10, kind
    brightness = light @ [0.2126, 0.7152, 0.0722]
    assert (1.05 / (brightness + 0.05)).min() > 1.65  # on white
    assert ((brightness + 0.05) / 0.0585).min() > 2.8  # on the page's dark background


def test_the_sequence_rises_evenly_for_any_colour_vision():
    light = linear(SEQUENCE)
    for kind, seen in SIMULATED.items():
        lab = oklab(light, seen)
        assert (np.diff(lab[:, 0]) > 0).all(), f"{kind}: darker is lower, everywhere"
        steps = np.linalg.norm(np.diff(lab, axis=0), axis=1)
        assert steps.max() < 3 * steps.min(), kind
    brightness = light @ [0.2126, 0.7152, 0.0722]
    assert (1.05 / (brightness + 0.05)).min() > 1.55  # on white
    assert ((brightness + 0.05) / 0.0585).min() > 1.9  # on the page's dark background
