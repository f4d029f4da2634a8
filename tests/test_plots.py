"""Pictures of made-up items: what they show, twice the same bytes, nothing where nothing is done."""

import dataclasses
import os
from typing import Annotated

import numpy as np
import pytest
from PIL import Image

from hypersphere.errors import UserError
from hypersphere.reporting import drawing, plots
from hypersphere.reporting.cells import Cell, Item
from hypersphere.reporting.declared import ByKey
from hypersphere.reporting.drawing import draw
from hypersphere.reporting.kinds import Bars, Dots, Lines, Nothing, Scatter, Schematic
from hypersphere.reporting.plots import bars, lines, scatter, schematic, style

DIAGRAM = {
    "labels": np.array(["image", "network"]), "details": np.array(["1 x 8 x 8", ""]),
    "x": np.array([0.0, 1.0]), "y": np.array([0.0, 0.0]), "roles": np.array(["data", "frozen"]),
    "sources": np.array([0]), "targets": np.array([1]), "notes": np.array(["eq. 4"]),
}  # fmt: skip
PLANE = {
    "embeddings": np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32),
    "labels": np.repeat([0, 1, 2], 20),
    "class_vectors": np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]),
}
LINES = Lines(kind="lines", x="k", series="method", x_label="number", y_label="accuracy")
PLOTS = {
    "dots": (Dots(), {}),
    "lines": (LINES, {}),
    "panels": (LINES.model_copy(update={"panels": "data", "reference": 1.0}), {}),
    "scatter": (Scatter(kind="scatter"), PLANE),
    "bars": (
        Bars(kind="bars", x_label="class", y_label="images", thresholds="k"),
        {"counts": np.array([5, 1, 30])},
    ),
    "schematic": (Schematic(kind="schematic"), DIAGRAM),
}


def item(
    plot=None, arrays=None, units=3, published="", unit="seed", name="figure1", margin=0.02, **more
):
    cells = []
    for data in ("birds", "plants"):
        for k in ("2", "3", "10"):
            for method in ("new", "old"):
                values = {str(u): 0.5 + 0.01 * u + float(k) / 100 for u in range(units)}
                found = {str(u): arrays for u in range(units)} if arrays else {}
                keys = {"dataset": data, "data": data, "k": k, "method": method}
                cells.append(Cell(keys, published, "", values, 3, ("r1",), "exact", arrays=found))
    return Item(
        "p", name, "A title that is long enough to need more than one line of a column", "paper",
        unit, margin, ("k",), ("data", "method"), tuple(cells), plot=plot or Dots(), **more,
    )  # fmt: skip


