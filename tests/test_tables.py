"""What is written: golden tables byte for byte, the page, the board. Numbers are made up.

`python tests/test_tables.py` writes the goldens anew; read the diff before you keep it.
"""

import csv
import math
import subprocess
import sys
from pathlib import Path

import pytest

from hypersphere.reporting.board import board_markdown, claims_markdown, replace_block, short_list
from hypersphere.reporting.cells import Cell, Item
from hypersphere.reporting.layout import grids, places
from hypersphere.reporting.page import page_html, write_page
from hypersphere.reporting.tables import RESULT_COLUMNS, escape_latex, markdown_text, write

GOLDEN = Path(__file__).parent / "golden" / "reporting"
NAN = math.nan


def cell(data, k, method, published, values, planned=3, protocol="exact", std=""):
    keys = {"dataset": data, "k": k, "method": method, "metric": "accuracy"}
    numbers = {str(unit): value for unit, value in enumerate(values)}
    runs = tuple(f"{data[:2]}{k}{method[:2]}{unit}" for unit in numbers)
    return Cell(keys, published, std, numbers, planned, runs, protocol)


def item(**changes):
    """Every verdict, every kind of missing number, and every character that needs care."""
    settings = {
        "paper": "made-up",
        "name": "table1",
        "title": "New & old, 50 % of K* (a_b #1)",
        "preset": "paper",
        "unit": "seed",
        "margin": 0.02,
        "rows": ("k",),
        "columns": ("method",),
        "notes": ("Trained with 10 | 20 epochs; <b> is not a tag.",),
        "cells": (
            cell("set_a", "2", "new", "0.90", [0.900, 0.905, 0.910]),
            cell("set_a", "2", "old", "0.500", [0.60, 0.61, 0.62], std="0.010"),
            cell("set_a", "10", "new", "0.9", [0.90, 0.91, 0.92]),
            cell("set_a", "10", "old", "0.7", [0.70, 0.71]),
            cell("set_b", "2", "new", "", [0.5, 0.5, 0.5]),
            cell("set_b", "2", "old", "NaN", [NAN, NAN, NAN]),
            cell("set_b", "3", "new", "0.8", [0.8, 0.8, NAN]),
            cell("set_b", "3", "old", "0.8", [0.7, 0.7, 0.7], protocol="shortened"),
            cell("set_b", "4", "old", "0.8", [NAN, NAN, NAN]),
        ),
    }
    return Item(**(settings | changes))


def quick_item():
    cells = (cell("digits", "2", "new", "0.90", [0.9, 0.9, 0.9], protocol="substitute"),)
    return item(preset="quick", cells=cells, variant="selected")


@pytest.mark.parametrize("table", [item(), quick_item()], ids=["every-verdict", "quick"])
def test_written_files_equal_the_goldens(table, tmp_path):
    for path in write(table, tmp_path):
        assert path.read_bytes() == (GOLDEN / path.name).read_bytes(), path.name
    assert len(list(tmp_path.iterdir())) == 3


def test_writing_again_changes_no_byte(tmp_path):
    first = [path.read_bytes() for path in write(item(), tmp_path)]
    assert [path.read_bytes() for path in write(item(), tmp_path)] == first


def rule(row):
    """The contract's verdict from a written row alone, None where the row cannot tell."""
    if int(row["n"]) == 0:
        return "not run"
    if row["protocol"] != "exact" or not row["published"]:
        return "not comparable"
    if row["published"].lower() == "nan":
        return None
    low, high, margin = (float(row[name] or "nan") for name in ("low", "high", "margin"))
    if int(row["n"]) < 3 or math.isnan(low):
        return "inconclusive"
    if -margin <= low and high <= margin:
        return "reproduced"
    return "differs" if low > margin or high < -margin else "inconclusive"


def test_csv_columns_and_verdicts_follow_from_its_own_numbers(tmp_path):
    with write(item(), tmp_path)[0].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["dataset", "k", "method", "metric", *RESULT_COLUMNS]
    assert [row["verdict"] for row in rows] == [
        "reproduced",
        "differs",
        "inconclusive",
        "not run",
        "not comparable",
        "reproduced",
        "inconclusive",
        "not comparable",
        "differs",
    ]
    assert all(rule(row) in (None, row["verdict"]) for row in rows)
    assert (rows[3]["ours"], rows[3]["n"], rows[3]["run_ids"]) == ("", "0", "se10ol0 se10ol1")
    assert (rows[5]["published"], rows[5]["ours"]) == ("NaN", "nan")


def test_markdown_says_what_is_missing():
    text = markdown_text(item())
    assert "| 10 | 0.9 → 0.910 ± 0.010 (3) ? | 0.7 → 2/3 runs |" in text
    assert "0.8 → 0.700 ± 0.000 (3) n/c" in text
    assert "diverged → 3/3 diverged (3) ✓" in text
    assert "0.8 → 1/3 diverged (3) ?" in text
    assert "QUICK" not in text
    assert "not comparable with the paper" in markdown_text(quick_item())


def test_as_many_decimals_as_the_paper_prints_anywhere_in_the_metric():
    assert places(item(), item().cells[0]) == 3
    zero = cell("a", "1", "new", "0.00", [])
    assert places(item(cells=(zero,)), zero) == 2
    blank = cell("a", "1", "new", "", [])
    assert places(item(cells=(blank,)), blank) == 3


