"""Numbers of a training that its whole curve tells, not its end."""

from __future__ import annotations

import math
import statistics

from hypersphere.store.records import Record

CURVE = "test_accuracy"
EARLY = 0.4  # share of the epochs: before the first fall of the usual schedules' learning rate
LEAST = 3  # epochs, of shorter trainings


def of_curve(record: Record, name: str) -> float | None:
    """The number `name` of a training's record, None for no such name:

    * `test_accuracy@E`: after epoch E, nan where the training has fewer epochs;
    * `epochs_to_90_percent`: the first epoch that reaches 90 % of the last one's test accuracy;
    * `roughness`: standard deviation of the change of the test accuracy from epoch to epoch within
      the first 40 % of the epochs (of three at least), nan where there are fewer than three.
    """
    kind, _, epoch = name.partition("@")
    if kind not in (CURVE, "epochs_to_90_percent", "roughness") or (kind == CURVE) != bool(epoch):
        return None
    by_epoch = {str(e["epoch"]): e.get(CURVE, math.nan) for e in record["epochs"]}
    if kind == CURVE:
        return by_epoch.get(epoch, math.nan)
    curve = list(by_epoch.values())
    if kind == "epochs_to_90_percent":
        reached = [i for i, value in enumerate(curve, 1) if value >= 0.9 * curve[-1]]
        return float(reached[0]) if reached else math.nan
    early = curve[: max(LEAST, int(EARLY * len(curve)))]
    changes = [after - before for before, after in zip(early, early[1:], strict=False)]
    return statistics.stdev(changes) if len(changes) > 1 else math.nan
