"""What is planned: cells, items and the run graph behind them; what of it is done, missing, stale,
and what cannot run here."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from hypersphere.config import Evaluation, Node, Training
from hypersphere.data.inventory import unready
from hypersphere.papers.choice import Alternative
from hypersphere.papers.spec import ItemSpec, Paper, PresetSpec
from hypersphere.store import Store


@dataclass(frozen=True)
class PlannedCell:
    """One cell: its published row, and for each unit the node that holds its number.

    metrics: variant ("" is the primary) -> name of the number in that node's record.
    own: the nodes of variants that have runs of their own. sources: of a cell that is the largest
    of other items' cells (and has no nodes), those items with these cells alone. alternatives: by
    variant, of a cell that shows the best of several settings (`nodes` are the first one's), all of
    them; chosen_by: by variant, the number of their trainings that decides. A cell that the preset
    leaves out has no nodes and no sources.
    """

    keys: dict[str, str]
    published: str
    published_std: str
    nodes: dict[str, Node]
    metrics: dict[str, str]
    own: dict[str, dict[str, Node]] = field(default_factory=dict)
    sources: tuple[PlannedItem, ...] = ()
    alternatives: dict[str, tuple[Alternative, ...]] = field(default_factory=dict)
    chosen_by: dict[str, str] = field(default_factory=dict)

    def only(self, variant: str) -> PlannedCell:
        """The cell with a variant's nodes and number as its primary ones; the primary's where it
        has no such variant."""
        return replace(
            self,
            nodes=self.own.get(variant, self.nodes),
            metrics={"": self.metrics.get(variant, self.metrics[""])},
            own={},
            sources=tuple(source.only(variant) for source in self.sources),
            alternatives=_only(self.alternatives, variant),
            chosen_by=_only(self.chosen_by, variant),
        )

    def every_node(self) -> Iterator[Node]:
        """All that it and its variants need, the primary first; some may stand several times."""
        for nodes in (self.nodes, *self.own.values()):
            yield from nodes.values()
        for each in itertools.chain.from_iterable(self.alternatives.values()):
            yield from each.nodes.values()
        for variant in self.metrics if self.sources else ():
            for source in self.only(variant).sources:
                yield from source.every_node()

    def first_nodes(self) -> Iterator[Node]:
        """What its first unit needs of its primary variant: of each setting, where it shows the
        best of several, and of each cell that it is the largest of."""
        settings = [each.nodes for each in self.alternatives.get("", ())]
        for nodes in filter(None, settings or [self.nodes]):
            yield next(iter(nodes.values()))
        for cell in itertools.chain.from_iterable(source.cells for source in self.sources):
            yield from cell.first_nodes()


@dataclass(frozen=True, eq=False)
class PlannedItem:
    """One item of a preset with all its cells (equal only to itself)."""

    paper: Paper
    spec: ItemSpec
    preset: str
    cells: tuple[PlannedCell, ...]

    def only(self, variant: str) -> PlannedItem:
        """The item with one variant's cells as its primary ones."""
        return replace(self, cells=tuple(cell.only(variant) for cell in self.cells))

    def every_node(self) -> Iterator[Node]:
        """All that its cells and variants need; some may stand several times."""
        return itertools.chain.from_iterable(cell.every_node() for cell in self.cells)

    @property
    def settings(self) -> PresetSpec:
        return preset_of(self.paper, self.spec, self.preset)

    @property
    def trainings(self) -> list[Training]:
        """The trainings behind its cells, each once."""
        found = map(training_of, self.every_node())
        return list({t.id: t for t in found if t is not None}.values())

    @property
    def datasets(self) -> set[str]:
        """Names of the datasets, and of other files, that its trainings and computations read."""
        return set[str]().union(*map(reads, self.every_node()))


@dataclass
class Plan:
    """The run graph of some items: nodes by id, parents before children, and who needs them."""

    items: list[PlannedItem]
    nodes: dict[str, Node] = field(default_factory=dict)
    users: dict[str, list[PlannedItem]] = field(default_factory=dict)

    def missing(self, store: Store, items: Iterable[PlannedItem] | None = None) -> list[Node]:
        """Nodes without a record, parents first; of `items` only, where given."""
        chosen = set(self.items if items is None else items)
        return [
            node
            for node in self.nodes.values()
            if store.get(node.id) is None and not chosen.isdisjoint(self.users[node.id])
        ]

    def unready(self, store: Store) -> dict[str, str]:
        """Ids of the missing nodes that cannot be worked out here now -> why: a dataset is not here
        (and how to get it)."""
        why = cache(_reasons)  # thousands of nodes read the same few
        found = {
            node.id: why(frozenset(reads(node))) or _no_weights(node)
            for node in self.missing(store)
        }
        return {node_id: reason for node_id, reason in found.items() if reason}

    def trainings(self) -> list[Training]:
        return [node for node in self.nodes.values() if isinstance(node, Training)]

    def requested(self) -> int:
        """Trainings that the items would need if nothing were shared between them."""
        return sum(len(item.trainings) for item in self.items)


def preset_of(declared: Paper, spec: ItemSpec, preset: str) -> PresetSpec:
    """The paper's preset with what the item does otherwise."""
    shared = declared.about.presets[preset]
    own = spec.presets.get(preset)
    if own is None:
        return shared
    named = {name: getattr(own, name) for name in ("protocol", "note", "seeds", "instead")}
    return shared.model_copy(update={k: v for k, v in named.items() if v is not None})


def blocked(item: PlannedItem) -> str | None:
    """Why an item, or a part of it, cannot be run here now (a dataset is missing, and how to get
    it), or None."""
    without = (why for training in item.trainings if (why := _no_weights(training)))
    return _reasons(frozenset(item.datasets)) or next(without, None)


def reads(node: Node) -> set[str]:
    """Names of the datasets, and of other files, that a node and its training read."""
    training = training_of(node)
    components = [] if isinstance(node, Training) else [node.component]
    components += [training.components["head"]] if training else []
    named = {training.data.name} if training else set()
    brought = {c.params.get(key) for c in components for key in ("data", "words_data")}
    for component in components:  # corruptions that somebody else made are files of their own
        if (component.params.get("corruption") or {}).get("strength") == "official":
            brought.add(f"{component.params['data'] or training.data.name}_c")
    return named | {name for name in brought if name}


def _reasons(names: frozenset[str]) -> str | None:
    return "; ".join(why for name in sorted(names) if (why := unready(name))) or None


def _no_weights(node: Node) -> str | None:
    """Why the pretrained weights that a node's training starts from cannot be read here, or
    None."""
    training = training_of(node)
    if training is None or training.parent is not None:
        return None
    backbone = training.components["backbone"]
    missing = getattr(backbone.target, "missing", None)
    return missing(**backbone.params) if missing else None


def stale(plan: Plan, store: Store) -> dict[str, str]:
    """Planned ids without a record -> id of a record that differs in revisions alone: it was made
    before a fix changed what is computed, and no longer counts."""
    old = {_without_revisions(r["identity"]): r["run_id"] for r in store.records.values()}
    return {
        node.id: found
        for node in plan.missing(store)
        if (found := old.get(_without_revisions(node.identity()))) is not None
    }


def trained_for(node: Node) -> list[Training]:
    """The training that a node is or judges, and the one that it starts from."""
    found = node if isinstance(node, Training) else training_of(node)
    return [] if found is None else [found, *([found.base] if found.base else [])]


def training_of(node: Node) -> Training | None:
    """The training that a node is or judges, None of a computation."""
    if isinstance(node, Evaluation):
        return node.training
    return node if isinstance(node, Training) else None


def _only(by_variant: dict[str, Any], variant: str) -> dict[str, Any]:
    """What the variant has, or where it has nothing of its own the primary, as the primary; nothing
    where the preset leaves its cell out."""
    found = by_variant.get(variant, by_variant[""]) if by_variant else None
    return {"": found} if found else {}


def _without_revisions(identity: Any) -> str:
    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: strip(v) for k, v in value.items() if k != "revision"}
        return value

    return json.dumps(strip(identity), sort_keys=True)
