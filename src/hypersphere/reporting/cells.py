"""What reports are made of: a cell with its single values, and an item (table, figure) of cells."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from hypersphere.reporting.declared import ByKey
from hypersphere.reporting.kinds import Dots, Plot

UNITS = ("split", "seed", "draw", "deterministic")
PROTOCOLS = ("exact", "shortened", "substitute")
Keyed = TypeVar("Keyed", bound=Any)  # a cell of a table, or of a plan: has `keys`


@dataclass(frozen=True)
class Cell:
    """One number of a paper and ours beside it, in the table's printed unit.

    `keys` are the key columns of the published CSV, as printed there. `published` is the text
    of the published CSV ('' = blank, 'nan' = the paper printed a divergence). `values` maps the
    unit of independence (seed, split, draw) to our number, nan where that run diverged;
    `planned` says how many units the plan asks for. `run_ids` name the trainings (or computations)
    behind it, `records` by unit the run whose record holds the number, where one run does. `chance`
    is False for a number that one computation without chance gives all units. `bases` are the
    models that were tuned from no other (of tuned runs those they began with). `arrays` maps the
    unit to the arrays that its picture draws, where numbers are not enough.
    """

    keys: dict[str, str]
    published: str
    published_std: str
    values: dict[str, float]
    planned: int
    run_ids: tuple[str, ...]
    protocol: str
    arrays: Mapping[str, Mapping[str, np.ndarray]] = field(
        default_factory=dict, repr=False, compare=False
    )
    records: Mapping[str, str] = field(default_factory=dict)
    chance: bool = True
    bases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"{self.keys}: protocol {self.protocol!r} is none of {PROTOCOLS}")

    @property
    def complete(self) -> bool:
        """True when there is a value for every planned unit (and at least one)."""
        return bool(self.values) and len(self.values) >= self.planned

    @property
    def diverged(self) -> int:
        """How many of our runs diverged."""
        return sum(math.isnan(value) for value in self.values.values())


@dataclass(frozen=True)
class Beside:
    """Numbers that others published, shown beside an item's own and never judged: what they are,
    and by row of key columns the number as printed."""

    title: str
    numbers: tuple[tuple[dict[str, str], str], ...]


@dataclass(frozen=True)
class Item:
    """One table or figure ready to be judged and written. `margin` is in the printed unit, one for
    all cells or one by the value of a key column.

    `rows` and `columns` are the key columns that label the rows and columns of the readable
    layout; other keys that vary give one grid each. `data` names the datasets that our numbers
    come from, `plot` says how it is drawn, `beside` has what others published, `source` names the
    publication. Raises ValueError
    when cells disagree in their key columns, stand twice, or the layout, unit or a key or value
    that the plot names is unknown.
    """

    paper: str
    name: str
    title: str
    preset: str
    unit: str
    margin: float | ByKey[float]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[Cell, ...]
    variant: str = ""
    notes: tuple[str, ...] = ()
    metric_label: str = "accuracy"
    data: tuple[str, ...] = ()
    plot: Plot = Dots()
    beside: tuple[Beside, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        where = f"{self.paper}/{self.stem}"
        if self.unit not in UNITS:
            raise ValueError(f"{where}: unit {self.unit!r} is none of {UNITS}")
        if not self.cells:
            raise ValueError(f"{where}: no cells")
        if not self.rows:
            raise ValueError(f"{where}: name at least one key column for the rows")
        keys = list(self.cells[0].keys)
        named = (*self.rows, *self.columns, *self.plot.keys)
        unknown = [key for key in named if key not in keys]
        if unknown or len({*self.rows, *self.columns}) < len(self.rows) + len(self.columns):
            raise ValueError(
                f"{where}: rows {self.rows} and columns {self.columns} must be distinct"
                f" key columns out of {keys}"
            )
        for key, values in self.plot.named.items():
            if absent := set(values) - {cell.keys.get(key) for cell in self.cells}:
                raise ValueError(f"{where}: no cell has {key} = {sorted(absent)} of the plot")
        seen = set()
        for cell in self.cells:
            if list(cell.keys) != keys:
                raise ValueError(f"{where}: {cell.keys} has other key columns than {keys}")
            label = tuple(cell.keys.values())
            if label in seen:
                raise ValueError(f"{where}: the cell {label} stands twice")
            seen.add(label)
            if not self.margin_of(cell) >= 0:
                raise ValueError(f"{where}: margin {self.margin_of(cell)!r} is not a number >= 0")
            if self.unit == "deterministic":
                continue
            if self.preset == "quick" and cell.protocol != "substitute":
                raise ValueError(f"{where}: {label} is {cell.protocol}, quick data is a substitute")
            if cell.complete and not cell.run_ids:
                raise ValueError(f"{where}: {label} has values but names no run")

    def margin_of(self, cell: Cell) -> float:
        """The margin of one of its cells. Raises ValueError when none is stated for it."""
        return self.margin.of(cell.keys) if isinstance(self.margin, ByKey) else self.margin

    def unit_of(self, cell: Cell) -> str:
        """The unit that one of its cells is judged by."""
        return self.unit if cell.chance else "deterministic"

    @property
    def key_columns(self) -> tuple[str, ...]:
        """Key columns of the published CSV, in its order."""
        return tuple(self.cells[0].keys)

    @property
    def printed(self) -> bool:
        """Whether the paper prints any number of it (figures print none)."""
        return any(cell.published.strip() for cell in self.cells)

    @property
    def stem(self) -> str:
        """File name without its ending: `table2`, or `table2--variant`."""
        return stem(self.name, self.variant)


def stem(item: str, variant: str) -> str:
    """What an item's variant is called in files and claims; the item itself where it is none."""
    return f"{item}--{variant}" if variant else item


def select_cells(cells: Iterable[Keyed], where: Mapping[str, Any], place: str) -> list[Keyed]:
    """Cells whose keys have the wanted values; a wanted value may be a list of them."""
    chosen = list(cells)
    for key, wanted in where.items():
        check_key(chosen, key, place)
        texts = {str(each) for each in (wanted if isinstance(wanted, list) else [wanted])}
        present = {cell.keys[key] for cell in chosen}
        if texts - present:
            raise ValueError(
                f"{place}: no {key} {sorted(texts - present)}, there are {sorted(present)}"
            )
        chosen = [cell for cell in chosen if cell.keys[key] in texts]
    return chosen


def check_key(cells: Sequence[Any], key: str, place: str) -> None:
    if cells and key not in cells[0].keys:
        raise ValueError(f"{place}: no key {key!r}, there are {list(cells[0].keys)}")
