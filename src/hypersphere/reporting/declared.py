"""What an item's YAML says that its reports need as it is (pictures: kinds.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import pydantic

T = TypeVar("T")
JOINED = " & "


class ByKey(pydantic.BaseModel, Generic[T]):
    """What depends on a key column of the cell, in a table that mixes metrics, say.

    by: the column, or several joined by ` & `, as their values are then. words: value -> what that
    gives. otherwise: what any other value gives; None: words must name every value.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
    by: str
    words: dict[str, T]
    otherwise: T | None = None

    def of(self, keys: Mapping[str, str]) -> T:
        """What a cell with these keys gets. Raises ValueError when nothing is said of it."""
        value = self._value(keys)
        found = self.words.get(value, self.otherwise)
        if found is None:
            raise ValueError(f"{self.by}: says nothing of {value!r} (only of {list(self.words)})")
        return found

    def speaks_of(self, keys: Mapping[str, str]) -> bool:
        """Whether something is said of a cell with these keys."""
        return self._value(keys) in self.words or self.otherwise is not None

    def told(self) -> dict[str, T]:
        """What each value gives, for a person to read."""
        return self.words if self.otherwise is None else {**self.words, "others": self.otherwise}

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickle finds classes by name, and that of one kind of words (`ByKey[float]`) has none.
        return ByKey.model_validate, (self.__dict__,)

    def _value(self, keys: Mapping[str, str]) -> str:
        return JOINED.join(str(keys.get(column)) for column in self.by.split(JOINED))


class Largest(pydantic.BaseModel):
    """The largest number among cells of other items, within each unit.

    tables: names of the items. where: key -> value or values of the cells that count. gains, over:
    not the cells' numbers but the relative gains of those with these keys over the best of the
    others, as the claims have it (comparisons); with `relative: false` the differences. scale:
    into the printed unit.
    """

    model_config = pydantic.ConfigDict(extra="forbid")
    tables: list[str] = pydantic.Field(min_length=1)
    where: dict[str, Any] = {}
    gains: dict[str, Any] | None = None
    over: list[dict[str, Any]] = []
    relative: bool = True
    scale: float = 1.0
