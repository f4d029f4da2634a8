"""From declarations to the runs they need: expansion and sharing."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from omegaconf import OmegaConf

from hypersphere.config import (
    Computation,
    Node,
    Training,
)
from hypersphere.config.components import check
from hypersphere.config.compose import resolve
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
from hypersphere.papers.planned import Plan, PlannedCell, PlannedItem, preset_of, training_of
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
from hypersphere.store.records import Record


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
    named = {"": spec} | {name: spec.varied(name) for name in spec.variants}
    if spec.choose is not None and not _is_computed(spec, keys):
        among = {name: _alternatives(declared, each, preset, keys) for name, each in named.items()}
        by = {
            name: training_number(filled(each, each.choose.by, keys, "choose.by"))
            for name, each in named.items()
        }
        first = {name: each[0].nodes if each else {} for name, each in among.items()}
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
    """Whether the preset has no runs for a cell that needs some."""
    if _is_computed(spec, keys):
        return False
    own = spec.presets.get(preset)  # type: ignore[call-overload]
    where = own.where if own else {}
    tables = where if isinstance(where, list) else [where]
    for column in itertools.chain.from_iterable(tables):
        if column not in keys:
            raise UserError(
                f"{spec.name}: where.{column} (of preset {preset} or of a variant): no such column"
                f" (there are {list(keys)})"
            )
    return not any(
        all(keys[column] in map(str, wanted) for column, wanted in table.items())
        for table in tables
    )


def _alternatives(
    declared: Paper, spec: ItemSpec, preset: str, keys: Mapping[str, str]
) -> tuple[Alternative, ...]:
    assert spec.choose is not None
    if _left_out(spec, preset, keys):
        return ()
    found = []
    for overrides in by_key(spec.choose.among, keys, f"{spec.name}: choose.among"):
        told = spec.model_copy(update={"overrides": spec.overrides | overrides})
        found.append(Alternative(overrides, _nodes(declared, told, preset, keys)))
    return tuple(found)


def _nodes(
    declared: Paper, spec: ItemSpec, preset: str, keys: Mapping[str, str]
) -> dict[str, Node]:
    """By unit, what holds the number of a cell; nothing where the preset leaves it out."""
    if _left_out(spec, preset, keys):
        return {}
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
    base = node.base if isinstance(node, Training) else training_of(node)
    if base is not None:
        _add(plan, base, item)
    plan.nodes.setdefault(node.id, node)
    users = plan.users.setdefault(node.id, [])
    if item not in users:
        users.append(item)
