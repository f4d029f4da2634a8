"""How many repeats a verdict would take, if mean and spread stayed as they are seen so far.

A guide for what to run, not a stopping rule: mean and spread come from few repeats themselves, so
that the number suffices little more than half the time, more rarely where a claim needs several.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean, stdev

from scipy.special import stdtrit

from hypersphere.reporting.verdicts import MIN_ALIKE, MIN_UNITS, alike, by_interval

MOST = 1000  # beyond that the two are as good as equal, or the difference lies on the margin


def to_order(differences: Sequence[float]) -> int | None:
    """Repeats until the one-sided 95 % interval of paired differences leaves zero out. None with
    fewer than two differences, one that is not finite, or where MOST do not suffice."""
    least = MIN_ALIKE if alike(differences) else 0
    return _until(differences, lambda n, low, high: n >= least and (low > 0 or high < 0))


def to_judge(differences: Sequence[float], margin: float) -> int | None:
    """Repeats until the 90 % interval of ours - published lies inside or wholly outside the margin;
    None as in `to_order`."""
    return _until(
        differences, lambda n, low, high: by_interval(n, low, high, margin) != "inconclusive"
    )


def _until(
    differences: Sequence[float], decided: Callable[[int, float, float], bool]
) -> int | None:
    if len(differences) < 2 or not all(map(math.isfinite, differences)):
        return None
    mean, spread = fmean(differences), stdev(differences)
    for n in range(max(MIN_UNITS, len(differences)), MOST + 1):
        half = float(stdtrit(n - 1, 0.95)) * spread / math.sqrt(n)
        if decided(n, mean - half, mean + half):
            return n
    return None
