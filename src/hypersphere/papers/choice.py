"""Cells that show the best of several settings, as papers do after a grid search."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hypersphere.config import Evaluation, Node
from hypersphere.errors import UserError
from hypersphere.papers.curves import number_of
from hypersphere.store import Store


@dataclass(frozen=True)
class Alternative:
    """One setting that a cell may be shown with: its overrides, and by unit what holds the number
    then."""

    overrides: Mapping[str, Any]
    nodes: dict[str, Node]

    def __str__(self) -> str:
        return ", ".join(f"{key} = {value}" for key, value in self.overrides.items())


def training_number(by: str) -> str:
    """The name in `by`, which must be a training's. Raises UserError for another."""
    source, _, name = by.partition("/")
    if source != "training" or not name:
        raise UserError(f"choose.by={by}: chooses by a number of the training (training/...)")
    return name


def best(alternatives: Sequence[Alternative], name: str, store: Store) -> Alternative | None:
    """The alternative whose trainings have the largest mean `name` over the units, the first of
    several; one with a training that diverged loses to any without. None before all are done."""
    means = []
    for alternative in alternatives:
        records = [store.get(_training_id(node)) for node in alternative.nodes.values()]
        numbers = [number_of(record, name) for record in records if record is not None]
        if len(numbers) < len(records):
            return None
        mean = statistics.fmean(numbers)
        means.append(-math.inf if math.isnan(mean) else mean)
    return alternatives[means.index(max(means))]


def _training_id(node: Node) -> str:
    return node.training.id if isinstance(node, Evaluation) else node.id


def describe(by: str, chosen: Sequence[tuple[str, Alternative]], unit: str) -> list[str]:
    """What was chosen for which cells (a label and its alternative), in a line."""
    if not chosen:
        return []
    cells: dict[str, dict[str, None]] = {}
    for label, alternative in chosen:
        cells.setdefault(str(alternative), {})[label] = None
    each = [f"{setting} for {', '.join(labels)}" for setting, labels in cells.items()]
    if len(cells) == 1:
        each = [f"{next(iter(cells))} for all"]
    return [f"Chosen by the largest mean of {by} over the {unit}s: {'; '.join(each)}."]
