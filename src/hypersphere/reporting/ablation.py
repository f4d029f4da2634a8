"""Why a cell differs: what each setting of each factor does to its gap to the published number.

Pure functions of a cell's single numbers. A setting is compared with the declared one on the units
(seeds, splits, draws) that both have, so that what the units differ by cancels out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from hypersphere.reporting.cells import Cell, Item
from hypersphere.reporting.layout import number_text
from hypersphere.reporting.verdicts import (
    MIN_UNITS,
    Judged,
    as_number,
    common_units,
    interval,
    judge,
    rounded,
)

OUTCOMES = {
    "closes": "ours comes within the margin of the published number",
    "overshoots": "ours passes the published number by more than the margin",
    "narrows": "the gap gets smaller by more than the margin",
    "little change": "ours moves by no more than the margin",
    "widens": "the gap gets larger by more than the margin",
    "stays within": "ours stays within the margin, where it was",
    "opens": "ours was within the margin and leaves it",
    "measured": "nothing to compare with is printed",
    "diverged": "a run diverged: it has no number",
    "declared": "the setting of the table",
    "not run": "no run yet that the declared setting has as well",
}


@dataclass(frozen=True)
class Effect:
    """What one setting does, in the printed unit.

    says: what differs from the declared configuration. n: units that both have; change: ours with
    it minus ours as declared, mean over these, low and high its 90 % t-interval (n >= 3). gap:
    ours as declared minus published, over these units; rest: what the setting leaves of it.
    outcome: one of `OUTCOMES`.
    """

    factor: str
    setting: str
    says: str
    cell: Cell
    judged: Judged
    n: int
    change: float | None
    low: float | None
    high: float | None
    gap: float | None
    rest: float | None
    outcome: str

    @property
    def closed(self) -> float | None:
        """Share of the gap that the change makes up for: 1 all of it, more beyond it, below 0 the
        other way; None where there is no gap."""
        if self.outcome in ("stays within", "opens") or not self.gap or self.change is None:
            return None
        return rounded(-self.change / self.gap)

    @property
    def left(self) -> float:
        """Size of what is left, as a share of the gap; infinite where that is not known."""
        known = self.gap and self.rest is not None and self.outcome != "declared"
        return abs(self.rest / self.gap) if known else math.inf  # type: ignore[operator]


@dataclass(frozen=True)
class Ablation:
    """A cell, what its settings do, and why their factors are in question.

    item: the table with this cell alone, as declared. stem: name of its files. label: the cell's
    keys in words. digits: decimals that its table shows. why: by factor, what is left open by the
    paper. beside: other cells whose declared runs are the same ones.
    """

    item: Item
    stem: str
    label: str
    digits: int
    why: dict[str, str]
    effects: tuple[Effect, ...]
    beside: tuple[Ablation, ...] = ()

    @property
    def name(self) -> str:
        """`table4, k_unseen = 5, class_group = seen, method = nsl`."""
        return f"{self.item.name}, {self.label}"

    @property
    def declared(self) -> Judged:
        return judged_so_far(self.item, self.item.cells[0])

    @property
    def margin(self) -> float:
        return self.item.margin_of(self.item.cells[0])

    @property
    def printed(self) -> float | None:
        """The published number, None where it is blank or a divergence."""
        number = as_number(self.item.cells[0].published)
        return None if number is None or not math.isfinite(number) else number

    def of(self, factors: Sequence[str]) -> Ablation:
        """With these factors alone."""
        kept = tuple(each for each in self.effects if each.factor in factors)
        return replace(self, effects=kept)


def judged_so_far(item: Item, cell: Cell) -> Judged:
    """A cell's numbers over the units that are done, though more may be planned."""
    seen = replace(cell, planned=len(cell.values)) if cell.values else cell
    return judge(seen, item.unit_of(cell), item.margin_of(cell))


def effect(
    item: Item, cell: Cell, factor: str, setting: str, says: str, *, is_declared: bool
) -> Effect:
    """What a setting does to the (only) cell of `item`; `cell` is the same one with the setting."""
    base, margin = item.cells[0], item.margin_of(item.cells[0])
    units = common_units(base.values, cell.values)
    pairs = [(base.values[unit], cell.values[unit]) for unit in units]
    change = low = high = gap = rest = None
    if pairs and all(math.isfinite(value) for pair in pairs for value in pair):
        changes = [with_it - without for without, with_it in pairs]
        change = rounded(fmean(changes))
        if len(changes) >= MIN_UNITS and (bounds := interval(changes)):
            low, high = rounded(bounds[0]), rounded(bounds[1])
        printed = as_number(base.published)
        if printed is not None and math.isfinite(printed):
            gap = rounded(fmean(without for without, _ in pairs) - printed)
            rest = rounded(fmean(with_it for _, with_it in pairs) - printed)
    if is_declared:
        outcome = "declared"
    elif not pairs:
        outcome = "not run"
    elif change is None:
        outcome = "diverged"
    else:
        outcome = _outcome(gap, rest, change, margin)
    judged = judged_so_far(item, cell)
    return Effect(
        factor, setting, says, cell, judged, len(pairs), change, low, high, gap, rest, outcome
    )


def _outcome(gap: float | None, rest: float | None, change: float, margin: float) -> str:
    if gap is None or rest is None:
        return "measured"
    if abs(gap) <= margin:
        return "stays within" if abs(rest) <= margin else "opens"
    if abs(rest) <= margin:
        return "closes"
    if abs(change) <= margin:
        return "little change"
    if gap * rest < 0:
        return "overshoots"
    return "narrows" if abs(rest) < abs(gap) else "widens"


