"""The declarations of a paper: conf/paper/<key>/about.yaml, claims.yaml, and its items.

A table takes its cells from the published CSV, so that every printed number has a row; a figure,
for which nothing is printed, from a grid of its own. The item's file says which run and which
metric each cell shows, and how it is drawn. A new table or figure is 10-20 lines.
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml

from hypersphere import paths
from hypersphere.config.components import check_values
from hypersphere.errors import UserError, did_you_mean
from hypersphere.reporting.declared import ByKey, Largest
from hypersphere.reporting.kinds import Dots, Plot

PRESETS = ("quick", "small", "paper")
Preset = Literal["quick", "small", "paper"]
Protocol = Literal["exact", "shortened", "substitute"]
# libyaml's reader where there is one: ten times as fast, and the same values.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
NOT_KEYS = ("paper", "table", "value", "std", "note")  # columns of a published CSV that are no keys
NOT_ITEMS = ("about", "ablations", "claims", "recipe", *PRESETS)  # files beside the items

_STRICT = pydantic.ConfigDict(extra="forbid")
Grid = dict[str, list[str | int | float]]
Selection = dict[str, Any]
Select = dict[str, str | dict[str, Selection]]
Seeds = Annotated[  # a number n stands for 0, ..., n - 1
    list[int],
    pydantic.BeforeValidator(lambda x: list(range(x)) if isinstance(x, int) else x),
    pydantic.Field(min_length=1),
]


class PresetSpec(pydantic.BaseModel):
    """How a preset departs from the paper.

    protocol: exact | shortened | substitute. note: said under every table. seeds: the repeats.
    instead: overrides that replace the ones a cell asks for (another dataset), or a table from
    what it asks for to what it gets; `computation.<parameter>` likewise.
    """

    model_config = _STRICT
    protocol: Protocol
    note: str
    seeds: Seeds | ByKey[Seeds]
    instead: Selection = {}


class About(pydantic.BaseModel):
    """A paper: citation, decisions where it is silent, deviations, presets.

    scope: preset -> data, protocol and network that its claims rest on.
    """

    model_config = _STRICT
    title: str
    citation: str
    url: str
    items: list[str]
    decisions: list[str]
    deviations: list[str]
    presets: dict[Preset, PresetSpec]
    scope: dict[Preset, str]

    @pydantic.field_validator("presets", "scope")
    @classmethod
    def _all(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Any preset may be asked for, of all papers at once."""
        if missing := [preset for preset in PRESETS if preset not in given]:
            raise ValueError(f"needs {', '.join(missing)} as well")
        return given


Alternatives = Annotated[list[Selection], pydantic.Field(min_length=1)]


class Choice(pydantic.BaseModel):
    """The best of several settings, as after a grid search.

    among: overrides, one alternative each; one list, or one by the value of a key column. by: the
    number of the trainings whose mean over the units is largest for the one that is shown; as in a
    metric, `{word}` stands for one of `words`.
    """

    model_config = _STRICT
    among: Alternatives | ByKey[Alternatives]
    by: str


Word = str | ByKey[str]  # of the metric


class ItemPreset(pydantic.BaseModel):
    """What an item does otherwise than its paper's preset (see PresetSpec), the values of its grid
    (of each of them) that differ, words that do, printed values that select otherwise, and other
    settings to choose among; None: the same. seeds: one list, or one by the value of a key column.
    where: key column -> values of the cells that have runs in this preset (of several such tables:
    cells of any), all others stay `not run`."""

    model_config = _STRICT
    protocol: Protocol | None = None
    note: str | None = None
    seeds: Seeds | ByKey[Seeds] | None = None
    instead: Selection | None = None
    grid: Grid | None = None
    words: dict[str, Word] = {}
    select: Select = {}
    choose: Choice | None = None
    where: Grid | list[Grid] = {}


Margin = Annotated[float, pydantic.Field(gt=0)]
Unit = Literal["split", "seed", "draw", "deterministic"]


class Variant(pydantic.BaseModel):
    """What a variant of an item has in the place of the primary's.

    words: of the metric. select (of the printed values that select otherwise), overrides: with them
    the variant has runs of its own, where they ask for others than the primary has. unit, choose:
    its own; seeds: its own in a preset, of such runs. note: said under its table; protocol: its
    own, which the note then tells in the place of the preset's. presets: those that have the
    variant. A variant of words alone may be written as these words.
    """

    model_config = _STRICT
    words: dict[str, Word] = {}
    select: Select = {}
    overrides: Selection = {}
    unit: Unit | None = None
    protocol: Protocol | None = None
    choose: Choice | None = None
    seeds: dict[Preset, Seeds | ByKey[Seeds]] = {}
    where: Grid | list[Grid] = {}
    note: str = ""
    presets: tuple[Preset, ...] = PRESETS

    @pydantic.model_validator(mode="before")
    @classmethod
    def _words_alone(cls, given: Any) -> Any:
        short = isinstance(given, dict) and not given.keys() & cls.model_fields.keys()
        return {"words": given} if short else given


