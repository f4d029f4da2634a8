"""The claims and how they stand: which hold, on what evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from hypersphere.answers.places import check_preset
from hypersphere.errors import UserError, did_you_mean
from hypersphere.papers.render import built_items, judge_claims
from hypersphere.papers.spec import paper, paper_keys
from hypersphere.reporting.verdicts import CLAIM_VERDICTS
from hypersphere.store import Store


def claims(
    presets: Sequence[str], key: str, item: str, verdict: str, store: Store
) -> list[dict[str, Any]]:
    """Rows of claims.csv with their `preset`, from the records as they are now; of one paper, item
    (as figure_claims.csv names it) and verdict where these are not empty."""
    for preset in presets:
        check_preset(preset)
    if verdict and verdict not in CLAIM_VERDICTS:
        hint = did_you_mean(verdict, CLAIM_VERDICTS)
        raise UserError(f"no verdict {verdict!r}{hint} ({', '.join(CLAIM_VERDICTS)})")
    papers = [paper(each) for each in ([key] if key else paper_keys())]
    rows = [
        {"preset": preset, **row}
        for preset in presets
        for declared in papers
        for row in judge_claims(declared, preset, built_items(declared.key, preset, store))
    ]
    names = dict.fromkeys(row["item"] for row in rows)
    if item and item not in names:
        hint = did_you_mean(item, names)
        raise UserError(f"no claim on {item!r}{hint} (there are: {', '.join(names)})")
    return [row for row in rows if item in ("", row["item"]) and verdict in ("", row["verdict"])]


def text(rows: Sequence[dict[str, Any]], every: bool) -> str:
    """The rows for a person to read: counts by preset, then the claims that numbers speak of (all
    with `every`)."""
    lines = []
    for preset in dict.fromkeys(row["preset"] for row in rows):
        of = [row for row in rows if row["preset"] == preset]
        count = Counter(row["verdict"] for row in of)
        told = ", ".join(f"{count[verdict]} {verdict}" for verdict in CLAIM_VERDICTS)
        lines.append(f"preset {preset}: {told}, of {len(of)} claims")
        shown = [row for row in of if every or row["n"]]
        for row in shown:
            lines.append(f"  {row['verdict']:<10} {row['paper']} {row['item']}: {row['claim']}")
            scope = f"; {row['scope']}" if row["n"] else ""
            lines.append(f"  {'':<10} {row['evidence']}{scope}")
        if silent := len(of) - len(shown):
            lines.append(f"  {silent} more that no number speaks of yet (--all lists them)")
    return "\n".join(lines)
