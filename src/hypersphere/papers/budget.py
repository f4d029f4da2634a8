"""Which runs to do in a given time: those that settle most verdicts and claims."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hypersphere.config import Node
from hypersphere.papers.claimed import claimed, places
from hypersphere.papers.costs import seconds_of, to_do, trained_again
from hypersphere.papers.planned import Plan, PlannedCell, PlannedItem
from hypersphere.papers.undecided import decided
from hypersphere.reporting.verdicts import as_number
from hypersphere.store import Store

QUICK = 1.0  # seconds of what judges a training, or computes without one


@dataclass(frozen=True)
class Step:
    """What is settled together: cells (`nsl table2: ...`) that get a verdict, and claims; the
    seconds of one thread that its runs add to what was chosen before."""

    names: tuple[str, ...]
    settles: int
    seconds: float
    trainings: int


@dataclass
class Budget:
    """What fits into a time: steps in the order of most verdicts per second, and their nodes.
    untimed: how many runs that could be done here were left out, since no past record tells their
    time."""

    steps: list[Step] = field(default_factory=list)
    nodes: dict[str, Node] = field(default_factory=dict)
    seconds: float = 0.0
    untimed: int = 0

    @property
    def settled(self) -> int:
        return sum(step.settles for step in self.steps)


@dataclass(eq=False)
class _Aim:
    """Something to settle: its name, the cells that it needs, and whether it is a claim."""

    name: str
    cells: frozenset[int]
    claim: bool


def within(plan: Plan, store: Store, seconds: float) -> Budget:
    """What of a plan to run in so many seconds of one thread.

    A cell is settled when all its runs are there and the paper prints a number for the same
    protocol; a claim without a verdict when all cells that it speaks of are complete (which may
    leave it open).
    Chosen one after another by verdicts per second that is still to be spent, so that what shares
    runs comes together. Runs whose data are not here, and kinds of run without a past record to
    tell their time, are left out.
    """
    cost, untimed = _costs(plan, store)
    cells = places(plan)
    needs = [_needs(place.cell, store) for place in cells]
    open_ = {i for i, nodes in enumerate(needs) if nodes}
    possible = {i for i in open_ if all(node in cost for node in needs[i])}
    aims = [
        _Aim(f"{of.item.paper.key} {of.item.spec.name}: {', '.join(of.cell.keys.values())}",
             frozenset([i]), False)
        for i, of in enumerate(cells)
        if i in possible and not of.variant and _has_verdict(of.item, of.cell)
    ]  # fmt: skip
    done = decided(plan, store)
    for claim in claimed(plan, cells):
        missing = claim.cells & open_
        if missing and missing <= possible and claim.key not in done:
            aims.append(_Aim(claim.name, claim.cells, True))
    verdicts = {next(iter(aim.cells)) for aim in aims if not aim.claim}
    return replace(_chosen(aims, verdicts, needs, cost, plan, seconds), untimed=untimed)


def _chosen(
    aims: list[_Aim],
    verdicts: set[int],
    needs: list[frozenset[str]],
    cost: Mapping[str, float],
    plan: Plan,
    seconds: float,
) -> Budget:
    budget, settled = Budget(), set[int]()

    def new(aim: _Aim) -> set[str]:
        return set[str]().union(*(needs[i] for i in aim.cells)) - budget.nodes.keys()

    def gain(aim: _Aim) -> int:
        return len((aim.cells & verdicts) - settled) + aim.claim

    while aims:
        best, best_rate = None, 0.0
        for aim in aims:
            spent = sum(cost[node] for node in new(aim))
            rate = gain(aim) / max(spent, QUICK)
            if rate > best_rate and budget.seconds + spent <= seconds:
                best, best_rate = aim, rate
        if best is None:
            break
        nodes = {node_id: node for node_id, node in plan.nodes.items() if node_id in new(best)}
        spent = sum(cost[node_id] for node_id in nodes)
        budget.nodes |= nodes
        budget.seconds += spent
        together = [best, *(aim for aim in aims if aim is not best and not new(aim))]
        gained = 0
        for aim in together:
            gained += gain(aim)
            settled |= aim.cells
        trainings = sum(node.identity()["kind"] == "training" for node in nodes.values())
        names = tuple(aim.name for aim in together)
        budget.steps.append(Step(names, gained, spent, trainings))
        aims = [aim for aim in aims if aim not in together]
    return budget


def _costs(plan: Plan, store: Store) -> tuple[dict[str, float], int]:
    """Seconds of each node to do that can be run here and whose time past records tell, and how
    many there are whose time they do not."""
    unready, missing = plan.unready(store), plan.missing(store)
    ready = {
        node_id: QUICK if value is None else value
        for node_id, value in seconds_of([*missing, *trained_again(missing, store)], store).items()
        if node_id not in unready
    }
    timed = {node_id: value for node_id, value in ready.items() if not math.isnan(value)}
    return timed, len(ready) - len(timed)


def _needs(cell: PlannedCell, store: Store) -> frozenset[str]:
    """Nodes to do for a cell, with what they start from."""
    return frozenset(found.id for node in cell.every_node() for found in to_do(node, store))


def _has_verdict(item: PlannedItem, cell: PlannedCell) -> bool:
    return item.settings.protocol == "exact" and as_number(cell.published) is not None
