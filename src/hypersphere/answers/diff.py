"""How two runs, two cells or two stores differ: configuration, code, machine, numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from hypersphere.answers.explain import aligned, explained, flat, split_values
from hypersphere.answers.places import Found, find, only, parse
from hypersphere.errors import UserError
from hypersphere.reporting.layout import number_text
from hypersphere.reporting.verdicts import common_units, interval, paired
from hypersphere.store import Store
from hypersphere.store.agreement import disagreement, numbers_of
from hypersphere.store.merge import records_under
from hypersphere.store.records import Record

_ID = re.compile(r"[0-9a-f]{4,12}")
_ORIGIN = ("git", "versions", "hardware")
_SHOWN = 20  # lines of a long list


def difference(one: str, other: str, preset: str, store: Store) -> dict[str, Any]:
    """How `one` and `other` differ: two run ids (or unambiguous beginnings), two cells
    (places.parse), or two folders of runs or results. `kind` says which; see the functions below.

    Raises UserError for what is not there, and for two of different kinds.
    """
    sides = [_side(text, preset, store) for text in (one, other)]
    kinds = [kind for kind, _ in sides]
    if len(set(kinds)) > 1:
        raise UserError(f"{one} is a {kinds[0]}, {other} a {kinds[1]}: compare two of a kind")
    (kind, a), (_, b) = sides
    made = {"run": _runs, "cell": _cells, "folder": _folders}[kind]
    return {"kind": kind, "one": one, "other": other, **made(a, b, store)}


def _side(text: str, preset: str, store: Store) -> tuple[str, Any]:
    if _ID.fullmatch(text):
        return "run", run_named(text, store)
    path = Path(text).expanduser()
    # `nsl/table2` may also be a folder; a cell is what people mean unless it holds records
    if path.is_dir():
        return "folder", records_under(path)
    key, name, words, preset = parse(text, preset)
    return "cell", only(find(key, name, words, preset, "", store), text)


def run_named(text: str, store: Store) -> Record:
    """The record of the run whose id begins with `text`. Raises UserError for none or several."""
    named = store.beginning(text)
    if not named:
        raise UserError(f"run {text}: no finished run of that id here (hypersphere status)")
    if len(named) > 1:
        some = ", ".join(record["run_id"] for record in named[:5])
        raise UserError(f"run {text}: {len(named)} runs begin so ({some} ...)")
    return named[0]


def _runs(one: Record, other: Record, store: Store) -> dict[str, Any]:
    """config, origin: [key, one, other] of what differs; numbers: name -> [one, other]."""
    identities = [_judged_run(record, store) for record in (one, other)]
    numbers = [numbers_of(record) for record in (one, other)]
    names = list(dict.fromkeys([*numbers[0], *numbers[1]]))
    return {
        "runs": [one["run_id"], other["run_id"]],
        "config": _differing(*identities),
        "origin": _differing(*(flat({k: r.get(k) or {} for k in _ORIGIN}) for r in (one, other))),
        "numbers": {name: [numbers[0].get(name), numbers[1].get(name)] for name in names},
    }


def _judged_run(record: Record, store: Store) -> dict[str, str]:
    """What a record is of; for one that judges a training, that training as well."""
    found = flat(record["identity"])
    parent = store.get(record["parent"]) if record["parent"] else None
    if record["kind"] == "evaluation" and parent is not None:
        found |= flat({"parent": parent["identity"]})
    return found


def _cells(one: Found, other: Found, store: Store) -> dict[str, Any]:
    """cells: how each stands; pairs: unit -> [one, other] of the units that both have; mean, low,
    high: of one - other over them (90 % t-interval); greater: whether one > other is `supported`,
    `contradicted` or `open`; config, origin: as of runs, between their first ones."""
    units = common_units(one.cell.values, other.cell.values)
    pairs = {u: [one.cell.values[u], other.cell.values[u]] for u in units}
    differences = [a - b for a, b in pairs.values()]
    bounds = interval(differences)
    told = [explained(each, store) for each in (one, other)]
    first = [each["runs"][0] if each["runs"] else None for each in told]
    found: dict[str, Any] = {
        "cells": [
            {k: each[k] for k in ("paper", "item", "preset", "keys", "published", "ours",
                                  "ours_std", "n", "unit", "protocol", "verdict")}
            for each in told
        ],
        "pairs": pairs,
        "mean": fmean(differences) if differences else None,
        "low": bounds and bounds[0],
        "high": bounds and bounds[1],
        "greater": paired(one.cell.values, other.cell.values),
        "config": [],
        "origin": [],
    }  # fmt: skip
    if all(first):
        identities = ({"number": run["number"], **flat(run["identity"])} for run in first)
        found["config"] = _differing(*identities)
        origins = (flat({k: run.get(k) or {} for k in _ORIGIN}) for run in first)
        found["origin"] = _differing(*origins)
    return found


def _folders(
    one: tuple[dict[str, Record], list[str]], other: tuple[dict[str, Record], list[str]], _: Store
) -> dict[str, Any]:
    """only_one, only_other: run ids; equal: how many runs have the same numbers bit for bit; close:
    within what other versions and machines may differ by; apart: a line for each that is not."""
    (a, unread_a), (b, unread_b) = one, other
    equal, close, apart = 0, [], []
    for run_id in sorted(a.keys() & b.keys()):
        if numbers_of(a[run_id]) == numbers_of(b[run_id]):
            equal += 1
        elif why := disagreement(a[run_id], b[run_id]):
            apart.append(f"run {run_id}: {why.said('in the one', 'in the other')}")
        else:
            close.append(run_id)
    return {
        "only_one": sorted(a.keys() - b.keys()),
        "only_other": sorted(b.keys() - a.keys()),
        "equal": equal,
        "close": close,
        "apart": apart,
        "unreadable": [*unread_a, *unread_b],
    }


def _differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[list[str]]:
    return [[key, *values] for key, values in split_values([one, other])[1].items()]


def text(found: Mapping[str, Any]) -> str:
    """`difference` for a person to read."""
    return {"run": _runs_text, "cell": _cells_text, "folder": _folders_text}[found["kind"]](found)


def _runs_text(found: Mapping[str, Any]) -> str:
    lines = _tables(found)
    rows = [("number", *found["runs"], "difference")]
    for name, (a, b) in found["numbers"].items():
        if a == b:
            continue
        change = number_text(b - a) if a is not None and b is not None else ""
        rows.append((name, number_text(a), number_text(b), change))
    same = len(found["numbers"]) - len(rows) + 1
    lines.append(aligned(rows) if rows[1:] else "all numbers are equal, bit for bit")
    if rows[1:] and same:
        lines.append(f"{same} more numbers are equal")
    return "\n".join(lines)


def _cells_text(found: Mapping[str, Any]) -> str:
    keys = [each["keys"] for each in found["cells"]]
    rows = [("cell", "published", "ours", "n", "protocol", "verdict")]
    for each in found["cells"]:
        differing = [
            f"{k}={v}" for k, v in each["keys"].items() if any(x.get(k) != v for x in keys)
        ]
        name = f"{each['preset']}:{each['paper']}/{each['item']} {' '.join(differing)}".rstrip()
        rows.append(
            (name, each["published"], number_text(each["ours"]), str(each["n"]), each["protocol"],
             each["verdict"])
        )  # fmt: skip
    lines = [aligned(rows)]
    if found["pairs"]:
        unit = found["cells"][0]["unit"]
        pairs = [
            (f"{unit} {u}", number_text(a), number_text(b), number_text(a - b))
            for u, (a, b) in found["pairs"].items()
        ]
        lines.append(aligned([("", "one", "other", "one - other"), *pairs]))
        bounds = ""
        if found["low"] is not None:
            bounds = f" ({found['low']:+.4g} .. {found['high']:+.4g}, 90 %)"
        lines.append(
            f"mean difference {found['mean']:+.4g}{bounds}; one > other: {found['greater']}"
        )
    else:
        lines.append("no unit that both have")
    return "\n".join([*lines, *_tables(found)])


def _folders_text(found: Mapping[str, Any]) -> str:
    lines = [f"{found['equal']} runs equal bit for bit, {len(found['close'])} within tolerance"]
    for side, name in (("only_one", "one"), ("only_other", "other")):
        if ids := found[side]:
            lines.append(f"{len(ids)} only in {found[name]}: {_some(ids)}")
    lines += found["apart"][:_SHOWN]
    if more := len(found["apart"]) - _SHOWN:
        lines += [f"and {more} more that differ"] if more > 0 else []
    return "\n".join([*lines, *found["unreadable"][:_SHOWN]])


def _tables(found: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, said in (("config", "configuration"), ("origin", "code, versions and machine")):
        rows = [tuple(row) for row in found[name]]
        lines.append(aligned([(said, "one", "other"), *rows]) if rows else f"same {said}")
    return lines


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:5]) + (" ..." if len(ids) > 5 else "")
