"""What is done and what is missing, in numbers that the command line prints."""

from __future__ import annotations

import math
from typing import Any

from hypersphere.papers.plan import Plan, blocked, expected_seconds, stale
from hypersphere.store import Store


def plan_summary(plan: Plan, store: Store, workers: int) -> dict[str, Any]:
    """Trainings needed, shared, done and missing, and the expected time of what can run here.

    seconds: of one thread; None where no past record says. hours: with `workers` processes.
    """
    missing = plan.missing(store)
    unfinished = [item for item in plan.items if plan.missing(store, [item])]
    reasons = {f"{i.paper.key} {i.spec.name}": r for i in unfinished if (r := blocked(i))}
    unready = plan.unready(store)
    runnable = [node for node in missing if node.id not in unready]
    seconds, unknown = expected_seconds(runnable, store)
    known = not math.isnan(seconds)
    return {
        "items": len(plan.items),
        "trainings_of_the_items": plan.requested(),
        "trainings": len(plan.trainings()),
        "shared": plan.requested() - len(plan.trainings()),
        "trainings_missing": sum(node.identity()["kind"] == "training" for node in missing),
        "other_nodes": len(plan.nodes) - len(plan.trainings()),
        "other_nodes_missing": sum(node.identity()["kind"] != "training" for node in missing),
        "runnable_here": len(runnable),
        "stale": len(stale(plan, store)),
        "seconds": round(seconds, 1) if known else None,
        "without_past_record": unknown,
        "hours": round(seconds / max(workers, 1) / 3600, 3) if known else None,
        "blocked": reasons,
    }


def item_rows(plan: Plan, store: Store) -> list[dict[str, Any]]:
    """For every item: runs done of planned, those running now, and why it cannot run."""
    rows = []
    for item in plan.items:
        trainings = [t for t in plan.trainings() if item in plan.users[t.id]]
        running = [o for t in trainings if store.get(t.id) is None and (o := store.owner(t.id))]
        missing = plan.missing(store, [item])
        rows.append(
            {
                "paper": item.paper.key,
                "item": item.spec.name,
                "title": item.spec.title,
                "done": len(trainings) - sum(t.id in {m.id for m in missing} for t in trainings),
                "planned": len(trainings),
                "complete": not missing,
                "running": running,
                "blocked": blocked(item) if missing else None,
            }
        )
    return rows
