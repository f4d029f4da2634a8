"""Claims: a paper's statements, each split into paired one-sided comparisons of table cells.

A spec names the `item` and the `claim` of a published row and one part, or several under `parts`:
`tables`, optional `where`, and either `greater` with `than`, or `falls` or `rises`.
"""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypersphere.files import write_text
from hypersphere.reporting.cells import Cell, Item
from hypersphere.reporting.verdicts import claim_verdict, common_units, evidence, paired

COLUMNS = ("paper", "item", "claim", "verdict", "evidence", "n", "scope")
SCHEMATIC = ("schematic", "drawn schematic")
PART_FIELDS = {"tables", "where", "greater", "than", "falls", "rises"}


@dataclass(frozen=True)
class Comparison:
    """One paired comparison `left > right`: its outcome, and over how many common units."""

    outcome: str
    n: int
    unit: str


def judge_claims(
    paper: str,
    preset: str,
    published_claims: Sequence[Mapping[str, str]],
    specs: Sequence[Mapping[str, Any]],
    items: Mapping[str, Item],
    scope: str,
) -> list[dict[str, str]]:
    """One row (`COLUMNS`) for every published claim; `items` are the paper's, by item name.

    `scope` says what the claims rest on; `{data}` in it becomes the datasets of the cells at hand.

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
        parts = _parts(by_claim[identity]) if identity in by_claim else []
        if parts:
            where = f"{paper} {identity[0]}: {identity[1]!r}"
            found = [each for part in parts for each in _comparisons(part, items, where)]
            data = sorted({name for part in parts for name in _data(part, items)})
            row |= _decide(found, preset)
            row["scope"] = scope.format(data=" and ".join(data) or "no data yet")
        elif published.get("check", "") in SCHEMATIC:
            row["evidence"] = "a drawing, nothing to measure"
        else:
            row["evidence"] = "its items are not built yet"
        rows.append(row)
    return rows


def _data(part: Mapping[str, Any], items: Mapping[str, Item]) -> list[str]:
    """Datasets behind the complete cells of a part's tables."""
    tables = [items[name] for name in part["tables"]]
    return [d for t in tables if any(cell.complete for cell in t.cells) for d in t.data]


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


def _parts(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The parts of a spec; empty for a claim that is only named (not implemented yet)."""
    rest = {key: value for key, value in spec.items() if key not in ("item", "claim")}
    if "parts" in rest and len(rest) > 1:
        raise ValueError(f"claim {spec['claim']!r}: write everything inside `parts`, or no `parts`")
    parts = rest.get("parts", [rest] if rest else [])
    for part in parts:
        kinds = {"greater", "falls", "rises"} & part.keys()
        stray = part.keys() - PART_FIELDS
        if stray or len(kinds) != 1 or ("greater" in part) != ("than" in part):
            raise ValueError(
                f"claim {spec['claim']!r}: a part has `tables`, optional `where`, and one of"
                f" `greater` with `than`, `falls`, `rises`; got {sorted(part)}"
            )
    return parts


def _comparisons(
    part: Mapping[str, Any], items: Mapping[str, Item], where: str
) -> list[Comparison]:
    if not part.get("tables"):
        raise ValueError(f"{where}: a part names no `tables`")
    found = []
    for name in part["tables"]:
        if name not in items:
            raise ValueError(f"{where}: no table {name!r}, there are {sorted(items)}")
        place = f"{where}: {name}"
        cells = _select(items[name].cells, part.get("where", {}), place)
        if "greater" in part:
            pairs = _greater(cells, part["greater"], part["than"], place)
        else:
            pairs = _steps(cells, part.get("falls", part.get("rises")), place)
            pairs = pairs if "falls" in part else [(after, before) for before, after in pairs]
        if not pairs:
            raise ValueError(f"{place}: no two cells to compare in {dict(part)}")
        found += [_compare(left, right, items[name].unit) for left, right in pairs]
    return found


def _compare(left: Cell, right: Cell, unit: str) -> Comparison:
    done = left.complete and right.complete
    outcome = paired(left.values, right.values) if done else "open"
    return Comparison(
        outcome, len(common_units(left.values, right.values)),
        "value" if unit == "deterministic" else unit,
    )  # fmt: skip


def _select(cells: Iterable[Cell], where: Mapping[str, Any], place: str) -> list[Cell]:
    """Cells whose keys have the wanted values; a wanted value may be a list of them."""
    chosen = list(cells)
    for key, wanted in where.items():
        _check_key(chosen, key, place)
        texts = {str(each) for each in (wanted if isinstance(wanted, list) else [wanted])}
        present = {cell.keys[key] for cell in chosen}
        if texts - present:
            raise ValueError(
                f"{place}: no {key} {sorted(texts - present)}, there are {sorted(present)}"
            )
        chosen = [cell for cell in chosen if cell.keys[key] in texts]
    return chosen


def _check_key(cells: Sequence[Cell], key: str, place: str) -> None:
    if cells and key not in cells[0].keys:
        raise ValueError(f"{place}: no key {key!r}, there are {list(cells[0].keys)}")


def _rest(cell: Cell, compared: set[str]) -> tuple[tuple[str, str], ...]:
    return tuple((key, value) for key, value in cell.keys.items() if key not in compared)


def _greater(
    cells: Sequence[Cell],
    greater: Mapping[str, Any],
    than: Sequence[Mapping[str, Any]],
    place: str,
) -> list[tuple[Cell, Cell]]:
    """Pairs that agree in every key which neither side names."""
    pairs = []
    left = _select(cells, greater, place)
    for other in [than] if isinstance(than, Mapping) else than:
        compared = {*greater, *other}
        partners = {_rest(cell, compared): cell for cell in _select(cells, other, place)}
        found = [
            (cell, partners[_rest(cell, compared)])
            for cell in left
            if _rest(cell, compared) in partners
        ]
        if not found:
            raise ValueError(f"{place}: no cell of {dict(greater)} has a partner in {dict(other)}")
        pairs += found
    return pairs


def _steps(cells: Sequence[Cell], key: str, place: str) -> list[tuple[Cell, Cell]]:
    """Adjacent cells (smaller key, larger key) along a numeric key, all other keys equal."""
    _check_key(cells, key, place)
    series: dict[tuple[tuple[str, str], ...], list[Cell]] = {}
    for cell in cells:
        series.setdefault(_rest(cell, {key}), []).append(cell)
    pairs: list[tuple[Cell, Cell]] = []
    for members in series.values():
        try:
            members.sort(key=lambda cell: float(cell.keys[key]))
        except ValueError as error:
            raise ValueError(f"{place}: {key} is not numeric: {error}") from error
        pairs += zip(members, members[1:], strict=False)
    return pairs


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