@pytest.mark.parametrize("kind", PLOTS)
def test_a_picture_twice_is_the_same_bytes(tmp_path, kind):
    plot, arrays = PLOTS[kind]
    first = plots.write(item(plot, arrays), tmp_path / "a")
    second = plots.write(item(plot, arrays), tmp_path / "b")
    assert [path.name for path in first] == ["figure1.png", "figure1.pdf"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    with Image.open(first[0]) as image:
        pixels = np.asarray(image.convert("L"))
        # nothing is cut off at the edges
        assert all((edge == 255).all() for edge in (pixels[0], pixels[-1], pixels[:, 0]))
        assert (pixels < 128).sum() > 500
    assert first[1].read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("kind", PLOTS)
def test_nothing_is_drawn_where_nothing_is_done(tmp_path, kind):
    assert plots.write(item(PLOTS[kind][0], units=0), tmp_path) is None
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """The axes of a picture, looked at before it is saved."""

    def draw(module, *words):
        seen = []

        def save(figure, *_):
            for axis in figure.axes:
                seen.append(
                    {
                        "title": axis.get_title(),
                        "lines": [line.get_xydata().tolist() for line in axis.lines],
                        "texts": [text.get_text() for text in axis.texts],
                        "heights": [
                            bar.get_height() for bar in axis.patches if hasattr(bar, "get_height")
                        ],
                    }
                )
            seen.append([text.get_text() for legend in figure.legends for text in legend.texts])

        monkeypatch.setattr(module, "save", save)
        module.write(*words, tmp_path)
        return seen

    return draw


def test_lines_show_means_in_the_order_of_numbers(drawn):
    *axes, legend = drawn(lines, item(PLOTS["panels"][0]), PLOTS["panels"][0])
    assert [axis["title"] for axis in axes] == ["birds", "plants"]
    assert axes[0]["lines"][0] == [[2, pytest.approx(0.53)], [3, pytest.approx(0.54)],
                                   [10, pytest.approx(0.61)]]  # fmt: skip
    assert legend[:2] == ["new", "old"]


def test_lines_say_how_many_repeats_they_are_the_mean_of():
    three = item(LINES)
    assert lines._band(three).startswith("mean of 3 seeds;")
    few, *rest = three.cells
    few = dataclasses.replace(few, values={"0": 0.5, "1": 0.6}, planned=2)
    mixed = dataclasses.replace(three, cells=(few, *rest))
    assert lines._band(mixed).startswith("mean of 2 or 3 seeds;")
    assert lines._band(item(LINES, units=1)) == "one seed"


def test_published_numbers_are_crosses_among_the_lines(drawn):
    *axes, legend = drawn(lines, item(LINES, published="0.7"), LINES)
    assert [[2.0, 0.7]] in axes[0]["lines"] and legend[-1] == "published"


def test_bars_by_rank_with_thresholds(drawn):
    plot, arrays = PLOTS["bars"]
    axis, _ = drawn(bars, item(plot, arrays), plot)
    assert axis["heights"] == [30, 5, 1]
    assert axis["texts"] == ["2 classes with 2 or more", "2 classes with 3 or more",
                             "1 classes with 10 or more"]  # fmt: skip


def test_a_scatter_puts_features_on_rings_around_their_class_vectors(drawn):
    plot, arrays = PLOTS["scatter"]
    first, second, legend = drawn(scatter, item(plot, arrays))
    assert [axis["title"] for axis in (first, second)] == ["birds, seed 0", "plants, seed 0"]
    radii = np.linalg.norm(np.array(first["lines"][3]), axis=1)  # class 1: features, ray, vector
    assert len(radii) == 20 and radii == pytest.approx(scatter.FIRST_RING + scatter.RING)
    assert legend == ["class 0", "class 1", "class 2"]


def test_a_schematic_has_its_boxes_and_notes(drawn):
    axis, _ = drawn(schematic, item(PLOTS["schematic"][0], DIAGRAM))
    assert axis["texts"] == ["image\n1 x 8 x 8", "network", "eq. 4"]


def test_49_series_differ():
    assert len({style.look(i) for i in range(49)}) == 49


def test_a_plot_names_keys_that_are_there():
    with pytest.raises(ValueError, match="must be distinct key columns"):
        item(LINES.model_copy(update={"x": "epoch"}))


@pytest.fixture
def by_two(monkeypatch):
    monkeypatch.setattr(drawing, "WORTH", 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)


def test_many_are_drawn_beside_this_process_and_are_the_same(by_two, tmp_path, monkeypatch):
    margin = ByKey[Annotated[float, "of a table"]](by="k", words={"2": 0.1, "3": 0.2, "10": 0.3})
    items = [item(name=f"figure{number}", margin=margin) for number in range(4)]
    nothing = item(Nothing(kind="none"), name="table1")
    here = draw([(each, tmp_path / "here") for each in items[:2]])
    assert [path.name for path in here] == [
        f"figure{number}.{kind}" for number in range(2) for kind in ("png", "pdf")
    ]
    monkeypatch.setattr(plots.dots, "write", lambda *given: 1 / 0)  # drawn here, it fails
    with pytest.raises(ZeroDivisionError):
        draw([(items[0], tmp_path / "here")])
    beside = draw([(each, tmp_path / "beside") for each in (*items, nothing)])
    assert [path.name for path in beside[:4]] == [path.name for path in here]
    assert len(beside) == 8 and not list(tmp_path.rglob("table1*"))
    for one, other in zip(here, beside, strict=False):
        assert one.read_bytes() == other.read_bytes()


class Fatal:
    """An item that kills the process that is to draw it."""

    plot = Dots()

    def __reduce__(self):
        return os._exit, (1,)


def test_a_killed_process_is_said_and_the_rest_given_up(by_two, tmp_path):
    with pytest.raises(UserError, match="killed .*run `hypersphere render` again"):
        draw([(Fatal(), tmp_path), *((item(), tmp_path) for _ in range(3))])


def test_a_folder_that_takes_no_file_is_said_from_a_process_too(by_two, tmp_path):
    taken = tmp_path / "file"
    taken.write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        draw([(item(name=f"figure{number}"), taken) for number in range(4)])