def test_columns_rise_and_rows_of_one_label_stand_together():
    def one(data, kind, dims):
        return Cell({"data": data, "kind": kind, "dims": dims}, "", "", {}, 3, (), "exact")

    cells = [one("b", "x", "100"), one("a", "x", "200"), one("b", "y", "9"), one("a", "y", "30")]
    made = item(cells=tuple(cells), rows=("data", "kind"), columns=("dims",))
    (only,) = grids(made)
    assert only.columns == ("9", "30", "100", "200")
    assert [label for label, _ in only.rows] == [("b", "x"), ("b", "y"), ("a", "x"), ("a", "y")]
    (only,) = grids(item(cells=tuple(cells), rows=("kind",), columns=("data", "dims")))
    assert only.columns == ("b / 9", "b / 100", "a / 30", "a / 200")
    (only,) = grids(item(cells=tuple(cells), rows=("dims",), columns=("kind", "data")))
    assert [label for label, _ in only.rows] == [("100",), ("200",), ("9",), ("30",)]  # as printed


def test_latex_escapes():
    assert escape_latex("a_b 5 % & #1 $x ±→") == (r"a\_b 5 \% \& \#1 \$x $\pm$$\rightarrow$")
    assert escape_latex("{x}^~\\") == r"\{x\}\textasciicircum{}\textasciitilde{}\textbackslash{}"
    # a dash typed as two hyphens stays two hyphens; a row must not start with an argument
    assert escape_latex("a--b – c") == "a-{}-b -- c"
    assert escape_latex("[x] *y") == "{[}x] {*}y"


def test_latex_is_plain_text_apart_from_known_characters(tmp_path):
    # without a TeX at hand: pdflatex stops at characters it has no glyph for
    text = write(item(), tmp_path)[2].read_text()
    assert text.isascii()
    assert text.count("{") == text.count("}")
    assert text.count("\\begin{tabular}") == text.count("\\end{tabular}") == 2


def test_page_is_self_contained_and_complete(tmp_path):
    claim = {
        "paper": "made-up", "item": "table1", "claim": "New > old & more", "verdict": "holds",
        "evidence": "2 supported", "n": "3", "scope": "x",
    }  # fmt: skip
    runs = [f"run{number}" for number in range(17)]
    records = {run: {"run_id": run, "kind": "training", "identity": {}} for run in runs}
    path = tmp_path / "index.html"
    write_page(path, "paper", [item()], [claim], records)
    text = path.read_text()
    assert text == page_html("paper", [item()], [claim], records)
    assert "http" not in text and "src=" not in text
    assert "prefers-color-scheme: dark" in text
    assert "17 finished runs" in text
    assert 'class="chip not-comparable">2 not comparable</span>' in text
    assert ">-0.0034 .. +0.0134</td>" in text
    assert "<title>seed 0: 0.9; seed 1: 0.905; seed 2: 0.91; published: 0.90</title>" in text
    assert "every run diverged" in text
    assert "New &gt; old &amp; more" in text and "&lt;b&gt; is not a tag" in text
    assert "QUICK PRESET" not in text
    assert "QUICK PRESET" in page_html("quick", [quick_item()], [], {})


def test_board_counts_and_names_what_is_not_built():
    board = board_markdown(
        [("made-up", "A paper"), ("other", "Another")],
        {"made-up": ["table1", "table2"], "other": ["figure1"]},
        {"quick": {"made-up": [quick_item()]}, "paper": {"made-up": [item()]}},
    )
    counts = "2 reproduced, 2 differs, 2 inconclusive, 2 not comparable, 1 not run"
    assert board.splitlines() == [
        "| paper | item | quick | paper |",
        "| --- | --- | --- | --- |",
        f"| A paper | table1 | not built yet | {counts} |",
        "|  | table2 | not built yet | not built yet |",
        "| Another | figure1 | not built yet | not built yet |",
    ]


def test_short_list():
    names = ["table5", "table6", "table8", *(f"figure{i}" for i in range(1, 12)), "text"]
    assert short_list(names) == "table5-6, table8, figure1-11, text"


def test_claims_on_the_board():
    row = {"paper": "p", "item": "table1", "claim": "A > B", "evidence": "2 supported"}
    rows = {
        "small": [
            row | {"verdict": "not tested", "n": "3"},
            row | {"claim": "C", "verdict": "not tested", "n": ""},
        ],
        "paper": [row | {"verdict": "holds", "n": "3"}],
    }
    board = claims_markdown(rows).splitlines()
    assert [line.split(" | ")[3:5] for line in board[2:4]] == [
        ["small", "not tested"],
        ["paper", "holds"],
    ]
    assert board[4:] == ["", "1 of 2 claims decided."]


def test_replace_block():
    text = "a\n<!-- board:begin -->\nold\n<!-- board:end -->\nz\n"
    once = replace_block(text, "board", "new\n")
    assert once == "a\n<!-- board:begin -->\nnew\n<!-- board:end -->\nz\n"
    assert replace_block(once, "board", "new") == once
    with pytest.raises(ValueError, match="claims:begin"):
        replace_block(text, "claims", "new")
    with pytest.raises(ValueError, match="after it"):
        replace_block("<!-- b:end --><!-- b:begin -->", "b", "new")


def test_reports_need_no_torch():
    code = (
        "import sys, hypersphere.reporting.board, hypersphere.reporting.claims,"
        " hypersphere.reporting.page; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


if __name__ == "__main__":
    for each in (item(), quick_item()):
        write(each, GOLDEN)
