"""Claims: a paper's statements, each split into paired one-sided comparisons of cells.

A spec names the `item` and the `claim` of a published row and one part, or several under `parts`
(comparisons), or with `note` why there is nothing to compare. Where a preset sets out to run
only some rows of a table, a part says so (`presets: {small: {where: {n_shot: [1, 5, 20]}}}`: added
to its `where`; other keys are replaced; `{small: null}`: it is no part there), and the spec's
`scope` says it to the reader.
"""

from __future__ import annotations

import contextlib
import csv
import difflib
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hypersphere.files import write_text
from hypersphere.reporting.cells import Item
from hypersphere.reporting.comparisons import Comparison, comparisons
from hypersphere.reporting.verdicts import claim_verdict, evidence

COLUMNS = ("paper", "item", "claim", "verdict", "evidence", "n", "scope")
NOT_PARTS = ("item", "claim", "note", "scope")
SCHEMATIC = ("schematic", "drawn schematic")


def judge_claims(
    paper: str,
    preset: str,
    published_claims: Sequence[Mapping[str, str]],
    specs: Sequence[Mapping[str, Any]],
    items: Mapping[str, Item],
    scope: str,
) -> list[dict[str, str]]:
    """One row (`COLUMNS`) for every published claim; `items` are the paper's, by `Item.stem`.

    `scope` says what the claims rest on, unless a spec has its own for this preset; `{data}` in it
    becomes the datasets of the cells at hand.

    Raises ValueError when a spec names a claim that is not published, or a table, key or value
    that does not exist.
    """
    by_claim = _specs_by_claim(paper, published_claims, specs)
    rows = []
    for published in published_claims:
        identity = (published["item"], published["claim"])
        row = dict.fromkeys(COLUMNS, "") | {
            "paper": paper,
            "item": identity[0],
            "claim": identity[1],
            "verdict": "not tested",
        }
        parts = parts_of(by_claim[identity], preset) if identity in by_claim else []
        if parts:
            where = f"{paper} {identity[0]}: {identity[1]!r}"
            try:
                found = [each for part in parts for each in comparisons(part, items, where)]
            except ValueError:
                if preset != "quick":
                    raise
                # Its figures have other rows (fewer classes), which the claim does not name.
                row["evidence"] = "other rows than the paper's; quick decides no claim"
            else:
                data = sorted({name for part in parts for name in _data(part, items)})
                row |= _decide(found, preset)
                own = by_claim[identity].get("scope", {}).get(preset, scope)
                row["scope"] = own.format(data=" and ".join(data) or "no data yet")
        elif published.get("check", "") in SCHEMATIC:
            row["evidence"] = "a drawing, nothing to measure"
        elif note := by_claim.get(identity, {}).get("note"):
            row["evidence"] = note
        else:
            row["evidence"] = "its items are not built yet"
        rows.append(row)
    return rows


def comparisons_of(
    paper: str, specs: Sequence[Mapping[str, Any]], items: Mapping[str, Item]
) -> list[tuple[Mapping[str, Any], list[Comparison]]]:
    """The claims whose tables are all among `items`, each with its comparisons."""
    found = []
    preset = next((item.preset for item in items.values()), "")
    for spec in specs:
        parts = parts_of(spec, preset)
        where = f"{paper} {spec['item']}: {spec['claim']!r}"
        if parts and all(set(tables_of(part)) <= items.keys() for part in parts):
            with contextlib.suppress(ValueError):  # a preset with other rows, where none is decided
                found.append((spec, [c for part in parts for c in comparisons(part, items, where)]))
    return found


def tables_of(part: Mapping[str, Any]) -> list[str]:
    """The items that a part compares, by stem."""
    return [*part.get("tables", []), *([part["with"]] if "with" in part else [])]


def _data(part: Mapping[str, Any], items: Mapping[str, Item]) -> set[str]:
    """Datasets behind the complete cells that a part looks at."""
    found: set[str] = set()
    wanted = part.get("where", {}).get("dataset", [])
    wanted = wanted if isinstance(wanted, list) else [wanted]
    for table in (items[name] for name in part["tables"]):
        for cell in table.cells:
            named = cell.keys.get("dataset", "")
            if not cell.complete or (wanted and named not in wanted):
                continue
            # on substitute data a cell's key is the paper's dataset, not ours
            found |= {named} if named in table.data else set(table.data)
    return found


def _decide(found: Sequence[Comparison], preset: str) -> dict[str, str]:
    outcomes = [each.outcome for each in found]
    decided = [each.n for each in found if each.outcome != "open"]
    units = {each.unit for each in found}
    n = min(decided or [each.n for each in found])
    text = evidence(outcomes, n, units.pop() if len(units) == 1 else "unit")
    verdict = claim_verdict(outcomes)
    if preset == "quick":
        verdict, text = "not tested", f"{text}; quick decides no claim"
    return {"verdict": verdict, "evidence": text, "n": str(n) if decided else ""}


def _specs_by_claim(
    paper: str,
    published_claims: Sequence[Mapping[str, str]],
    specs: Sequence[Mapping[str, Any]],
) -> dict[tuple[str, str], Mapping[str, Any]]:
    known = {(row["item"], row["claim"]) for row in published_claims}
    found: dict[tuple[str, str], Mapping[str, Any]] = {}
    for spec in specs:
        identity = (str(spec.get("item")), str(spec.get("claim")))
        if identity not in known:
            near = difflib.get_close_matches(
                " ".join(identity), [" ".join(each) for each in sorted(known)], n=1, cutoff=0
            )
            raise ValueError(
                f"{paper}: no published claim {' '.join(identity)!r};"
                f" the nearest is {near[0] if near else None!r}"
            )
        if identity in found:
            raise ValueError(f"{paper}: the claim {' '.join(identity)!r} has two specs")
        found[identity] = spec
    return found


def parts_of(spec: Mapping[str, Any], preset: str) -> list[Mapping[str, Any]]:
    """The parts of a spec, as a preset compares them; empty for a claim that is only named (not
    built yet, or `note`)."""
    rest = {key: value for key, value in spec.items() if key not in NOT_PARTS}
    if "parts" in rest and len(rest) > 1:
        raise ValueError(f"claim {spec['claim']!r}: write everything inside `parts`, or no `parts`")
    found = (_narrowed(part, preset) for part in rest.get("parts", [rest] if rest else []))
    return [part for part in found if part is not None]


def _narrowed(part: Mapping[str, Any], preset: str) -> Mapping[str, Any] | None:
    if (own := part.get("presets", {}).get(preset, {})) is None:
        return None
    rest = {key: value for key, value in part.items() if key != "presets"}
    where = {**rest.get("where", {}), **own.get("where", {})}
    return rest | own | ({"where": where} if where else {})


def _order(row: Mapping[str, str]) -> tuple[Any, ...]:
    # figure2 before figure10
    item = [(0, int(x), "") if x.isdigit() else (1, 0, x) for x in re.split(r"(\d+)", row["item"])]
    return (row["paper"], item, row["claim"])


def write_claims(rows: Sequence[Mapping[str, str]], path: Path) -> None:
    """Write `claims.csv`: these papers' rows replace their old ones, other papers' rows stay."""
    path = Path(path)
    papers = {row["paper"] for row in rows}
    kept: list[Mapping[str, str]] = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            kept = [row for row in csv.DictReader(file) if row["paper"] not in papers]
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted([*kept, *rows], key=_order))
    write_text(path, out.getvalue())
