"""What is done and what is missing, in numbers that the command line prints."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from hypersphere.papers.budget import Budget
from hypersphere.papers.costs import expected_seconds, trained_again
from hypersphere.papers.planned import Plan, blocked, stale, trained_for
from hypersphere.progress import duration
from hypersphere.store import Store

UNFINISHED = ("running", "queued", "interrupted", "failed")  # states that say more than missing


def plan_summary(plan: Plan, store: Store, workers: int) -> dict[str, Any]:
    """Trainings needed, shared, done and missing, and the expected time of what can run here.

    seconds: of one thread; None where no past record says. hours: with `workers` processes.
    """
    missing = plan.missing(store)
    unfinished = [item for item in plan.items if plan.missing(store, [item])]
    reasons = {f"{i.paper.key} {i.spec.name}": r for i in unfinished if (r := blocked(i))}
    unready = plan.unready(store)
    runnable = [node for node in missing if node.id not in unready]
    again = trained_again(runnable, store)
    seconds, unknown = expected_seconds([*runnable, *again], store)
    known = not math.isnan(seconds)
    return {
        "items": len(plan.items),
        "once": once(plan),
        "trainings_of_the_items": plan.requested(),
        "trainings": len(plan.trainings()),
        "shared": plan.requested() - len(plan.trainings()),
        "trainings_missing": sum(node.identity()["kind"] == "training" for node in missing),
        "trained_again": len(again),
        "other_nodes": len(plan.nodes) - len(plan.trainings()),
        "other_nodes_missing": sum(node.identity()["kind"] != "training" for node in missing),
        "runnable_here": len(runnable),
        "stale": len(stale(plan, store)),
        "seconds": round(seconds, 1) if known else None,
        "without_past_record": unknown,
        "hours": round(seconds / max(workers, 1) / 3600, 3) if known else None,
        "blocked": reasons,
    }


def budget_summary(chosen: Budget, seconds: float, workers: int) -> dict[str, Any]:
    """What fits into `seconds` with `workers` processes, for programs; hours of the clock."""
    return {
        "hours": round(seconds / 3600, 3),
        "expected_hours": round(chosen.seconds / workers / 3600, 3),
        "settled": chosen.settled,
        "trainings": sum(step.trainings for step in chosen.steps),
        "runs": list(chosen.nodes),
        "untimed": chosen.untimed,
        "steps": [asdict(step) for step in chosen.steps],
    }


def budget_text(chosen: Budget, seconds: float, workers: int, lines: int = 12) -> str:
    """The same for a person to read."""
    told = budget_summary(chosen, seconds, workers)
    untimed = f"left out: {chosen.untimed} trainings whose time no past record tells"
    if not chosen.steps:
        nothing = (
            f"within {duration(seconds)} nothing more can be settled here (data, or the past"
            " records that tell a run's time, are missing; or all runs take longer)"
        )
        return f"{nothing}\n{untimed}" if chosen.untimed else nothing
    text = [
        f"within {duration(seconds)}: {told['settled']} verdicts and claims by"
        f" {told['trainings']} trainings, expected {duration(chosen.seconds / workers)}"
    ]
    for step in chosen.steps[:lines]:
        text.append(
            f"  {step.settles} by {step.trainings} trainings,"
            f" {duration(step.seconds / workers)}: {step.names[0]}"
            f"{f', and {len(step.names) - 1} more' if step.names[1:] else ''}"
        )
    if (more := len(chosen.steps) - lines) > 0:
        text.append(f"  and {more} steps more (--json lists them)")
    if chosen.untimed:
        text.append(untimed)
    return "\n".join(text)


def once(plan: Plan) -> dict[str, int]:
    """What the plan's tables and figures come to with one unit (seed, class split) and without
    variants: trainings, each counted once; table cells and numbers of figures that come of one."""
    trainings = set[str]()
    count = {"table": 0, "figure": 0}
    for item in plan.items:
        kind = item.spec.name.rstrip("0123456789")
        if kind not in count:
            continue
        for cell in item.cells:
            found = {t.id for node in cell.first_nodes() for t in trained_for(node)}
            count[kind] += bool(found)
            trainings |= found
    return {
        "trainings": len(trainings),
        "table_cells": count["table"],
        "numbers_of_figures": count["figure"],
    }


def item_rows(plan: Plan, store: Store) -> list[dict[str, Any]]:
    """For every item: runs done of planned, the state of the others, and why it cannot run.

    running, queued, interrupted, failed: one entry per run (training or what judges it) in that
    state, with its id, and what the store knows of it (owner, job, error).
    """
    states = {node.id: store.state(node.id) for node in plan.missing(store)}
    users: dict[int, list[str]] = {}
    for node_id, items in plan.users.items():
        for item in items:
            users.setdefault(id(item), []).append(node_id)
    trainings = {training.id for training in plan.trainings()}
    rows = []
    for item in plan.items:
        nodes = users.get(id(item), [])
        unfinished = {node_id: states[node_id] for node_id in nodes if node_id in states}
        row: dict[str, Any] = {
            "paper": item.paper.key,
            "item": item.spec.name,
            "title": item.spec.title,
            "done": sum(i in trainings and i not in unfinished for i in nodes),
            "planned": sum(i in trainings for i in nodes),
            "complete": not unfinished,
        }
        for name in UNFINISHED:
            row[name] = [
                {"run_id": node_id, "text": str(state), **state.about}
                for node_id, state in unfinished.items()
                if state.name == name
            ]
        rows.append(row | {"blocked": blocked(item) if unfinished else None})
    return rows
