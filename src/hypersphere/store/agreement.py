"""Whether two records of one run say the same."""

from __future__ import annotations

import math
from typing import NamedTuple

from hypersphere.store.records import Record

TOLERANCE = 0.02  # of numbers from another machine or version, of losses relative
NO_NUMBERS = ("epoch", "seconds", "devices", "compiled")  # of an entry of the curve


class Difference(NamedTuple):
    """A number that differs: its name, and what either record has (None: it has none)."""

    name: str
    ours: float | None
    theirs: float | None

    def said(self, here: str, there: str) -> str:
        """As a clause, with the places of our record and theirs."""
        if self.ours is None or self.theirs is None:
            return f"only the record {there if self.ours is None else here} has {self.name}"
        return f"{self.name} is {self.theirs:.6g} {there}, {self.ours:.6g} {here}"


def disagreement(ours: Record, theirs: Record) -> Difference | None:
    """The first number in which two records of one run differ.

    On the same versions, processor and number of threads: bit for bit. Elsewhere sums are rounded
    in another order, and the difference grows with every step: bfloat16 trainings of some epochs
    end with losses several per cent apart. There a training's first epoch and what it ends with are
    compared: within TOLERANCE, losses at the end within ten times that, test accuracies within
    three standard errors of a difference of two where few test images make these more, and at the
    end within what the last epoch moved them by in both, where that is more: an accuracy that is
    still on the move is caught at another place by every rounding.
    """
    exact = all(ours.get(key) == theirs.get(key) for key in ("versions", "hardware"))
    images = ours.get("test_images") or theirs.get("test_images") or math.inf
    mine, other = numbers_of(ours), numbers_of(theirs)
    for name in [*mine, *(other.keys() - mine.keys())]:
        a, b = mine.get(name), other.get(name)
        if a is None or b is None:
            return Difference(name, a, b)
        later = name.startswith("epoch ") and not name.startswith("epoch 1 ")
        allowed = 0.0 if exact else math.inf if later else _allowed(name, a, images)
        if not exact and name.startswith("test_accuracy"):
            allowed = max(allowed, min(_last_step(each, name) for each in (ours, theirs)))
        if not (a == b or abs(a - b) <= allowed or (math.isnan(a) and math.isnan(b))):
            return Difference(name, a, b)
    return None


def _allowed(name: str, value: float, images: float) -> float:
    number = name.removeprefix("epoch 1 ")
    if "loss" in name:
        return TOLERANCE * max(abs(value), 1e-3) * (10 if number == name else 1)
    if not number.startswith("test_accuracy") or not 0 <= value <= 1:
        return TOLERANCE
    return max(TOLERANCE, 3 * math.sqrt(2 * value * (1 - value) / images))


def _last_step(record: Record, name: str) -> float:
    """By how much the last epoch changed a number, 0 where there is no such curve."""
    before, last = ([{}, {}] + record.get("epochs", []))[-2:]
    step = abs(last.get(name, math.nan) - before.get(name, math.nan))
    return 0.0 if math.isnan(step) else step


def numbers_of(record: Record) -> dict[str, float]:
    """All numbers of a record by name: whether it diverged, its curve without its seconds, its
    metrics (each draw for itself)."""
    found = {"diverged": float(record["diverged"])}
    for index, entry in enumerate(record.get("epochs", [])):
        found |= {f"epoch {index + 1} {k}": v for k, v in entry.items() if k not in NO_NUMBERS}
    for key, value in record["metrics"].items():
        values = value if isinstance(value, list) else [value]
        found |= {f"{key}[{i}]" if len(values) > 1 else key: v for i, v in enumerate(values)}
    return {k: float(v) for k, v in found.items() if isinstance(v, int | float)}
