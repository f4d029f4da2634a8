"""The boards in README.md and docs/board.md: how papers, items and claims stand on real data."""

from __future__ import annotations

from pathlib import Path

from hypersphere.files import write_text
from hypersphere.papers.render import built_items, judge_claims
from hypersphere.papers.spec import paper, paper_keys
from hypersphere.reporting.board import (
    board_markdown,
    claims_markdown,
    replace_block,
    scoreboard_markdown,
)
from hypersphere.store import Store

REAL = ("small", "paper")
ORDER = ("nsl", "hpn", "embedded-spaces", "fixed-vectors", "imprinting")  # others behind them
PAGES = ("README.md", "docs/board.md")


def write_boards(root: Path, store: Store) -> None:
    """Bring the boards on the pages of the checkout at `root` up to date."""
    found = boards(store)
    for page in PAGES:
        text = (root / page).read_text(encoding="utf-8")
        write_text(root / page, with_boards(text, found))


def with_boards(text: str, found: dict[str, str]) -> str:
    """`text` with those of the boards that it has markers for."""
    for name, board in found.items():
        if f"<!-- {name}:begin -->" in text:
            text = replace_block(text, name, board)
    return text


def boards(store: Store) -> dict[str, str]:
    """By name: `scoreboard`, a row per paper; `board`, one per item; `claims`, one per claim."""
    keys = sorted(paper_keys(), key=lambda key: (ORDER.index(key) if key in ORDER else 99, key))
    built = {preset: {key: built_items(key, preset, store) for key in keys} for preset in REAL}
    names = {key: paper(key).about.items for key in keys}
    papers = [(key, f"`{key}` {paper(key).about.title}") for key in keys]
    rows = {
        preset: [
            row for key, items in by_key.items() for row in judge_claims(paper(key), preset, items)
        ]
        for preset, by_key in built.items()
    }
    return {
        "scoreboard": scoreboard_markdown(papers, built, rows),
        "board": board_markdown(papers, names, built),
        "claims": claims_markdown(rows),
    }
