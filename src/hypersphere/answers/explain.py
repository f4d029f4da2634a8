"""Where a number comes from: cell -> runs -> configuration -> data -> code -> command."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hypersphere.answers.places import Found
from hypersphere.config import Evaluation, Node, Training
from hypersphere.config.training import COMPONENTS
from hypersphere.papers.commands import commands
from hypersphere.papers.factors import concerning, factors
from hypersphere.papers.planned import PlannedCell, blocked
from hypersphere.reporting.layout import number_text, ours_text, places, published_text
from hypersphere.reporting.provenance import flattened
from hypersphere.store import Store
from hypersphere.store.records import Record


def explained(found: Found, store: Store) -> dict[str, Any]:
    """All that is known of a cell: its numbers, their verdict, and `runs`, one for each unit (see
    `_run`)."""
    judged, item = found.judged, found.item
    return {
        "paper": item.paper,
        "item": item.stem,
        "preset": item.preset,
        "title": item.title,
        "keys": found.cell.keys,
        "what": item.metric_label,
        "published": judged.published,
        "published_std": judged.published_std,
        "ours": judged.ours,
        "ours_std": judged.ours_std,
        "n": judged.n,
        "planned": found.cell.planned,
        "unit": item.unit,
        "difference": judged.difference,
        "low": judged.low,
        "high": judged.high,
        "margin": judged.margin,
        "protocol": judged.protocol,
        "verdict": judged.verdict,
        "notes": list(item.notes),
        "blocked": blocked(found.planned_item) if not found.cell.complete else None,
        "ablate": _ablate(found),
        "runs": [
            _run(found, of, metric, unit, node, store)
            for of, metric, unit, node in _nodes(found.planned, "")
        ],
    }


def _nodes(cell: PlannedCell, of: str) -> Iterator[tuple[str, str, str, Node]]:
    """Of each number behind a cell: the other cell that it belongs to ("" its own), its name, its
    unit and the node that holds it."""
    settings = cell.alternatives.get("")
    for each in settings or [None]:
        told = f"{of}, with {each}" if each and of else f"with {each}" if each else of
        for unit, node in (each.nodes if each else cell.nodes).items():
            yield told, cell.metrics[""], unit, node
    for source in cell.sources:
        for inner in source.cells:
            keys = ", ".join(f"{name} = {value}" for name, value in inner.keys.items())
            yield from _nodes(inner, f"{source.spec.name}: {keys}")


def _run(found: Found, of: str, metric: str, unit: str, node: Node, store: Store) -> dict[str, Any]:
    """of: the cell of another table that it belongs to, or the setting, "" for the cell's own. unit
    and value, or values by draw. number: its name in the record `record`, which is of kind `kind`.
    run_id: the training behind it. state: done, running, queued, ... seconds, code, versions and
    hardware are those of the training. commands: what makes it again."""
    training = node.training if isinstance(node, Evaluation) else node
    record, trained = store.get(node.id), store.get(training.id)
    told = trained or record
    run: dict[str, Any] = {
        "of": of,
        "unit": unit,
        "values": {} if of else _values(found.cell.values, unit),
        "number": metric,
        "record": node.id,
        "kind": node.identity()["kind"],
        "run_id": training.id,
        "starts_from": training.parent if isinstance(training, Training) else None,
        "state": str(store.state(node.id)),
        "commands": commands(
            node, found.item.preset, found.item.paper, found.planned_item.spec.name
        ),
        "identity": training.identity(),
    }
    if told is not None:
        run |= {key: told[key] for key in ("git", "versions", "hardware", "finished", "seconds")}
        run |= {"files": told.get("files", {}), "config": _config(training, trained)}
        folder = store.folder(training.id)
        run["folder"] = str(folder) if (folder / "model.safetensors").exists() else None
    return run


def _config(training: Node, record: Record | None) -> dict[str, Any] | None:
    if record is not None and "config" in record:
        return record["config"]
    return training.raw if isinstance(training, Training) else None


def _values(values: Mapping[str, float], unit: str) -> dict[str, float]:
    return {k: v for k, v in values.items() if k == unit or k.startswith(f"{unit}/")}


def text(found: Found, told: Mapping[str, Any]) -> str:
    """`explained` for a person to read."""
    lines = [f"{found.name}: {', '.join(f'{k} = {v}' for k, v in told['keys'].items())}"]
    lines += _numbers(found, told) + [""] + _runs(told)
    done = [run for run in told["runs"] if "git" in run]
    if done:
        lines += [""] + _shared(done)
    lines += ["", "made again by:"] + _again(told["runs"])
    if told["ablate"]:
        lines += ["why it differs, by what the paper leaves open:", f"  {told['ablate']}"]
    return "\n".join(lines)


def _ablate(found: Found) -> str | None:
    """The command that finds out why the cell differs, where something is declared for it."""
    declared, item, keys = found.planned_item.paper, found.item, found.cell.keys
    if not concerning(declared, factors(declared), item.name, keys) or not item.printed:
        return None
    cells = [cell.keys for cell in item.cells]
    named = [f"{k}={v}" for k, v in keys.items() if len({each[k] for each in cells}) > 1]
    words = ["hypersphere", "ablate", item.paper, item.name, *named, "--preset", item.preset]
    return shlex.join(words)


def brief(found: Sequence[Found]) -> str:
    """One line per cell, to choose from, under what all of them have in common."""
    item = found[0].item
    keys = [each.cell.keys for each in found]
    same = [name for name in item.key_columns if len({each[name] for each in keys}) == 1]
    named = [name for name in item.key_columns if name not in same]
    rows = [(*named, "published", "ours", "verdict")]
    for each in found:
        digits = places(each.item, each.cell)
        rows.append(
            (
                *(each.cell.keys[name] for name in named),
                published_text(each.judged) if each.item.printed else "",
                ours_text(each.item, each.cell, each.judged, digits),
                each.judged.verdict,
            )
        )
    shared = ", ".join(f"{name} = {keys[0][name]}" for name in same)
    words = " ".join(shlex.quote(keys[0][name]) for name in named)
    return "\n".join(
        [
            f"{found[0].name}: {item.title}{f' ({shared})' if shared else ''}",
            aligned(rows),
            f"one of them: hypersphere explain {item.paper} {item.name} {words}"
            f"{f' --variant {item.variant}' if item.variant else ''} --preset {item.preset}",
        ]
    )


def _numbers(found: Found, told: Mapping[str, Any]) -> list[str]:
    item, judged = found.item, found.judged
    digits = places(item, found.cell)
    lines = [f"  {'published':<11} {published_text(judged)}"] if item.printed else []
    lines.append(
        f"  {'ours':<11} {ours_text(item, found.cell, judged, digits)}"
        f" ({item.metric_label}; n counts {item.unit}s)"
    )
    if judged.difference is not None:
        bounds = ""
        if judged.low is not None and judged.high is not None:
            low, high = (f"{value:+.{digits + 1}f}" for value in (judged.low, judged.high))
            bounds = f", 90 % interval {low} .. {high}"
        margin = number_text(judged.margin)
        lines.append(
            f"  {'difference':<11} {judged.difference:+.{digits}f}{bounds}, margin ± {margin}"
        )
    lines.append(f"  {'verdict':<11} {judged.verdict} (protocol: {judged.protocol})")
    lines += [f"  {'note' if not i else '':<11} {note}" for i, note in enumerate(told["notes"])]
    if told["blocked"]:
        lines.append(f"  {'missing':<11} {told['blocked']}")
    return lines


def _runs(told: Mapping[str, Any]) -> list[str]:
    names = {run["number"] for run in told["runs"]}
    rows = [(told["unit"], "value", "run", "judged by", "finished", "seconds", "commit")]
    group, lines = "", []
    for run in told["runs"]:
        if run["of"] != group:
            group = run["of"]
            rows.append((group, *[""] * 6))
        values = [number_text(value) for value in run["values"].values()]
        commit = (run.get("git") or {}).get("commit") or ""
        dirty = "+changes" if (run.get("git") or {}).get("dirty") else ""
        rows.append(
            (
                run["unit"],
                ", ".join(values) or ("-" if run["state"] == "done" else run["state"]),
                run["run_id"],
                run["record"] if run["record"] != run["run_id"] else "",
                run.get("finished", ""),
                str(run.get("seconds", "")),
                commit[:9] + dirty,
            )
        )
    if len(names) == 1 and names != {""}:
        lines.append(f"number {names.pop()!r} of these records:")
    return lines + [aligned(rows)]


def _shared(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the runs have in common, and what not."""
    lines = []
    identities = [flat(run["identity"]) for run in runs]
    same, other = split_values(identities)
    for group in ("data", *COMPONENTS):
        if inside := {k.partition(".")[2]: v for k, v in same.items() if k.startswith(f"{group}.")}:
            name = inside.pop("name", "")
            inside.pop("revision", None)
            params = ", ".join(f"{k}={v}" for k, v in inside.items())
            lines.append(f"{group:<10} {name} {f'({params})' if params else ''}".rstrip())
    rest = {k: v for k, v in same.items() if "." not in k and k != "kind"}
    if rest:
        lines.append(f"{'beside':<10} {', '.join(f'{k}={v}' for k, v in rest.items())}")
    for key, values in other.items():
        lines.append(f"{'varies':<10} {key}: {', '.join(values)}")
    for what in ("versions", "hardware"):
        for told in dict.fromkeys(_line(run[what]) for run in runs):
            lines.append(f"{what:<10} {told}")
    here = [run["folder"] for run in runs if run.get("folder")]
    if len(here) == 1:
        lines.append(f"{'files':<10} {here[0]}")
    elif here:
        lines.append(f"{'files':<10} {here[0]} and {len(here) - 1} more")
    else:
        lines.append(f"{'files':<10} not here: records travel without weights")
    return lines


def _again(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    return ["  " + line for line in dict.fromkeys(c for run in runs for c in run["commands"])]


def split_values(each: Sequence[Mapping[str, str]]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Of several tables: what is the same in all, and what is not (`-` where one has no such)."""
    keys = list(dict.fromkeys(key for one in each for key in one))
    same, other = {}, {}
    for key in keys:
        values = [one.get(key, "-") for one in each]
        if len(set(values)) == 1:
            same[key] = values[0]
        else:
            other[key] = values
    return same, other


def flat(value: Mapping[str, Any]) -> dict[str, str]:
    """Nested tables as dotted keys -> texts."""
    return {key: str(inner) for key, inner in flattened(value).items()}


def _line(told: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in told.items())


def aligned(rows: Sequence[tuple[str, ...]]) -> str:
    """Columns of texts; a row that has its first text alone is no column."""
    full = [row for row in rows if any(row[1:])]
    widths = [max(len(row[i]) for row in full) for i in range(len(full[0]))]
    return "\n".join(
        "  "
        + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
