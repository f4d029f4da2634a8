"""Which planned cells each claim speaks of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hypersphere.papers.planned import Plan, PlannedCell, PlannedItem
from hypersphere.papers.spec import Paper, published_rows
from hypersphere.reporting.cells import select_cells, stem
from hypersphere.reporting.claims import parts_of, tables_of


@dataclass(frozen=True)
class Place:
    """A cell of an item, as the primary or a variant has it."""

    item: PlannedItem
    variant: str
    cell: PlannedCell


@dataclass(frozen=True)
class Claimed:
    """A claim of figure_claims.csv and the places it speaks of, by their index."""

    paper: str
    item: str
    claim: str
    cells: frozenset[int]

    @property
    def key(self) -> tuple[str, str, str]:
        return self.paper, self.item, self.claim

    @property
    def name(self) -> str:
        return f"{self.paper} {self.item}: claim: {self.claim}"


def places(plan: Plan) -> list[Place]:
    """Every cell of a plan, of its items and their variants."""
    return [
        Place(item, variant, cell)
        for item in plan.items
        for variant in ("", *item.spec.variants)
        for cell in item.only(variant).cells
    ]


def claimed(plan: Plan, cells: Sequence[Place]) -> Iterator[Claimed]:
    """The claims whose tables are all planned; cells: `places` of the plan."""
    by_table: dict[tuple[str, str], list[int]] = {}
    for i, of in enumerate(cells):
        by_table.setdefault((of.item.paper.key, stem(of.item.spec.name, of.variant)), []).append(i)
    papers: dict[str, Paper] = {item.paper.key: item.paper for item in plan.items}
    for key, declared in papers.items():
        texts = {(row["item"], row["claim"]) for row in published_rows(key, "figure_claims")}
        for spec in declared.claims:
            item, claim = str(spec.get("item")), str(spec.get("claim"))
            parts = parts_of(spec, plan.items[0].preset)
            told = [(part, name) for part in parts for name in tables_of(part)]
            if (item, claim) not in texts or not told:
                continue
            if all((key, name) in by_table for _, name in told):
                found = (_inside(part, name, by_table[key, name], cells) for part, name in told)
                yield Claimed(key, item, claim, frozenset().union(*found))


def _inside(
    part: Mapping[str, Any], name: str, table: Sequence[int], cells: Sequence[Place]
) -> set[int]:
    """Which cells of one table a part looks at."""
    index = {id(cells[i].cell): i for i in table}
    try:
        found = select_cells([cells[i].cell for i in table], part.get("where", {}), name)
    except ValueError:
        return set()  # a preset with other rows, where it decides nothing
    return {index[id(cell)] for cell in found}
