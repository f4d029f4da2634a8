"""What the papers' pages say came out, held against the committed tables they point at."""

import csv
import re

import pytest

from hypersphere import paths
from hypersphere.papers.spec import paper_keys

pytestmark = pytest.mark.skipif(not paths.in_checkout(), reason="docs/ is in the checkout")
PAGES = paths.root() / "docs" / "papers"
LINK = re.compile(r"\]\(([^)]+)\)")
NUMBER = re.compile(r"(?<![\w.])\d*\.\d+(?![\w.]*\()")


def findings(key):
    """The blocks (paragraphs, list items, tables) of a page's section, each with the files that it
    rests on: those it points at, of a table those of the block above it, else those of the section's
    first block."""
    section = (PAGES / f"{key}.md").read_text().split("## What came out\n")[1].split("\n## ")[0]
    section = section.partition("<!-- declared")[0]
    blocks = [
        b for part in section.split("\n\n") for b in re.split(r"\n(?= *- )", part) if b.strip()
    ]
    found = []
    for block in blocks:
        files = tables(block)
        if found and not files and block.lstrip().startswith("|"):
            files = found[-1][1]
        found.append((block, files or tables(blocks[0])))
    return found


def tables(block):
    """The files behind the tables, sweeps and printed numbers that a block points at."""
    linked = [(PAGES / target).resolve() for target in LINK.findall(block)]
    return [
        path.with_suffix(".csv")
        for path in linked
        if {"published", "tables", "ablations"} & {*path.parts} and path.suffix in (".md", ".csv")
    ]


def numbers(file):
    """Every number of a table, as it is."""
    with open(file, newline="") as opened:
        cells = [cell for row in csv.reader(opened) for cell in row]
    found = []
    for cell in cells:
        try:
            found.append(float(cell))
        except ValueError:
            continue
    return found


def said(block):
    """The numbers of a block that have decimals; a name or a setting is none."""
    words = LINK.sub("]", block)
    words = re.sub(r"`[^`]*`|!\[[^\]]*\]|\b[Mm]argins? (of )?\.\d+", "", words)
    return NUMBER.findall(words)


def stands_in(number, values):
    """Whether a value rounds to the number as it is printed."""
    places = len(number.partition(".")[2])
    half = 0.5 * 10**-places + 1e-9
    return any(abs(abs(value) - float(number)) <= half for value in values)


@pytest.mark.parametrize("key", paper_keys())
def test_every_number_stands_in_a_table(key):
    wrong = []
    for block, files in findings(key):
        values = [value for file in files for value in numbers(file)]
        wrong += [
            f"{number} in: {block.strip()[:70]}"
            for number in said(block)
            if not stands_in(number, values)
        ]
    assert not wrong, "\n".join(wrong)
