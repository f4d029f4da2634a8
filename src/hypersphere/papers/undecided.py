"""Verdicts that are open although their runs are there: how many repeats each would take, and what
those would cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hypersphere.papers.claimed import claimed, places
from hypersphere.papers.costs import expected_seconds
from hypersphere.papers.planned import Plan, PlannedCell, trained_for
from hypersphere.papers.render import judged_items
from hypersphere.progress import duration
from hypersphere.reporting import repeats
from hypersphere.reporting.cells import Item
from hypersphere.reporting.claims import comparisons_of
from hypersphere.reporting.comparisons import Comparison
from hypersphere.reporting.verdicts import as_number, claim_verdict, judge_item
from hypersphere.store import Store

ONLY_OTHERS = "only with other runs"


def undecided(plan: Plan, store: Store) -> list[dict[str, Any]]:
    """One row for each inconclusive cell of the plan whose runs are all there, and for each open
    comparison of a claim on its tables: paper, item, what, unit, n (there), needs (None: more than
    can be told) and, of claims, verdict: the one it has, or how many of the unit would decide it;
    repeats, trainings and seconds (of one thread): what deciding it would take at most, None where
    that cannot be told. First come those that more repeats would give a verdict, the cheapest
    claims before the others."""
    items = [judged_items(planned, store) for planned in plan.items]
    rows = [row for primary, *_ in items for row in _cells(primary)]
    cells = places(plan)
    spoken_of = {claim.key: [cells[i].cell for i in claim.cells] for claim in claimed(plan, cells)}
    for key, spec, found in _compared(plan, items):
        price = _price(found, spoken_of.get((key, spec["item"], spec["claim"]), ()), store)
        told = {"verdict": _verdict(found)} | price
        rows += [
            _row(key, spec["item"], f"claim: {spec['claim']}", each.unit, each.n, each.needs) | told
            for each in found
            if each.outcome == "open" and each.needs is not None
        ]
    return sorted(rows, key=_urgency)


def _urgency(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Those without a verdict that more repeats would give one, then those that need other runs,
    then claims that have theirs; among equals by what it takes."""
    verdict, seconds = row.get("verdict"), row.get("seconds")
    lacks = row["needs"] is not None if verdict is None else row["repeats"] is not None
    last = 0 if lacks else 1 if verdict in (None, ONLY_OTHERS) else 2
    fewest = math.inf if row["needs"] is None else row["needs"] - row["n"]
    return last, math.inf if seconds is None else seconds, fewest


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
    verdict = claim_verdict([each.outcome for each in found])
    if verdict != "not tested":
        return verdict
    n = _decided_with(found)
    return ONLY_OTHERS if n is None else f"with about {n}"


def _decided_with(found: Sequence[Comparison]) -> int | None:
    """With how many of the unit a claim without a verdict would have one; None: with no number, or
    it has one."""
    if claim_verdict([each.outcome for each in found]) != "not tested":
        return None
    for n in sorted({each.needs for each in found if each.needs is not None}):
        # which way they go does not matter for whether there is a verdict
        then = ["supported" if (each.needs or n + 1) <= n else each.outcome for each in found]
        if claim_verdict(then) != "not tested":
            return n
    return None


def _price(
    found: Sequence[Comparison], cells: Sequence[PlannedCell], store: Store
) -> dict[str, Any]:
    """What deciding a claim would take: as many more repeats of every cell that it speaks of as its
    comparisons lack (those that are decided need none, so it is the most)."""
    n = _decided_with(found)
    if n is None:
        return dict.fromkeys(("repeats", "trainings", "seconds"))
    more = max(n - each.n for each in found if each.needs is not None and each.needs <= n)
    once = {t.id: t for cell in cells for node in cell.first_nodes() for t in trained_for(node)}
    seconds, _ = expected_seconds(once.values(), store)
    known = math.isfinite(seconds)
    return {
        "repeats": more,
        "trainings": more * len(once),
        "seconds": round(more * seconds, 1) if known else None,
    }


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
        if have.get("trainings"):
            takes = "" if have["seconds"] is None else f", {duration(have['seconds'])} of a core"
            there += f", at most {have['trainings']} trainings{takes}"
        told.append(f"  {', '.join(needs)} {have['unit']}s ({there}): {paper} {item}: {what}")
    if (more := len(groups) - lines) > 0:
        told.append(f"  and {more} more (--json lists them)")
    return "\n".join(told)
