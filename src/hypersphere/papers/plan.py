"""From declarations to the runs they need: expansion, sharing, what is done, missing, stale."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from omegaconf import OmegaConf

from hypersphere.config import (
    Computation,
    Evaluation,
    Node,
    Training,
)
from hypersphere.config.components import check
from hypersphere.config.compose import resolve
from hypersphere.data.inventory import unready
from hypersphere.errors import UserError
from hypersphere.papers.choice import Alternative, training_number
from hypersphere.papers.curves import number_of
from hypersphere.papers.nodes import (
    by_key,
    filled,
    instead,
    metric_of,
    node_of,
    overrides_of,
    parent_of,
)
from hypersphere.papers.spec import (
    ItemSpec,
    Paper,
    PresetSpec,
    Selection,
    cell_keys,
    paper,
    published_rows,
)
from hypersphere.reporting.cells import select_cells
from hypersphere.reporting.declared import ByKey, Largest
from hypersphere.store import Store
from hypersphere.store.records import Record


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
        found = map(_training, self.every_node())
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


def make_plan(preset: str, keys: Sequence[str], names: Sequence[str] = ()) -> Plan:
    """Plan the items `names` (all when empty) of the papers `keys` in a preset.

    Raises UserError for an unknown paper, item or preset, or a configuration that does not hold.
    """
    items = []
    for key in keys:
        declared = paper(key)
        for spec in [declared.item(name) for name in names] or declared.items.values():
            items.append(plan_item(declared, spec, preset))
    return plan_of(items)


def plan_of(items: Iterable[PlannedItem]) -> Plan:
    """The run graph of items that are planned already."""
    plan = Plan(list(items))
    for item in plan.items:
        for node in item.every_node():
            _add(plan, node, item)
    return plan


def preset_of(declared: Paper, spec: ItemSpec, preset: str) -> PresetSpec:
    """The paper's preset with what the item does otherwise."""
    shared = declared.about.presets[preset]
    own = spec.presets.get(preset)
    if own is None:
        return shared
    named = {name: getattr(own, name) for name in ("protocol", "note", "seeds", "instead")}
    return shared.model_copy(update={k: v for k, v in named.items() if v is not None})


def plan_item(
    declared: Paper, spec: ItemSpec, preset: str, keys: Mapping[str, str] | None = None
) -> PlannedItem:
    """Expand one item: every row of its published CSV becomes a cell with one node per unit; or the
    cell with these keys alone."""
    spec = spec.in_preset(preset)
    rows = rows_of(declared, spec, preset)
    if keys is not None:
        rows = [row for row in rows if cell_keys(row) == keys]
    return PlannedItem(
        declared, spec, preset, tuple(_cell(declared, spec, preset, row) for row in rows)
    )


def _cell(declared: Paper, spec: ItemSpec, preset: str, row: Mapping[str, str]) -> PlannedCell:
    keys, printed = cell_keys(row), (row.get("value", ""), row.get("std", ""))
    by_key(spec.margin, keys, f"{spec.name}: margin")  # stated before anything runs
    by_key(spec.scale, keys, f"{spec.name}: scale")
    if spec.largest is not None and spec.largest.speaks_of(keys):
        sources = _sources(declared, spec, preset, spec.largest.of(keys))
        unnamed = dict.fromkeys(("", *spec.variants), "")
        return PlannedCell(keys, *printed, {}, unnamed, sources=sources)
    metrics = {"": metric_of(spec, keys)}
    metrics |= {name: metric_of(spec.varied(name), keys) for name in spec.variants}
    if _left_out(spec, preset, keys) and not _is_computed(spec, keys):
        return PlannedCell(keys, *printed, {}, metrics)
    named = {"": spec} | {name: spec.varied(name) for name in spec.variants}
    if spec.choose is not None and not _is_computed(spec, keys):
        among = {name: _alternatives(declared, each, preset, keys) for name, each in named.items()}
        by = {
            name: training_number(filled(each, each.choose.by, keys, "choose.by"))
            for name, each in named.items()
        }
        first = {name: each[0].nodes for name, each in among.items()}
        return PlannedCell(
            keys, *printed, first.pop(""), metrics, first, alternatives=among, chosen_by=by
        )
    own = {
        name: _nodes(declared, named[name], preset, keys)
        for name, variant in spec.variants.items()
        if variant.select or variant.overrides
    }
    return PlannedCell(keys, *printed, _nodes(declared, spec, preset, keys), metrics, own)


def _is_computed(spec: ItemSpec, keys: Mapping[str, str]) -> bool:
    how = spec.computation
    return isinstance(how, ByKey) and how.speaks_of(keys)


def _left_out(spec: ItemSpec, preset: str, keys: Mapping[str, str]) -> bool:
    """Whether the preset has no runs for a cell."""
    own = spec.presets.get(preset)  # type: ignore[call-overload]
    where = own.where if own else {}
    tables = where if isinstance(where, list) else [where]
    for column in itertools.chain.from_iterable(tables):
        if column not in keys:
            raise UserError(
                f"{spec.name}: presets.{preset}.where.{column}: no such column (there are"
                f" {list(keys)})"
            )
    return not any(
        all(keys[column] in map(str, wanted) for column, wanted in table.items())
        for table in tables
    )


