"""What could explain that a cell differs: conf/paper/<key>/ablations.yaml.

A factor is one thing that a paper leaves open, with a few settings of it. A setting says what
differs from the item as declared, in the words of a variant (spec.py), or names one of its
variants. They are tried one at a time, never together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import pydantic

from hypersphere.config.components import check_values
from hypersphere.errors import UserError, did_you_mean
from hypersphere.papers.plan import rows_of
from hypersphere.papers.spec import PRESETS, Grid, ItemSpec, Paper, Variant, cell_keys


class Factor(pydantic.BaseModel):
    """One ambiguity of a paper.

    name: in the field's words. why: what the paper leaves open, and where each reading comes from:
    [P] the paper, [C] its released code, [U] a decision of ours. items: those it concerns. where:
    key column -> values of the cells that it concerns (all, where nothing is said). settings:
    label -> what the cell then has in the place of the declared (a variant without a unit of its
    own), or the name of a variant that all of the items have. The declared setting is one of them.
    """

    model_config = pydantic.ConfigDict(extra="forbid")
    name: Annotated[str, pydantic.Field(min_length=1)]
    why: Annotated[str, pydantic.Field(min_length=1)]
    items: Annotated[list[str], pydantic.Field(min_length=1)]
    where: Grid = {}
    settings: Annotated[dict[str, str | Variant], pydantic.Field(min_length=1)]

    @pydantic.field_validator("settings")
    @classmethod
    def _pairable(cls, given: dict[str, str | Variant]) -> dict[str, str | Variant]:
        for label, setting in given.items():
            if isinstance(setting, Variant) and setting.unit is not None:
                raise ValueError(f"{label}: has a unit of its own, so nothing could be paired")
        return given

    def concerns(self, item: str, keys: Mapping[str, str]) -> bool:
        """Whether it could explain the cell with these keys."""
        return item in self.items and all(
            keys.get(column) in map(str, values) for column, values in self.where.items()
        )

    def variants(self, spec: ItemSpec) -> dict[str, Variant]:
        """By label, what each setting has in the place of the declared."""
        return {
            label: spec.variants[one] if isinstance(one, str) else one
            for label, one in self.settings.items()
        }


def factors(declared: Paper) -> list[Factor]:
    """The factors of a paper, in the file's order; none where it has no such file.

    Raises UserError for a key, item, variant, column or value that is not there.
    """
    file = f"{declared.folder / 'ablations.yaml'}"
    if not isinstance(declared.ablations, list):
        raise UserError(f"{file}: needs a list of factors (name, why, items, settings)")
    found = []
    for number, given in enumerate(declared.ablations, 1):
        if not isinstance(given, dict):
            raise UserError(f"{file}: factor {number}: needs name, why, items and settings")
        where = f"{file}: {given.get('name') or f'factor {number}'}"
        factor = Factor(**check_values(Factor, given, where))
        _check(declared, factor, where)
        found.append(factor)
    return found


def concerning(
    declared: Paper, every: Sequence[Factor], item: str, keys: Mapping[str, str]
) -> list[Factor]:
    """Those of a paper's factors that could explain one cell. Raises UserError where two have one
    name."""
    found = [each for each in every if each.concerns(item, keys)]
    names = [each.name for each in found]
    if twice := {name for name in names if names.count(name) > 1}:
        cell = ", ".join(keys.values())
        raise UserError(
            f"{declared.folder / 'ablations.yaml'}: {item} ({cell}) has two factors called"
            f" {sorted(twice)[0]!r}; give each a name, or a `where`, of its own"
        )
    return found


def named(found: Sequence[Factor], names: Sequence[str]) -> list[Factor]:
    """Those called so (upper and lower case alike); all where there are no names."""
    by_name = {each.name.casefold(): each for each in found}
    for name in names:
        if name.casefold() not in by_name:
            known = [each.name for each in found]
            hint = did_you_mean(name, known)
            raise UserError(f"no factor {name!r}{hint} (this cell's: {', '.join(known) or 'none'})")
    wanted = {name.casefold() for name in names}
    return [each for each in found if not wanted or each.name.casefold() in wanted]


def _check(declared: Paper, factor: Factor, where: str) -> None:
    for name in factor.items:
        spec = declared.item(name)
        for label, setting in factor.settings.items():
            if isinstance(setting, str) and setting not in spec.variants:
                hint = did_you_mean(setting, spec.variants)
                raise UserError(
                    f"{where}: settings.{label}: {name} has no variant {setting!r}{hint} (it has:"
                    f" {', '.join(spec.variants) or 'none'})"
                )
    cells = [
        cell_keys(row)
        for name in factor.items
        for preset in PRESETS
        for row in rows_of(declared, declared.item(name).in_preset(preset), preset)
    ]
    for column, values in factor.where.items():
        there = dict.fromkeys(keys[column] for keys in cells if column in keys)
        if not there:
            columns = list(dict.fromkeys(name for keys in cells for name in keys))
            hint = did_you_mean(column, columns)
            raise UserError(
                f"{where}: where.{column}: no such column{hint} (there are: {', '.join(columns)})"
            )
        for value in map(str, values):
            if value not in there:
                raise UserError(
                    f"{where}: where.{column}: no cell has {value!r}{did_you_mean(value, there)}"
                    f" (there are: {', '.join(there)})"
                )
