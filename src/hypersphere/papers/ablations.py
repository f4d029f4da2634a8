"""One-factor sweeps of a cell: planned as variants of its item are, told from records alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from hypersphere.config import Node
from hypersphere.errors import UserError
from hypersphere.papers.factors import Factor, concerning, factors
from hypersphere.papers.plan import plan_item, plan_of, rows_of
from hypersphere.papers.planned import PlannedCell, PlannedItem
from hypersphere.papers.spec import ItemSpec, Paper, cell_keys
from hypersphere.reporting.ablation import Ablation, effect
from hypersphere.reporting.ablation_files import FOLDER
from hypersphere.reporting.cells import Item
from hypersphere.reporting.kinds import Nothing
from hypersphere.reporting.layout import most_decimals


@dataclass(frozen=True)
class Sweep:
    """A cell and the settings to try on it.

    item: the cell's item with this cell alone; its variants are the settings. factors: theirs.
    settings: variant -> factor and label. declared: the variants that are the cell as it is. stem:
    name of its files, `table4--5-seen-nsl`. label: the keys that tell it from the item's other
    cells. digits: decimals that the item prints.
    """

    item: PlannedItem
    factors: tuple[Factor, ...]
    settings: dict[str, tuple[str, str]]
    declared: frozenset[str]
    stem: str
    label: str
    digits: int

    @property
    def cell(self) -> PlannedCell:
        return self.item.cells[0]

    def nodes(self, variant: str | None = None) -> dict[str, Node]:
        """All that it rests on by id, base runs and trainings included; of one setting alone."""
        return plan_of([self.item if variant is None else self.item.only(variant)]).nodes

    def of_units(self, number: int) -> Sweep:
        """With the first units (seeds, splits) alone. Raises UserError for more than there are."""
        there = len(self.cell.nodes)
        if number > there:
            units = f"{self.item.spec.unit}{'' if there == 1 else 's'}"
            raise UserError(
                f"--seeds {number}: {self.item.paper.key} {self.item.spec.name} has {there} {units}"
                f" in preset {self.item.preset}"
            )
        return replace(self, item=replace(self.item, cells=(_first(self.cell, number),)))

    def told(self, items: Sequence[Item], says: Mapping[str, str]) -> Ablation:
        """What the settings do, from the item and its variants with our numbers in their (only)
        cell, primary first; says: by variant, what differs from the declared."""
        primary, *others = items
        # Of the table's notes the protocol (first) and the source (last) speak of a cell too.
        primary = replace(primary, notes=tuple(primary.notes[:1] + primary.notes[-1:]))
        effects = []
        for (name, (factor, label)), item in zip(self.settings.items(), others, strict=True):
            same = name in self.declared
            said = "" if same else says[name]
            effects.append(effect(primary, item.cells[0], factor, label, said, is_declared=same))
        return Ablation(
            primary, self.stem, self.label, self.digits, {f.name: f.why for f in self.factors},
            tuple(effects),
        )  # fmt: skip


class NoRuns(UserError):
    """A cell that holds no number of a run of its own in a preset."""


def sweep(
    declared: Paper,
    spec: ItemSpec,
    preset: str,
    keys: Mapping[str, str],
    of: Sequence[Factor],
) -> Sweep:
    """The settings of the factors `of` for the cell of an item with these keys.

    Raises NoRuns for a cell without runs, UserError for a setting that does not hold.
    """
    variants, settings = {}, {}
    for factor in of:
        for label, variant in factor.variants(spec).items():
            variants[f"{factor.name}: {label}"] = variant
            settings[f"{factor.name}: {label}"] = (factor.name, label)
    bare = {"plot": Nothing(kind="none"), "beside": []}
    told = spec.model_copy(update={**bare, "variants": variants})
    rows = rows_of(declared, spec.in_preset(preset), preset)
    cells = [cell_keys(row) for row in rows]
    names = [name for name in keys if len({each[name] for each in cells}) > 1] or list(keys)
    label = ", ".join(f"{name} = {keys[name]}" for name in names)
    try:
        item = plan_item(declared, told, preset, keys)
    except UserError as error:
        file = declared.folder / "ablations.yaml"
        raise UserError(f"{file}: {spec.name} ({label}): {error}") from None
    cell = item.cells[0]
    if not cell.nodes:
        why = "is the largest of other cells; ablate those" if cell.sources else "has no runs"
        raise NoRuns(f"{declared.key} {spec.name} ({label}): {why} (preset {preset})")
    printed = (r.get("value", "") for r in rows if r.get("metric") == keys.get("metric"))
    return Sweep(
        item=item,
        factors=tuple(of),
        settings={name: settings[name] for name in item.spec.variants},
        declared=frozenset(name for name in item.spec.variants if _is_declared(cell, name)),
        stem=f"{spec.name}--{_slug(keys, names, cells)}",
        label=label,
        digits=most_decimals(printed),
    )


@cache
def sweeps(declared: Paper, preset: str) -> tuple[Sweep, ...]:
    """Of every cell that has factors and, in the preset, runs: all settings."""
    return tuple(_sweeps(declared, preset))


def _sweeps(declared: Paper, preset: str) -> Iterator[Sweep]:
    every = factors(declared)
    for name in {name: None for factor in every for name in factor.items}:
        spec = declared.item(name)
        for row in rows_of(declared, spec.in_preset(preset), preset):
            keys = cell_keys(row)
            if not (of := concerning(declared, every, name, keys)):
                continue
            try:
                yield sweep(declared, spec, preset, keys, of)
            except NoRuns:
                continue


def begun(declared: Paper, preset: str, results: Path, beside: Collection[str]) -> list[Sweep]:
    """The sweeps of a paper that have results in a preset: those with a file there, and those with
    a run among `beside`, ids of the preset's records that none of the paper's items needs."""
    if not may_have_begun(declared, preset, results, beside):
        return []
    files = _files(declared, preset, results)
    return [
        each
        for each in sweeps(declared, preset)
        if each.stem in files or not each.nodes().keys().isdisjoint(beside)
    ]


def may_have_begun(declared: Paper, preset: str, results: Path, beside: Collection[str]) -> bool:
    """Whether `begun` needs to look at all."""
    return bool(declared.ablations and (beside or _files(declared, preset, results)))


def _files(declared: Paper, preset: str, results: Path) -> set[str]:
    return {file.stem for file in (results / preset / FOLDER / declared.key).glob("*.csv")}


def _is_declared(cell: PlannedCell, variant: str) -> bool:
    """Whether a setting asks for the very runs and number that the cell has as declared."""
    as_it_is, with_it = cell.only(""), cell.only(variant)
    ids = [{unit: node.id for unit, node in each.nodes.items()} for each in (as_it_is, with_it)]
    return ids[0] == ids[1] and as_it_is.metrics == with_it.metrics


def _first(cell: PlannedCell, number: int) -> PlannedCell:
    units = list(cell.nodes)[:number]
    return replace(
        cell,
        nodes={unit: cell.nodes[unit] for unit in units},
        own={
            name: {unit: nodes[unit] for unit in units if unit in nodes}
            for name, nodes in cell.own.items()
        },
        alternatives={
            name: tuple(
                replace(each, nodes={unit: each.nodes[unit] for unit in units}) for each in among
            )
            for name, among in cell.alternatives.items()
        },
    )


def _slug(keys: Mapping[str, str], names: Sequence[str], cells: Sequence[Mapping[str, str]]) -> str:
    """The values of a cell as a file name, told apart from those of the other cells."""

    def plain(each: Mapping[str, str]) -> str:
        text = "-".join(each[name] for name in names).lower()
        return re.sub(r"[^a-z0-9.+]+", "-", text).strip("-.") or "cell"

    slug = plain(keys)
    if sum(plain(each) == slug for each in cells) > 1:
        slug += "-" + hashlib.sha256(repr(sorted(keys.items())).encode()).hexdigest()[:6]
    return slug
