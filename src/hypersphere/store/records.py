"""Records: one JSON object per finished run, raw floats, written whole or not at all."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hypersphere.files import write_text
from hypersphere.provenance import SCHEMA

Record = dict[str, Any]

_NOT_FINITE = ("NaN", "Infinity", "-Infinity")


def encode(record: Record) -> str:
    """One line of JSON with sorted keys; NaN and infinities become strings, as JSON has none."""
    return json.dumps(_plain(record), sort_keys=True, separators=(",", ":"), allow_nan=False)


def decode(text: str) -> Record:
    """What `encode` wrote. Raises ValueError for anything that is not a record of ours."""
    record = json.loads(text)
    keys = {"schema": int, "run_id": str, "kind": str}
    if not isinstance(record, dict) or any(
        not isinstance(record.get(key), kind) for key, kind in keys.items()
    ):
        raise ValueError("not a record (needs schema, run_id and kind)")
    if record["schema"] > SCHEMA:
        raise ValueError(f"written by a newer hypersphere (schema {record['schema']} > {SCHEMA})")
    # Most records have no such number, and going through all of a curve takes longer than reading.
    return _numbers(record) if any(f'"{word}"' in text for word in _NOT_FINITE) else record


def read_lines(path: Path) -> tuple[dict[str, Record], list[str]]:
    """Records of a `records.jsonl` by run id, and one complaint per line that is not a record.

    A missing file is an empty one. A line that cannot be read costs that line only.
    """
    records: dict[str, Record] = {}
    complaints: list[str] = []
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            record = decode(line)
        except ValueError as error:
            complaints.append(f"{path}:{number}: {error}; the line is left out")
            continue
        records[record["run_id"]] = record
    return records, complaints


def write_lines(path: Path, records: Iterable[Record]) -> None:
    """Write `records` sorted by run id. Lines that `path` holds and that are no records of ours
    (truncated, foreign, newer) are kept beside it in `<name>.rejected`, never thrown away."""
    rejected = _unreadable(path)
    if rejected:
        beside = path.with_suffix(".rejected")
        known = [line for line in _lines(beside) if line]
        write_text(beside, "".join(f"{x}\n" for x in dict.fromkeys([*known, *rejected])))
    lines = sorted((r["run_id"], encode(r)) for r in records)
    write_text(path, "".join(f"{line}\n" for _, line in lines))


def _lines(path: Path) -> list[str]:
    """Lines of a file that may hold anything: bytes that are no text spoil their line only."""
    if not path.exists():
        return []
    return path.read_text(encoding="utf-8", errors="surrogateescape").split("\n")


def _unreadable(path: Path) -> list[str]:
    lines = []
    for line in _lines(path):
        try:
            if line.strip():
                decode(line)
        except ValueError:
            lines.append(line)
    return lines


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    return value


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _numbers(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_numbers(v) for v in value]
    if value in _NOT_FINITE:
        return float(value)
    return value
