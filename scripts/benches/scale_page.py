"""The figure and the tables of docs/scale.md, from the file of a processor.

python scripts/benches/scale_page.py results/bench/<processor>.json

The tables stand between marks in the page, whose text is written by hand. The row of iNaturalist
follows from the largest measured one, in proportion.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from hypersphere.reporting.board import replace_block

DOCS = Path(__file__).parents[2] / "docs"
INATURALIST = 579_184  # training images of iNaturalist 2017
TITLES = {
    "heads": "scale: a step of the head, batch 128, by classes and dimensions",
    "classes": "scale: class vectors inferred and few-shot evaluation, 64 dimensions, by classes",
    "prototypes": "scale: prototypes in 25 dimensions, by classes",
    "runs": "scale: store and tables, by runs",
    "images": "scale: image files of 256 x 192 pixels, by images",
}
COLUMNS = {
    "heads": {
        "classes": "classes",
        "dimensions": "dimensions",
        "logits": "logits",
        "seconds": "s per step",
        "peak_mb": "MB at the peak",
        "class_vectors_mb": "MB of class vectors",
        "predict_500_seconds": "s to classify 500",
    },
    "classes": {
        "classes": "classes",
        "infer_seconds": "s to infer",
        "infer_peak_mb": "MB",
        "few_shot_seconds": "s of a draw",
        "few_shot_peak_mb": "MB",
    },
    "prototypes": {
        "classes": "classes",
        "optimal_seconds": "s of the search",
        "optimal_peak_mb": "MB",
        "largest_cosine": "largest cosine",
        "published_1000_steps_seconds": "s of 1,000 published steps",
    },
    "runs": {
        "runs": "runs",
        "plan": "s to plan",
        "open": "s to open the store",
        "status": "s of `status`, all in all",
        "collect": "s to collect records",
        "table": "s to write the table",
        "peak_memory_mb": "MB of `status`",
    },
    "images": {
        "images": "images",
        "hashed_seconds": "s to list and hash",
        "listed_seconds": "s to list again",
        "listing_peak_mb": "MB at the peak of these",
        "streamed_images_per_second": "images/s streamed",
        "streamed_peak_mb": "MB",
        "kept_images_per_second": "images/s kept decoded",
        "large_images_per_second": "images/s of 800 x 600",
    },
}
EXTRAPOLATED = ("hashed_seconds", "listed_seconds", "listing_peak_mb")
Row = dict[str, Any]


def tables(file: Path) -> dict[str, list[Row]]:
    """The measured rows by name, with the row of iNaturalist added to the images."""
    lines = json.loads(file.read_text())["lines"]
    found = {name: lines[title]["rows"] for name, title in TITLES.items()}
    found["runs"] = [
        row | row["parts_cpu_seconds"] | {"status": row["cpu_seconds"]} for row in found["runs"]
    ]
    last = found["images"][-1]
    times = INATURALIST / last["images"]
    guess = {"images": INATURALIST} | {key: times * last[key] for key in EXTRAPOLATED}
    found["images"] = [*found["images"], guess]
    return found


def markdown(name: str, rows: list[Row]) -> str:
    columns = COLUMNS[name]
    body = ["| " + " | ".join(_text(row.get(key), key) for key in columns) + " |" for row in rows]
    return "\n".join(
        ["| " + " | ".join(columns.values()) + " |", "|" + " --- |" * len(columns), *body]
    )


def _text(value: Any, key: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        text = f"{value:,}"
        return f"{text} (on paper)" if value == INATURALIST else text
    if key == "largest_cosine":
        return f"{value:.3f}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def page(text: str, file: Path) -> str:
    """The page with its tables brought up to date."""
    for name, rows in tables(file).items():
        text = replace_block(text, name, markdown(name, rows))
    return text


def draw(file: Path, target: Path) -> None:
    found = tables(file)
    figure, axes = pyplot.subplots(2, 3, figsize=(12, 7), layout="constrained")
    step, memory, few, placed, store, files = axes.flat
    for dim, colour in ((64, "C0"), (512, "C1")):
        of_dim = [row for row in found["heads"] if row["dimensions"] == dim]
        default, whole = of_dim[:-1], of_dim[-1]
        _line(step, default, "classes", "seconds", f"{dim} dimensions", colour)
        _line(memory, default, "classes", "peak_mb", f"{dim} dimensions", colour)
        _line(
            memory, default, "classes", "class_vectors_mb", "class vectors alone", colour,
            linestyle=":", marker="",
        )  # fmt: skip
        for axis, key in ((step, "seconds"), (memory, "peak_mb")):
            axis.plot(
                whole["classes"], whole[key], "x", color=colour, label=f"{dim}, all logits at once"
            )
    _line(few, found["classes"], "classes", "infer_seconds", "class vectors inferred", "C2")
    _line(few, found["classes"], "classes", "few_shot_seconds", "a few-shot draw", "C3")
    _line(placed, found["prototypes"], "classes", "optimal_seconds", "search", "C4")
    _line(
        placed, found["prototypes"], "classes", "published_1000_steps_seconds",
        "1,000 published steps", "C5",
    )  # fmt: skip
    for i, (key, label) in enumerate(
        (("plan", "plan"), ("open", "open the store"), ("status", "status, all in all"),
         ("collect", "collect records"), ("table", "write the table"))
    ):  # fmt: skip
        _line(store, found["runs"], "runs", key, label, f"C{i}")
    *measured, last, guess = found["images"]
    for i, key in enumerate(EXTRAPOLATED[:2]):
        _line(files, [*measured, last], "images", key, COLUMNS["images"][key][5:], f"C{i}")
        _line(files, [last, guess], "images", key, "", f"C{i}", linestyle=":")
    for axis, title, unit in (
        (step, "a step of the head, batch 128", "seconds"),
        (memory, "the same: memory at its peak", "MB"),
        (few, "new classes, 64 dimensions", "seconds"),
        (placed, "prototypes in 25 dimensions", "seconds"),
        (store, "runs of a plan, half of them done", "seconds"),
        (files, "image files; dotted: on paper", "seconds"),
    ):
        axis.set(xscale="log", yscale="log", title=title, ylabel=unit)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    for axis in axes.flat[:4]:
        axis.set_xlabel("classes")
    store.set_xlabel("runs")
    files.set_xlabel("images")
    figure.savefig(target, dpi=110, metadata={"Software": None})


def _line(
    axis: Any, rows: list[Row], x: str, y: str, label: str, colour: str, **style: Any
) -> None:
    marker = {"marker": "o", "markersize": 4} | style
    rows = [row for row in rows if row.get(y) is not None]
    axis.plot(
        [r[x] for r in rows], [r[y] for r in rows], color=colour, label=label or None, **marker
    )


def main() -> None:
    file = Path(sys.argv[1])
    text = (DOCS / "scale.md").read_text()
    (DOCS / "scale.md").write_text(page(text, file))
    draw(file, DOCS / "scale.png")


if __name__ == "__main__":
    main()
