"""The rules that turn numbers into verdicts: pure functions, one rule each."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.special import stdtrit

from hypersphere.reporting.cells import Cell, Item

VERDICTS = ("reproduced", "differs", "inconclusive", "not comparable", "not run")
CLAIM_VERDICTS = ("holds", "partly", "fails", "not tested")
OUTCOMES = ("supported", "contradicted", "open")
DIGITS = 6  # verdicts are taken from the numbers as they are written, so a reader can recompute
MIN_UNITS = 3
MIN_ALIKE = 5  # of three equal differences, all on one side is a matter of 1 in 8
CHANCE = 0.05  # the one-sided level that a 90 % interval gives


@dataclass(frozen=True)
class Judged:
    """One row of a table's CSV: numbers in the printed unit, None where there is none to show."""

    published: str
    published_std: str
    ours: float | None
    ours_std: float | None
    n: int
    difference: float | None
    low: float | None
    high: float | None
    margin: float
    protocol: str
    verdict: str
    run_ids: tuple[str, ...]


def rounded(value: float) -> float:
    """The value at the precision in which tables are written; no negative zero."""
    return round(value, DIGITS) + 0.0 if math.isfinite(value) else value


def as_number(text: str) -> float | None:
    """A published text as a number: nan for a printed divergence, None for blank or a phrase."""
    try:
        return float(text)
    except ValueError:
        return None


def decimals(text: str) -> int:
    """How many decimals a published number is printed with: 3 for `0.910`, 0 for `53`."""
    _, _, tail = text.strip().lower().partition("e")[0].partition(".")
    _, _, exponent = text.strip().lower().partition("e")
    return max(0, len(tail) - int(exponent or 0))


def interval(differences: Sequence[float], level: float = 0.90) -> tuple[float, float] | None:
    """Two-sided t-interval of the mean; None with fewer than two values or one that diverged."""
    n = len(differences)
    if n < 2 or not all(math.isfinite(value) for value in differences):
        return None
    mean = fmean(differences)
    half = float(stdtrit(n - 1, (1 + level) / 2)) * stdev(differences) / math.sqrt(n)
    return mean - half, mean + half


def by_interval(n: int, low: float | None, high: float | None, margin: float) -> str:
    """Verdict of a 90 % interval of ours - published: inside +-margin, wholly outside, or else."""
    if n < MIN_UNITS or low is None or high is None:
        return "inconclusive"
    if -margin <= low and high <= margin:
        return "reproduced"
    return "differs" if low > margin or high < -margin else "inconclusive"


def by_divergence(n: int, diverged: int) -> str:
    """Verdict where the paper printed a divergence: by the share of our n runs that diverged."""
    if n < MIN_UNITS:
        return "inconclusive"
    return "reproduced" if diverged == n else "differs" if diverged == 0 else "inconclusive"


def at_printed_precision(ours: float | None, published: str) -> str:
    """Verdict of a number without chance: equal at the precision the paper printed, or not."""
    wanted = as_number(published)
    if ours is None or wanted is None or math.isnan(ours) or math.isnan(wanted):
        both = ours is not None and wanted is not None and math.isnan(ours) and math.isnan(wanted)
        return "reproduced" if both else "differs"
    # half a unit of the last printed place either way, so the paper's rounding mode does not matter
    within = abs(ours - wanted) <= 0.5 * 10.0 ** -decimals(published) + 1e-9
    return "reproduced" if within else "differs"


