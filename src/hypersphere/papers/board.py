"""The board in README.md: every item of every paper, and how its cells stand on the real data."""

from __future__ import annotations

import re
from pathlib import Path

from hypersphere import paths
from hypersphere.files import write_text
from hypersphere.papers.render import built_items, judge_claims
from hypersphere.papers.spec import paper, paper_keys, published_rows
from hypersphere.reporting.board import board_markdown, claims_markdown, replace_block
from hypersphere.store import Store

REAL = ("small", "paper")
TITLES = {  # in the order of the board; a paper with declarations brings its own
    "nsl": "",
    "hpn": "Hyperspherical Prototype Networks",
    "embedded-spaces": "Comparison of Embedded Spaces for Deep Learning Classification",
    "fixed-vectors": "Redesigning the classification layer by randomizing the class vectors",
    "imprinting": "Learning with Imprinted Weights",
}


def write_board(readme: Path, store: Store) -> None:
    """Replace the board between its markers in `readme`."""
    write_text(readme, with_board(readme.read_text(encoding="utf-8"), store))


def with_board(text: str, store: Store) -> str:
    """`text` with its board brought up to date with the records of `store`."""
    built = {preset: {k: built_items(k, preset, store) for k in paper_keys()} for preset in REAL}
    names = {key: item_names(key) for key in TITLES}
    papers = [
        (key, f"`{key}` {paper(key).about.title if key in paper_keys() else title}")
        for key, title in TITLES.items()
    ]
    board = board_markdown(papers, names, built)
    rows = {
        preset: [
            row for key, items in by_key.items() for row in judge_claims(paper(key), preset, items)
        ]
        for preset, by_key in built.items()
    }
    return replace_block(replace_block(text, "board", board), "claims", claims_markdown(rows))


def item_names(key: str) -> list[str]:
    """Names of all items of a paper, built or not: tables, figures, then values in the text."""
    if key in paper_keys():
        return paper(key).about.items
    tables = {f.stem for f in (paths.published_dir() / key).glob("table*.csv")}
    # The claims call figure 8 of embedded-spaces, its overview page, by that name.
    claims = {
        r["item"].replace("overview", "figure8") for r in published_rows(key, "figure_claims")
    }
    figures = {name for name in claims if re.fullmatch(r"figure\d+", name)}
    text = ["text"] if (paths.published_dir() / key / "text.csv").exists() else []
    return [*sorted(tables, key=_number), *sorted(figures, key=_number), *text]


def _number(name: str) -> int:
    return int(re.sub(r"\D", "", name))