class BesideSpec(pydantic.BaseModel):
    """What others published of an item, such as a re-implementation: shown under it, and under
    those of its variants that are named, not judged.

    file: results/published/<key>/<file>.csv, with columns like the item's own. where: its key
    columns -> values of the rows that belong to the item. title: whose they are, and of what.
    """

    model_config = _STRICT
    file: str
    title: str
    where: Grid = {}
    variants: tuple[str, ...] = ()


class ItemSpec(pydantic.BaseModel):
    """One table or figure.

    grid: key column -> its values; the cells are all combinations, of several grids of all of
        them, each cell once. None: the published CSV's rows.
    plot: how it is drawn (reporting/kinds.py).
    recipe: folder of presets (conf/paper/<key>/<recipe>) that its runs follow instead of the
        paper's own; `select` may name one per printed value.
    select: key column of the published CSV -> config key that takes the printed value, or
        printed value -> overrides. Columns that select no run are left out.
    overrides: for every run of the item. In texts of either `{column}` stands for a cell's key and
        `{word}` for one of `words`; inside a table, a text that is a key alone for its value, a
        number maybe.
    parent: overrides that, put on top of a cell's own, describe the base run that its run starts
        from; by the value of a key column: of those cells alone.
    metric: `<evaluation>/<name of the number>`, or `training/<name>` (of its end, or of its curve:
        curves.py), or `<computation>/<name>`;
        `{column}` stands for a cell's key and `{word}` for one of `words` (which may hold keys).
    variants: name -> what replaces the primary's (Variant).
    margin: in the printed unit; one, or one by the value of a key column.
    largest: by the value of a key column, cells that no run holds: the largest of other items'.
        The metric is for the other cells.
    scale: our numbers are multiplied by it to be in the printed unit (100 for per cent); one, or
        one by the value of a key column.
    choose: of each cell, the best of several settings (Choice), which may be other ones in a
        variant.
    computation: a component that gives the numbers without training; `computation.<parameter>` in
        `select` or `overrides` sets one. By any unit but `deterministic` it takes a `seed`, unless
        a cell has its own. By the value of a key column: of those cells alone, the same for all
        units; the metric is then of whatever a cell has.
    presets: preset -> what of the paper's preset differs for this item.
    beside: what others published of it (BesideSpec).
    """

    model_config = _STRICT
    name: str
    title: str
    rows: list[str]
    columns: list[str]
    grid: Grid | list[Grid] | None = None
    plot: Plot = Dots()
    recipe: str = ""
    unit: Unit
    margin: Margin | ByKey[Margin]
    metric: str = ""
    metric_label: str = "accuracy"
    select: Select = {}
    overrides: Selection = {}
    parent: ByKey[Selection] | Selection | None = None
    words: dict[str, Word] = {}
    variants: dict[str, Variant] = {}
    largest: ByKey[Largest] | None = None
    choose: Choice | None = None
    scale: float | ByKey[float] = 1.0
    computation: ByKey[dict[str, Any]] | dict[str, Any] | None = None
    presets: dict[Preset, ItemPreset] = {}
    beside: list[BesideSpec] = []

    def in_preset(self, preset: str) -> ItemSpec:
        """The item with the words it has, what its columns select, what it chooses among and the
        variants it has in a preset."""
        own = self.presets.get(preset) or ItemPreset()  # type: ignore[call-overload]
        return self.model_copy(
            update={
                "words": self.words | own.words,
                "select": _otherwise(self.select, own.select),
                "choose": own.choose or self.choose,
                "variants": {k: v for k, v in self.variants.items() if preset in v.presets},
            }
        )

    def varied(self, variant: str) -> ItemSpec:
        """The item as one of its variants has it."""
        own = self.variants[variant]
        presets = dict(self.presets)
        for preset in own.presets:
            differs = {"seeds": own.seeds.get(preset), "where": own.where}
            before = presets.get(preset) or ItemPreset()
            presets[preset] = before.model_copy(update={k: v for k, v in differs.items() if v})
        return self.model_copy(
            update={
                "presets": presets,
                "words": self.words | own.words,
                "select": _otherwise(self.select, own.select),
                "overrides": self.overrides | own.overrides,
                "unit": own.unit or self.unit,
                "choose": own.choose or self.choose,
            }
        )


