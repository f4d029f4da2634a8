"""Verdicts that are open although their runs are there: how many repeats each would take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hypersphere.papers.planned import Plan
from hypersphere.papers.render import judged_items
from hypersphere.reporting import repeats
from hypersphere.reporting.cells import Item
from hypersphere.reporting.claims import comparisons_of
from hypersphere.reporting.comparisons import Comparison
from hypersphere.reporting.verdicts import as_number, claim_verdict, judge_item
from hypersphere.store import Store


def undecided(plan: Plan, store: Store) -> list[dict[str, Any]]:
    """One row for each inconclusive cell of the plan whose runs are all there, and for each open
    comparison of a claim on its tables: paper, item, what, unit, n (there), needs (None: more than
    can be told) and, of claims, verdict: the one it has, or how many of the unit would decide it.
    Those that need fewest more come first."""
    items = [judged_items(planned, store) for planned in plan.items]
    rows = [row for primary, *_ in items for row in _cells(primary)]
    for key, spec, found in _compared(plan, items):
        what = f"claim: {spec['claim']}"
        verdict = _verdict(found)
        rows += [
            _row(key, spec["item"], what, each.unit, each.n, each.needs) | {"verdict": verdict}
            for each in found
            if each.outcome == "open" and each.needs is not None
        ]
    return sorted(rows, key=lambda row: (row["needs"] is None, (row["needs"] or 0) - row["n"]))


def decided(plan: Plan, store: Store) -> set[tuple[str, str, str]]:
    """Paper, item and claim of those claims on the plan's tables that have a verdict."""
    compared = _compared(plan, [judged_items(planned, store) for planned in plan.items])
    return {
        (key, spec["item"], spec["claim"])
        for key, spec, found in compared
        if claim_verdict([each.outcome for each in found]) != "not tested"
    }


def _compared(
    plan: Plan, items: Sequence[Sequence[Item]]
) -> Iterator[tuple[str, Mapping[str, Any], list[Comparison]]]:
    """Paper, declaration and comparisons of each claim on the plan's tables; items: each planned
    item with its variants."""
    papers: dict[str, dict[str, Item]] = {}
    for planned, found in zip(plan.items, items, strict=True):
        papers.setdefault(planned.paper.key, {}).update((item.stem, item) for item in found)
    declared = {planned.paper.key: planned.paper.claims for planned in plan.items}
    for key, by_stem in papers.items():
        for spec, comparisons in comparisons_of(key, declared[key], by_stem):
            yield key, spec, comparisons


def _verdict(found: Sequence[Comparison]) -> str:
    """The verdict that a claim has, or when it would have one."""
    outcomes = [each.outcome for each in found]
    if (verdict := claim_verdict(outcomes)) != "not tested":
        return verdict
    for n in sorted({each.needs for each in found if each.needs is not None}):
        # which way they go does not matter for whether there is a verdict
        then = ["supported" if (each.needs or n + 1) <= n else each.outcome for each in found]
        if claim_verdict(then) != verdict:
            return f"with about {n}"
    return "only with other runs"


def _cells(item: Item) -> list[dict[str, Any]]:
    found = []
    for cell, judged in judge_item(item):
        published = as_number(cell.published)
        if judged.verdict != "inconclusive" or not cell.complete or published is None:
            continue
        differences = [value - published for value in cell.values.values()]
        needs = repeats.to_judge(differences, judged.margin)
        what = ", ".join(cell.keys.values())
        found.append(_row(item.paper, item.name, what, item.unit, judged.n, needs))
    return found


def _row(paper: str, item: str, what: str, unit: str, n: int, needs: int | None) -> dict[str, Any]:
    return {"paper": paper, "item": item, "what": what, "unit": unit, "n": n, "needs": needs}


def text(rows: list[dict[str, Any]], lines: int = 20) -> str:
    """The rows for a person to read, the comparisons of a claim in one line."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["paper"], row["item"], row["what"]), []).append(row)
    told = [
        f"open although their runs are there: {len(rows)} cells and comparisons of claims; by the"
        " spread so far they would take about"
    ]
    for (paper, item, what), group in list(groups.items())[:lines]:
        needs = [str(row["needs"]) if row["needs"] else f"> {repeats.MOST}" for row in group]
        have = group[0]
        there = f"{have['n']} there"
        if verdict := have.get("verdict"):
            there += f"; decided: {verdict}"
        told.append(f"  {', '.join(needs)} {have['unit']}s ({there}): {paper} {item}: {what}")
    if (more := len(groups) - lines) > 0:
        told.append(f"  and {more} more (--json lists them)")
    return "\n".join(told)