def _alternatives(
    declared: Paper, spec: ItemSpec, preset: str, keys: Mapping[str, str]
) -> tuple[Alternative, ...]:
    assert spec.choose is not None
    found = []
    for overrides in by_key(spec.choose.among, keys, f"{spec.name}: choose.among"):
        told = spec.model_copy(update={"overrides": spec.overrides | overrides})
        found.append(Alternative(overrides, _nodes(declared, told, preset, keys)))
    return tuple(found)


def _only(by_variant: dict[str, Any], variant: str) -> dict[str, Any]:
    """What the variant has, or where it has nothing of its own the primary, as the primary."""
    return {"": by_variant.get(variant, by_variant[""])} if by_variant else {}


def _nodes(
    declared: Paper, spec: ItemSpec, preset: str, keys: Mapping[str, str]
) -> dict[str, Node]:
    """By unit, what holds the number of a cell."""
    settings = preset_of(declared, spec, preset)
    seeds = by_key(settings.seeds, keys, f"{spec.name}: seeds")
    computation = spec.computation
    if isinstance(computation, ByKey):
        if computation.speaks_of(keys):
            one = resolve(OmegaConf.create(computation.of(keys)))
            node = Computation(check(one, f"{spec.name}: computation"))
            return {str(seed): node for seed in seeds}  # the same for all: no chance in it
    elif computation is not None:
        overrides = overrides_of(spec, keys, settings)
        if spec.unit == "deterministic":
            return {"value": _computation(spec, settings, overrides)}
        return {
            str(seed): _computation(spec, settings, {"computation.seed": seed, **overrides})
            for seed in seeds
        }
    source = metric_of(spec, keys).partition("/")[0]
    overrides = overrides_of(spec, keys, settings)
    parent = parent_of(spec, keys)
    return {
        str(seed): node_of(declared.key, preset, spec, overrides, parent, seed, source)
        for seed in seeds
    }


def _sources(declared: Paper, spec: ItemSpec, preset: str, how: Largest) -> tuple[PlannedItem, ...]:
    """The items that a cell is the largest of, with the cells that count alone."""
    found = []
    for name in how.tables:
        other = declared.item(name)
        if other.largest is not None or other.unit != spec.unit:
            raise UserError(
                f"{spec.name}: largest: {name} must hold numbers of runs, by {spec.unit} as well"
            )
        planned = plan_item(declared, other, preset)
        try:
            cells = select_cells(planned.cells, how.where, f"{spec.name}: largest: {name}")
        except ValueError as error:
            raise UserError(str(error)) from None
        found.append(replace(planned, cells=tuple(cells)))
    return tuple(found)


def rows_of(declared: Paper, spec: ItemSpec, preset: str) -> list[dict[str, str]]:
    """One row per cell: as printed, or every combination of the grid's values."""
    if spec.grid is None:
        return published_rows(declared.key, spec.name)
    own = spec.presets.get(preset)
    rows = []
    for each in spec.grid if isinstance(spec.grid, list) else [spec.grid]:
        grid = each | ((own.grid if own else None) or {})
        for values in itertools.product(*grid.values()):
            if (row := dict(zip(grid, map(str, values), strict=True))) not in rows:
                rows.append(row)
    return rows


def _computation(spec: ItemSpec, settings: PresetSpec, overrides: Selection) -> Computation:
    assert isinstance(spec.computation, dict)
    prefix = "computation."
    node = {
        key: instead(settings, f"{prefix}{key}", value) for key, value in spec.computation.items()
    }
    for key, value in overrides.items():
        if key.startswith(prefix):
            node[key.removeprefix(prefix)] = value
    return Computation(check(resolve(OmegaConf.create(node)), f"{spec.name}: computation"))


def blocked(item: PlannedItem) -> str | None:
    """Why an item, or a part of it, cannot be run here now (a dataset is missing, and how to get
    it), or None."""
    without = (why for training in item.trainings if (why := _no_weights(training)))
    return _reasons(frozenset(item.datasets)) or next(without, None)


def reads(node: Node) -> set[str]:
    """Names of the datasets, and of other files, that a node and its training read."""
    training = _training(node)
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
    training = _training(node)
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


def value_of(record: Record, name: str, unit: str, scale: float) -> dict[str, float]:
    """The number `name` of a record, by unit suffix: "" for one number, the draw's for several.

    A diverged run gives nan. Several draws are averaged unless the unit is the draw.
    """
    value = number_of(record, name)
    if not isinstance(value, list):
        return {"": scale * value}
    if unit == "draw":
        return {f"/{draw}": scale * number for draw, number in enumerate(value)}
    return {"": scale * statistics.fmean(value)}


def _add(plan: Plan, node: Node, item: PlannedItem) -> None:
    base = node.base if isinstance(node, Training) else _training(node)
    if base is not None:
        _add(plan, base, item)
    plan.nodes.setdefault(node.id, node)
    users = plan.users.setdefault(node.id, [])
    if item not in users:
        users.append(item)


def trained_for(node: Node) -> list[Training]:
    """The training that a node is or judges, and the one that it starts from."""
    found = node if isinstance(node, Training) else _training(node)
    return [] if found is None else [found, *([found.base] if found.base else [])]


def _training(node: Node) -> Training | None:
    if isinstance(node, Evaluation):
        return node.training
    return node if isinstance(node, Training) else None


def _without_revisions(identity: Any) -> str:
    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: strip(v) for k, v in value.items() if k != "revision"}
        return value

    return json.dumps(strip(identity), sort_keys=True)
