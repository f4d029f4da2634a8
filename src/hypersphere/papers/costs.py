"""What runs should take, by the records of runs of the same kind."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hypersphere.config import Node, Training
from hypersphere.data.facts import DATASETS
from hypersphere.papers.planned import training_of
from hypersphere.store import Store


def to_do(node: Node, store: Store) -> Iterator[Node]:
    """What has to be worked out for the record of `node`: itself, unless it is there, and what it
    rests on. A training of which the record alone is here is trained again for what rests on it."""
    done, found = store.get(node.id) is not None, node
    while not done:
        yield found
        parent = found.base if isinstance(found, Training) else training_of(found)
        if parent is None:
            return
        done, found = store.has_files(parent.id), parent


def trained_again(nodes: Iterable[Node], store: Store) -> list[Node]:
    """Those trainings of which the record is here, but not the weights that `nodes` rest on."""
    every = {found.id: found for node in nodes for found in to_do(node, store)}
    return [node for node in every.values() if store.get(node.id) is not None]


def expected_seconds(nodes: Iterable[Node], store: Store) -> tuple[float, int]:
    """Seconds of one thread that `nodes` should take by past records, and how many nodes have no
    past record to judge by (they count as the mean of the others)."""
    each = [seconds for seconds in seconds_of(nodes, store).values() if seconds is not None]
    known = [seconds for seconds in each if not math.isnan(seconds)]
    unknown = len(each) - len(known)
    mean = statistics.fmean(known) if known else math.nan
    return (sum(known) + unknown * mean if unknown else sum(known)), unknown


def seconds_of(nodes: Iterable[Node], store: Store) -> dict[str, float | None]:
    """By node id, the seconds of one thread by past records of the same data, network (of any
    dimension of the embedding, which hardly matters) and precision: nan without any, None of
    evaluations and computations, cheap beside a training."""
    rates: dict[Any, list[float]] = {}
    for record in store.records.values():
        if key := _cost_key(record["identity"]):
            rates.setdefault(key, []).append(record["seconds"] / _cost(record["identity"]))
    medians = {key: statistics.median(found) for key, found in rates.items()}
    seconds: dict[str, float | None] = {}
    for node in nodes:
        identity = node.identity()
        key = _cost_key(identity)
        cost = None if key is None else medians.get(key, math.nan) * _cost(identity)
        seconds[node.id] = cost
    return seconds


def _cost_key(identity: Mapping[str, Any]) -> str | None:
    if identity["kind"] != "training" or identity["data"]["name"] not in DATASETS:
        return None  # cheap, or of somebody's own data that is not here
    backbone = {name: value for name, value in identity["backbone"].items() if name != "dim"}
    return json.dumps([identity["data"], backbone, identity["precision"]], sort_keys=True)


def _cost(identity: Mapping[str, Any]) -> float:
    """Trained images, as far as the identity tells: epochs x share of classes trained on."""
    classes = DATASETS[identity["data"]["name"]].num_classes
    seen = classes - identity["split"].get("num_unseen", 0)
    return identity["schedule"]["epochs"] * seen / classes