def with_those_beside(found: Sequence[Ablation]) -> list[Ablation]:
    """Each knowing the others whose declared runs are the same: a setting that closes the gap of
    one may open that of another."""
    runs = [set(each.item.cells[0].run_ids) for each in found]
    return [
        replace(
            each,
            beside=tuple(
                other
                for other, theirs in zip(found, runs, strict=True)
                if other is not each and theirs == own and own
            ),
        )
        for each, own in zip(found, runs, strict=True)
    ]


def ranked(effects: Sequence[Effect]) -> list[tuple[str, list[Effect]]]:
    """Factor -> its settings as declared, the factor whose best setting leaves least of the gap
    first; those that tell nothing of a gap behind them, in the order given."""
    by_factor: dict[str, list[Effect]] = {}
    for each in effects:
        by_factor.setdefault(each.factor, []).append(each)
    return sorted(by_factor.items(), key=lambda named: min(each.left for each in named[1]))


def findings(ablation: Ablation) -> list[str]:
    """What the sweep says of the gap, a sentence each; first whether a factor closes it."""
    declared, unit = ablation.declared, ablation.item.unit
    if not declared.n:
        return ["The declared setting has no finished run: there is nothing to compare with."]
    if ablation.printed is None:
        what = "a divergence" if ablation.declared.published.strip() else "no number"
        return [f"The paper prints {what} here: there is no gap, changes alone are shown."]
    tried = [each for each in ablation.effects if each.rest is not None]
    tried = [each for each in tried if each.outcome != "declared"]
    said = [_verdict(ablation, tried)]
    if not _within(ablation):
        closing = [each for each in tried if each.outcome == "closes"]
        said += [line for each in closing for line in _elsewhere(ablation, each)]
        if beyond := [each for each in tried if each.outcome == "overshoots"]:
            said.append(f"Past the published number: {_named(ablation, beyond)}.")
    fewest = min((each.n for each in tried), default=0)
    if tried and fewest < MIN_UNITS:
        said.append(
            f"Some settings rest on {fewest} {unit}{'' if fewest == 1 else 's'}: fewer than"
            f" {MIN_UNITS} are a hint, not a finding (--seeds {MIN_UNITS})."
        )
    if declared.protocol != "exact":
        said.append(
            f"Protocol {declared.protocol}: the gap is not comparable with the paper's, a part of"
            " it may be what this protocol does otherwise. It is shown as a difference."
        )
    if waiting := sum(each.outcome == "not run" for each in ablation.effects):
        said.append(f"{waiting} of {len(ablation.effects)} settings are not run yet.")
    return said


def _verdict(ablation: Ablation, tried: Sequence[Effect]) -> str:
    margin = f"the margin of ± {number_text(ablation.margin)}"
    if _within(ablation):
        opening = [each for each in tried if each.outcome in ("opens", "overshoots", "widens")]
        left = f"; out of it: {_named(ablation, opening)}" if opening else ""
        return f"There is no gap to close: the declared setting lies within {margin}{left}."
    if not tried:
        return "No other setting is run yet: nothing can be said of the gap."
    if closing := [each for each in tried if each.outcome == "closes"]:
        count = len({each.factor for each in closing})
        factors = "One factor closes" if count == 1 else f"{count} factors, each by itself, close"
        return f"{factors} the gap to within {margin}: {_named(ablation, closing)}."
    best = min(tried, key=lambda each: each.left)
    if best.left >= 1:
        return f"No factor closes the gap to within {margin}, and none makes it smaller."
    return f"No factor closes the gap to within {margin}; nearest: {_named(ablation, [best])}."


def _within(ablation: Ablation) -> bool:
    """Whether ours as declared, over all its units, lies within the margin: no gap to close."""
    gap = ablation.declared.difference
    return gap is not None and abs(gap) <= ablation.margin


def _elsewhere(ablation: Ablation, closing: Effect) -> list[str]:
    """What a setting that closes the gap does to the other cells of its runs."""
    found = [
        (other, each)
        for other in ablation.beside
        for each in other.effects
        if (each.factor, each.setting) == (closing.factor, closing.setting) and each.n
    ]
    told = "; ".join(f"{other.name}: {_rest(other, each)}" for other, each in found)
    setting = f"{closing.factor} = {closing.setting}"
    return [f"{setting} in the other cells of these runs: {told}."] if found else []


def _rest(ablation: Ablation, each: Effect) -> str:
    if each.rest is None or each.gap is None:
        return each.outcome
    digits = ablation.digits
    return f"{each.outcome} (leaves {each.rest:+.{digits}f} of {each.gap:+.{digits}f})"


def _named(ablation: Ablation, effects: Sequence[Effect]) -> str:
    """`scale S = 8 (leaves +0.012 of -0.647)`, the one that leaves least first."""
    return "; ".join(
        f"{each.factor} = {each.setting} (leaves {each.rest:+.{ablation.digits}f} of"
        f" {each.gap:+.{ablation.digits}f})"
        for each in sorted(effects, key=lambda each: each.left)
    )


def tries(ablation: Ablation) -> int:
    """How many settings beside the declared one have a number."""
    return sum(each.change is not None and each.outcome != "declared" for each in ablation.effects)