def judge(cell: Cell, unit: str, margin: float) -> Judged:
    """Numbers and verdict of one cell; `margin` and the result are in the printed unit."""
    margin = rounded(margin)
    blank = Judged(
        cell.published, cell.published_std, None, None, 0, None, None, None,
        margin, cell.protocol, "not run", tuple(sorted(cell.run_ids)),
    )  # fmt: skip
    if not cell.complete:
        return blank
    values, diverged = list(cell.values.values()), cell.diverged
    if unit == "deterministic":
        values = values[:1]  # the same for every seed that asks for it
    n = len(values)
    published = as_number(cell.published)
    shown = values
    if published is not None and math.isnan(published):
        shown = [value for value in values if not math.isnan(value)]
    ours = fmean(shown) if shown else math.nan
    std = stdev(shown) if len(shown) > 1 and math.isfinite(ours) else None
    difference = low = high = None
    if published is not None and math.isfinite(published) and math.isfinite(ours):
        differences = [value - published for value in values]
        difference = rounded(fmean(differences))
        if (bounds := interval(differences)) and unit != "deterministic":
            low, high = rounded(bounds[0]), rounded(bounds[1])
    if cell.protocol != "exact" or published is None:
        verdict = "not comparable"
    elif unit == "deterministic":
        verdict = at_printed_precision(ours, cell.published)
    elif math.isnan(published):
        verdict = by_divergence(n, diverged)
    else:
        if diverged == n >= MIN_UNITS:
            # no run gave a number where the paper has one: written as infinitely far, so that
            # the verdict follows from the row's own interval like every other
            low = high = -math.inf
        verdict = by_interval(n, low, high, margin)
    return Judged(
        cell.published, cell.published_std, rounded(ours), None if std is None else rounded(std),
        n, difference, low, high, margin, cell.protocol, verdict, blank.run_ids,
    )  # fmt: skip


def judge_item(item: Item) -> list[tuple[Cell, Judged]]:
    """Every cell of the item with its verdict, in the item's order."""
    return [(cell, judge(cell, item.unit_of(cell), item.margin_of(cell))) for cell in item.cells]


def verdict_counts(item: Item) -> dict[str, int]:
    """How many cells got each verdict: all five verdicts, in their fixed order."""
    counts = Counter(judged.verdict for _, judged in judge_item(item))
    return {verdict: counts[verdict] for verdict in VERDICTS}


def chance_note(item: Item) -> str:
    """One sentence: how many cells judged by an interval could agree or differ by chance alone."""
    judged = sum(
        row.n >= MIN_UNITS
        and row.verdict in ("reproduced", "differs", "inconclusive")
        and row.low is not None
        and math.isfinite(row.low)
        for _, row in judge_item(item)
    )
    if item.unit == "deterministic":
        return "These values involve no chance: each is compared at the printed precision."
    if not judged:
        return "No cell of this table is judged against the paper by an interval."
    cells = "1 cell" if judged == 1 else f"{judged} cells"
    return (
        f"Of {cells} judged by an interval, up to {judged * CHANCE:.2g} could be called"
        f" reproduced, and up to {judged * CHANCE:.2g} called differs, by chance alone"
        " (5 % one-sided each, no correction within a table)."
    )


def common_units(a: Mapping[str, float], b: Mapping[str, float]) -> list[str]:
    """Units (seeds, splits, draws) that both sides have, sorted."""
    return sorted(a.keys() & b.keys())


def paired(a: Mapping[str, float], b: Mapping[str, float], level: float = CHANCE) -> str:
    """Is a > b? One-sided paired t over common units at `level`: supported, contradicted or open.

    Open with fewer than three common units, or when a run among them diverged: leaving
    such runs out would favour whichever side diverges more. Open as well with fewer than five
    differences that are the same whole number, as those of counts (epochs) may be: no spread is
    left to tell chance by.
    """
    differences = [round(a[unit] - b[unit], 9) for unit in common_units(a, b)]
    if len(differences) < MIN_UNITS or not (bounds := interval(differences, 1 - 2 * level)):
        return "open"
    if len(differences) < MIN_ALIKE and alike(differences):
        return "open"
    # either end of a two-sided 90 % interval is a one-sided 95 % bound
    return "supported" if bounds[0] > 0 else "contradicted" if bounds[1] < 0 else "open"


def alike(differences: Sequence[float]) -> bool:
    """Whether they are one whole number."""
    return len({*differences}) == 1 and float(differences[0]).is_integer()


def claim_verdict(outcomes: Sequence[str]) -> str:
    """holds, partly or fails when at least two thirds of the comparisons are decided."""
    supported, contradicted = outcomes.count("supported"), outcomes.count("contradicted")
    if not outcomes or 3 * (supported + contradicted) < 2 * len(outcomes):
        return "not tested"
    return "holds" if not contradicted else "fails" if not supported else "partly"


def evidence(outcomes: Sequence[str], n: int, unit: str) -> str:
    """`13 supported, 1 contradicted, 2 open of 16, n = 3 splits`."""
    counts = ", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in OUTCOMES)
    return f"{counts} of {len(outcomes)}, n = {n} {unit}{'' if n == 1 else 's'}"
