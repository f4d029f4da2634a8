"""Numbers of a training that its whole curve tells, not its end."""

from __future__ import annotations

import math
import statistics

from hypersphere.errors import UserError
from hypersphere.store.records import Record

CURVE = "test_accuracy"
EARLY = 0.4  # share of the epochs: before the first fall of the usual schedules' learning rate
LEAST = 3  # epochs, of shorter trainings


def of_curve(record: Record, name: str) -> float | None:
    """The number `name` of a training's record, None for no such name:

    * `test_accuracy@E`: after epoch E, nan where the training has fewer epochs; `@last`: after the
      last one; `@best`: the highest of all, which only hindsight on the test images can choose;
    * `epochs_to_90_percent`: the first epoch that reaches 90 % of the last one's test accuracy;
    * `roughness`: standard deviation of the change of the test accuracy from epoch to epoch within
      the first 40 % of the epochs (of three at least), nan where there are fewer than three.
    """
    kind, _, epoch = name.partition("@")
    if kind not in (CURVE, "epochs_to_90_percent", "roughness") or (kind == CURVE) != bool(epoch):
        return None
    by_epoch = {str(e["epoch"]): e.get(CURVE, math.nan) for e in record["epochs"]}
    curve = list(by_epoch.values())
    if kind == CURVE:
        if epoch == "last":
            return curve[-1]
        return max(curve) if epoch == "best" else by_epoch.get(epoch, math.nan)
    if kind == "epochs_to_90_percent":
        reached = [i for i, value in enumerate(curve, 1) if value >= 0.9 * curve[-1]]
        return float(reached[0]) if reached else math.nan
    early = curve[: max(LEAST, int(EARLY * len(curve)))]
    changes = [after - before for before, after in zip(early, early[1:], strict=False)]
    return statistics.stdev(changes) if len(changes) > 1 else math.nan


def number_of(record: Record, name: str) -> float | list[float]:
    """The number `name` of a record, of its curve or of its end; nan of a training that diverged.

    Several draws are a list. Raises UserError when the record has no such number.
    """
    if record["diverged"]:
        return math.nan
    if (number := of_curve(record, name)) is not None:
        return number
    if name not in record["metrics"]:
        raise UserError(f"run {record['run_id']} has no number {name!r}; see the item's `metric`")
    return record["metrics"][name]