class Paper:
    """Everything declared about one paper.

    key: its folder's name. items: by name, in the paper's order. claims, ablations: claims.yaml and
    ablations.yaml (which need not be there; factors.py) as they are.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.folder = folder = _folders()[key]
        self.about = About(
            **check_values(About, _read(folder / "about.yaml"), str(folder / "about.yaml"))
        )
        self.items: dict[str, ItemSpec] = {}
        for file in sorted(folder.glob("*.yaml")):
            if file.stem not in NOT_ITEMS:
                self.items |= _items(file)
        self.items = {name: self.items[name] for name in self.about.items if name in self.items}
        self.claims: list[dict[str, Any]] = _read(folder / "claims.yaml")
        optional = folder / "ablations.yaml"
        self.ablations: Any = _read(optional) if optional.exists() else []

    def item(self, name: str) -> ItemSpec:
        """The item called `name`; raises UserError with the nearest name."""
        if name not in self.items:
            if name in self.about.items:
                raise UserError(
                    f"{self.key} {name}: not built yet (built: {', '.join(self.items)})"
                )
            hint = did_you_mean(name, self.items)
            raise UserError(
                f"{self.key} has no item {name!r}{hint} (built: {', '.join(self.items)})"
            )
        return self.items[name]


def paper_keys() -> list[str]:
    """Keys of the papers that have declarations."""
    return sorted(_folders())


def _folders() -> dict[str, Path]:
    """Key -> folder of its declarations; the user's own before ours."""
    found = [file.parent for d in paths.conf_dirs() for file in d.glob("paper/*/about.yaml")]
    return {folder.name: folder for folder in reversed(found)}


@cache
def paper(key: str) -> Paper:
    """The paper called `key`; raises UserError with the nearest key."""
    if key not in paper_keys():
        published = sorted(
            f.name for d in paths.published_dirs() for f in d.glob("*") if f.is_dir()
        )
        if key in published:
            raise UserError(f"{key}: not built yet (built: {', '.join(paper_keys())})")
        raise UserError(
            f"no paper {key!r}{did_you_mean(key, published)} (papers: {', '.join(published)})"
        )
    return Paper(key)


def papers_with(item: str) -> list[str]:
    """Keys of the papers that have an item of this name; raises UserError with the nearest name."""
    papers = [paper(key) for key in paper_keys()]
    if found := [each.key for each in papers if item in each.items]:
        return found
    names = sorted({name for each in papers for name in each.items})
    raise UserError(
        f"no paper has an item {item!r}{did_you_mean(item, names)} ({', '.join(names)})"
    )


def published_rows(key: str, name: str) -> list[dict[str, str]]:
    """Rows of results/published/<key>/<name>.csv (or of the user's own), texts as they are. Raises
    UserError naming the file that is missing."""
    files = [folder / key / f"{name}.csv" for folder in paths.published_dirs()]
    path = next((file for file in files if file.exists()), files[-1])
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        raise UserError(f"{key} {name}: its printed numbers are missing ({files[0]})") from None


def cell_keys(row: dict[str, str]) -> dict[str, str]:
    """The key columns of a published row."""
    return {column: text for column, text in row.items() if column not in NOT_KEYS}


def _otherwise(select: Select, own: Select) -> Select:
    """`select` with the printed values of `own` in the place of its own."""
    found = dict(select)
    for column, chosen in own.items():
        before = found.get(column)
        both = isinstance(before, dict) and isinstance(chosen, dict)
        found[column] = {**before, **chosen} if both else chosen
    return found


def _items(file: Path) -> dict[str, ItemSpec]:
    """One file holds one item or a family: `items` gives what differs between its members."""
    shared = dict(_read(file))
    members = shared.pop("items", None)
    if not isinstance(members, dict) or not members:
        raise UserError(
            f"{file}: needs `items`: name -> what differs between the items of the file"
        )
    return {
        name: ItemSpec(
            **check_values(ItemSpec, {**shared, **(own or {}), "name": name}, f"{file}: {name}")
        )
        for name, own in members.items()
    }


def _read(file: Path) -> Any:
    try:
        return yaml.load(file.read_text(encoding="utf-8"), _LOADER)
    except FileNotFoundError:
        raise UserError(f"{file}: missing; every paper needs one") from None
    except yaml.YAMLError as error:
        raise UserError(f"{file}: {' '.join(str(error).split())}") from None
