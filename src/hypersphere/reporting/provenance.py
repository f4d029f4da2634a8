"""What the page tells of the runs behind a cell; each run stands in it once."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hypersphere.reporting.cells import Cell, Item
from hypersphere.reporting.layout import fixed_names, number_text
from hypersphere.store.records import Record


class Provenance:
    """Collects what `page.js` shows on a click: `runs` by id, and a table's cells by its id.

    `records`: the finished runs by id. `commands`: for a run, the command that works it out again,
    where it is known. Values that many runs share (versions, hardware, data, the parts of a
    configuration) are numbered and stand once, in `parts`.
    """

    def __init__(self, records: Mapping[str, Record], commands: Mapping[str, str]) -> None:
        self.records, self.commands = records, commands
        self.runs: dict[str, dict[str, Any]] = {}
        self.tables: dict[str, dict[str, Any]] = {}
        self.parts: list[Any] = []
        self._numbers: dict[str, int] = {}

    def add(self, name: str, item: Item) -> None:
        """Take in the cells of a table and every run that they rest on."""
        cells = [self._cell(item, cell) for cell in item.cells]
        used = {run_id for cell in cells for run_id in cell["runs"]}
        self.tables[name] = {
            "unit": item.unit,
            "commands": cell_commands(item),
            "varies": varying(self.records[run_id] for run_id in sorted(used & {*self.records})),
            "cells": cells,
        }

    def data(self) -> dict[str, Any]:
        """For the page, as JSON."""
        runs = {run_id: self.runs[run_id] for run_id in sorted(self.runs)}
        return {"parts": self.parts, "runs": runs, "tables": self.tables}

    def _cell(self, item: Item, cell: Cell) -> dict[str, Any]:
        found: dict[str, None] = {}
        for run_id in (*cell.records.values(), *cell.run_ids):
            for each in self._with_parents(run_id):
                found[each] = None
        for run_id in found:
            self._run(run_id)
        # what was trained comes before what judges it
        judging = [each for each in found if self.runs.get(each, {}).get("kind") == "evaluation"]
        return {
            "values": [
                [unit, number_text(value), cell.records.get(unit, "")]
                for unit, value in cell.values.items()
            ],
            "runs": [*(each for each in found if each not in judging), *judging],
        }

    def _with_parents(self, run_id: str) -> Iterable[str]:
        """The run, the training that it judges, and the one that this starts from."""
        while run_id:
            yield run_id
            run_id = self.records.get(run_id, {}).get("parent") or ""

    def _run(self, run_id: str) -> None:
        if run_id in self.runs or (record := self.records.get(run_id)) is None:
            return  # the page says that there is no record of it
        git = record.get("git", {})
        told = {
            "kind": record["kind"],
            "parent": record.get("parent"),
            "commit": git.get("commit"),
            "dirty": git.get("dirty"),
            "seconds": record.get("seconds"),
            "finished": record.get("finished"),
            "diverged": record.get("diverged"),
            "command": self.commands.get(run_id),
        }
        self.runs[run_id] = {
            key: value for key, value in told.items() if value not in (None, False)
        }
        for key in ("data", "hardware", "versions"):
            if record.get(key):
                self.runs[run_id][key] = self._number(record[key])
        config = {key: self._number(value) for key, value in configuration(record).items()}
        self.runs[run_id]["config"] = config

    def _number(self, value: Any) -> int:
        """The place of a value in `parts`."""
        text = json.dumps(value, sort_keys=True)
        if text not in self._numbers:
            self._numbers[text] = len(self.parts)
            self.parts.append(value)
        return self._numbers[text]


def cell_commands(item: Item) -> list[str]:
    """What to type to work a cell out again, and to hear how it comes about; `{keys}` stands for
    the key columns that the table shows."""
    fixed = [shlex.quote(f"{key}={item.cells[0].keys[key]}") for key in fixed_names(item)]
    explain = ["hypersphere explain", item.paper, item.name, "{keys}", *fixed]
    return [
        f"make reproduce-tables PRESET={item.preset} PAPER={item.paper} ITEM={item.name}",
        " ".join([*explain, "--preset", item.preset]),
    ]


def configuration(record: Record) -> dict[str, Any]:
    """The resolved configuration of a training; of other runs, what they work out."""
    identity = record.get("identity", {})
    return record.get("config") or identity.get(record["kind"]) or identity


def varying(records: Iterable[Record]) -> list[str]:
    """Dotted names of the settings in which runs of one kind differ, a missing one included."""
    by_kind: dict[str, list[dict[str, str]]] = {}
    for record in records:
        flat = {key: json.dumps(value) for key, value in flattened(configuration(record)).items()}
        by_kind.setdefault(record["kind"], []).append(flat)
    found: dict[str, None] = {}
    for runs in by_kind.values():
        names = {name for run in runs for name in run if not name.endswith("_target_")}
        for name in sorted(names, key=_telling):
            if len({run.get(name) for run in runs}) > 1:
                found[name] = None
    return list(found)


def _telling(name: str) -> tuple[bool, bool, str]:
    """Sorts what tells most first: the seed, then what a part is called, then its settings."""
    return name != "seed", not name.endswith(".name"), name


def flattened(value: Mapping[str, Any], before: Sequence[str] = ()) -> dict[str, Any]:
    """`{"head": {"name": "nsl"}}` as `{"head.name": "nsl"}`; lists stay whole."""
    found: dict[str, Any] = {}
    for key, each in value.items():
        path = (*before, str(key))
        found |= flattened(each, path) if isinstance(each, Mapping) else {".".join(path): each}
    return found
