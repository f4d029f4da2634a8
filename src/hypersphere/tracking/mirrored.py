"""What W&B is given of a run: its record and those that judge it, as W&B names things."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hypersphere.config import Evaluation, Node
from hypersphere.errors import UserError, did_you_mean
from hypersphere.papers.planned import Plan
from hypersphere.store import Store
from hypersphere.store.records import Record

TAG = 64  # characters of a tag, at most
PROVENANCE = ("git", "versions", "hardware", "finished", "seconds", "parent", "diverged")


@dataclass(frozen=True)
class Mirrored:
    """One run of W&B: a training (or what needs none) and everything that judges it.

    run_id: also its name. group: the paper; tags: `<paper>/<item>`, preset, dataset, head. history:
    one entry per epoch, which is its step. summary: final numbers as `<training or
    evaluation>/<name>`; of a number with several draws its mean, and all of them as
    `<...>/draws`. records: ids of the records that all this comes from.
    """

    run_id: str
    group: str
    tags: tuple[str, ...]
    kind: str
    config: Mapping[str, Any]
    history: tuple[Mapping[str, Any], ...]
    summary: Mapping[str, Any]
    records: tuple[str, ...]

    def digest(self) -> str:
        """Changes when anything of it changes, such as one more evaluation."""
        text = json.dumps(asdict(self), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def complete(plan: Plan, store: Store) -> Iterator[Mirrored]:
    """The finished runs of a plan, with those of their evaluations that are done."""
    for nodes in groups(plan.nodes.values()).values():
        if (found := planned(plan, store, nodes)) is not None:
            yield found


def groups(nodes: Iterable[Node]) -> dict[str, list[Node]]:
    """By id of the run in W&B those of `nodes` that go into it: a training and what judges it."""
    found: dict[str, list[Node]] = {}
    for node in nodes:
        found.setdefault(run_of(node), []).append(node)
    return found


def run_of(node: Node) -> str:
    """Id of the run in W&B that a node belongs to."""
    return node.training.id if isinstance(node, Evaluation) else node.id


def planned(plan: Plan, store: Store, nodes: Sequence[Node]) -> Mirrored | None:
    """One group of a plan's nodes as W&B is given it; None while its training is not done."""
    if (own := store.get(run_of(nodes[0]))) is None:
        return None
    users = dict.fromkeys(item for node in nodes for item in plan.users[node.id])
    words = sorted({f"{item.paper.key}/{item.spec.name}" for item in users})
    words += sorted({item.preset for item in users})
    found = (store.get(node.id) for node in nodes if node.id != own["run_id"])
    judges = [record for record in found if record is not None]
    return _mirrored(own, judges, sorted({item.paper.key for item in users})[0], words)


def named(store: Store, run_ids: Sequence[str]) -> Iterator[Mirrored]:
    """Finished trainings by their ids, with whatever judged them: of no paper.

    Raises UserError for an id without a record.
    """
    for run_id in run_ids:
        if (own := store.get(run_id)) is None:
            raise UserError(f"run {run_id}: no record of it{did_you_mean(run_id, store.records)}")
        if own["kind"] == "evaluation":
            raise UserError(f"run {run_id}: is an evaluation of run {own['parent']}; name that one")
        judges = [
            record
            for record in store.records.values()
            if record["kind"] == "evaluation" and record["parent"] == run_id
        ]
        yield _mirrored(own, sorted(judges, key=lambda record: record["run_id"]), "", [])


def _mirrored(own: Record, judges: Sequence[Record], group: str, words: list[str]) -> Mirrored:
    identity = own["identity"]
    words = words + ([own["data"]["name"], identity["head"]["name"]] if "data" in own else [])
    summary: dict[str, Any] = {}
    for record in (own, *judges):
        about = record["identity"].get(record["kind"])  # of a training there is nothing to name
        summary |= _summary(about["name"] if about else record["kind"], record)
    return Mirrored(
        run_id=own["run_id"],
        group=group,
        tags=tuple(word[:TAG] for word in dict.fromkeys(words)),
        kind=own["kind"],
        config={**own.get("config", identity), "provenance": _provenance(own)},
        history=tuple(_plain(entry) for entry in own.get("epochs", ())),
        summary=summary,
        records=tuple(record["run_id"] for record in (own, *judges)),
    )


def _summary(source: str, record: Record) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in record["metrics"].items():
        if isinstance(value, list):
            found[f"{source}/{name}"] = _mean(value)
            found[f"{source}/{name}/draws"] = [_number(each) for each in value]
        else:
            found[f"{source}/{name}"] = _number(value)
    return found


def _mean(values: Iterable[float]) -> float | str:
    return _number(statistics.fmean(values))


def _number(value: float) -> float | str:
    """W&B keeps JSON, which has no NaN and no infinity: they become texts, as in records."""
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)


def _plain(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _number(value) for name, value in entry.items()}


def _provenance(record: Record) -> dict[str, Any]:
    return {name: record[name] for name in (*PROVENANCE, "data") if record.get(name) is not None}
