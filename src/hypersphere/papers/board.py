"""The board in README.md: every item of every paper, and how its cells stand on the real data."""

from __future__ import annotations

from pathlib import Path

from hypersphere.files import write_text
from hypersphere.papers.render import built_items, judge_claims
from hypersphere.papers.spec import paper, paper_keys
from hypersphere.reporting.board import board_markdown, claims_markdown, replace_block
from hypersphere.store import Store

REAL = ("small", "paper")
ORDER = ("nsl", "hpn", "embedded-spaces", "fixed-vectors", "imprinting")  # others behind them


def write_board(readme: Path, store: Store) -> None:
    """Replace the board between its markers in `readme`."""
    write_text(readme, with_board(readme.read_text(encoding="utf-8"), store))


def with_board(text: str, store: Store) -> str:
    """`text` with its board brought up to date with the records of `store`."""
    keys = sorted(paper_keys(), key=lambda key: (ORDER.index(key) if key in ORDER else 99, key))
    built = {preset: {key: built_items(key, preset, store) for key in keys} for preset in REAL}
    names = {key: paper(key).about.items for key in keys}
    papers = [(key, f"`{key}` {paper(key).about.title}") for key in keys]
    board = board_markdown(papers, names, built)
    rows = {
        preset: [
            row for key, items in by_key.items() for row in judge_claims(paper(key), preset, items)
        ]
        for preset, by_key in built.items()
    }
    return replace_block(replace_block(text, "board", board), "claims", claims_markdown(rows))
