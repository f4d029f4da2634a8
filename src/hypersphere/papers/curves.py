"""Numbers of a training that its whole curve tells, not its end."""

from __future__ import annotations

import math
import re
import statistics

from hypersphere.errors import UserError
from hypersphere.store.records import Record

CURVES = ("test_accuracy", "test_accuracy_of_few")
REACHES = re.compile(r"epochs_to_(\d+)_percent(_of_few)?")
EARLY = 0.4  # share of the epochs: before the first fall of the usual schedules' learning rate
LEAST = 3  # epochs, of shorter trainings


def of_curve(record: Record, name: str) -> float | None:
    """The number `name` of a training's record, None for no such name:

    * `test_accuracy@E`: after epoch E, nan where the training has fewer epochs; `@last`: after the
      last one; `@best`: the highest of all, which only hindsight on the test images can choose;
    * `epochs_to_90_percent`: the first epoch that reaches 90 % of the highest test accuracy of all,
      or any other share (of the last one's a curve that falls would reach it at once);
    * `roughness`: standard deviation of the change of the test accuracy from epoch to epoch within
      the first 40 % of the epochs (of three at least), nan where there are fewer than three.

    `test_accuracy_of_few@E`, `epochs_to_90_percent_of_few`: the same of the classes with few
    training images.
    """
    kind, _, epoch = name.partition("@")
    reaches = REACHES.fullmatch(name)
    if not reaches and name != "roughness" and not (kind in CURVES and epoch):
        return None
    of = CURVES[1] if kind == CURVES[1] or (reaches and reaches[2]) else CURVES[0]
    by_epoch = {str(e["epoch"]): e.get(of, math.nan) for e in record["epochs"]}
    curve = list(by_epoch.values())
    if not curve:
        return math.nan
    if epoch:
        ends = {"last": curve[-1], "best": max(curve)}
        return ends[epoch] if epoch in ends else by_epoch.get(epoch, math.nan)
    if reaches:
        enough = int(reaches[1]) / 100 * max(curve)
        reached = [i for i, value in enumerate(curve, 1) if value >= enough]
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
