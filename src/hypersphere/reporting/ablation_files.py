"""Write why a cell differs as CSV (tidy) and Markdown (readable)."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from hypersphere.files import write_text
from hypersphere.reporting.ablation import OUTCOMES, Ablation, Effect, findings, ranked, tries
from hypersphere.reporting.layout import (
    LEGEND,
    MARKS,
    number_text,
    ours_text,
    published_text,
    quick_banner,
)
from hypersphere.reporting.tables import markdown, pipe_row

FOLDER = "ablations"  # of a preset's results
COLUMNS = (
    "factor", "setting", "differs", "published", "published_std", "ours", "ours_std", "n", "unit",
    "difference", "low", "high", "margin", "protocol", "verdict", "paired_n", "change",
    "change_low", "change_high", "gap", "left", "closed", "outcome", "run_ids",
)  # fmt: skip
HEADER = ("factor", "setting", "ours", "difference", "change", "90 % interval", "closed", "outcome")
DIAGNOSIS = (
    "A diagnosis: these are test numbers, so they choose nothing. The table keeps its declared"
    " setting, whatever closes the gap here."
)


def title(ablation: Ablation) -> str:
    """`nsl table4: why k_unseen = 5, class_group = seen, method = nsl differs`."""
    return f"{ablation.item.paper} {ablation.item.name}: why {ablation.label} differs"


def rows(ablation: Ablation) -> list[tuple[str, ...]]:
    """One row for each setting under `HEADER`, in the order of `ranked`. difference: ours minus
    published, over the setting's own units; change and what follows: over those of both."""
    found = []
    for factor, effects in ranked(ablation.effects):
        for each in effects:
            found.append((factor, each.setting, *_numbers(ablation, each), each.outcome))
    return found


def _numbers(ablation: Ablation, each: Effect) -> tuple[str, ...]:
    digits = ablation.digits

    def signed(value: float | None, more: int = 0) -> str:
        return "" if value is None else f"{value:+.{digits + more}f}"

    ours = ours_text(ablation.item, each.cell, each.judged, digits)
    mark = MARKS[each.judged.verdict] if ablation.printed is not None else ""
    bounds = "" if each.low is None else f"{signed(each.low, 1)} .. {signed(each.high, 1)}"
    if each.outcome == "declared":
        return f"{ours} {mark}".rstrip(), signed(each.judged.difference), "", "", ""
    closed = "" if each.closed is None else f"{100 * each.closed:.0f} %"
    return (
        f"{ours} {mark}".rstrip(),
        signed(each.judged.difference),
        signed(each.change),
        bounds,
        closed,
    )


def heading(ablation: Ablation) -> str:
    """`published 0.878; ours as declared 0.231 ± 0.081 (3), difference -0.647`."""
    item, declared, digits = ablation.item, ablation.declared, ablation.digits
    said = f"ours as declared {ours_text(item, item.cells[0], declared, digits)}"
    if declared.difference is not None:
        said += f", difference {declared.difference:+.{digits}f}"
    return f"published {published_text(declared)}; {said}" if item.printed else said


def notes(ablation: Ablation) -> list[str]:
    """How to read it, and what it is not."""
    item, tried = ablation.item, tries(ablation)
    met = {each.outcome for each in ablation.effects}
    said = [
        "Settings are tried one at a time, from the declared configuration. Change: with the"
        f" setting minus as declared, on the {item.unit}s that both have; closed: the share of the"
        " gap that this makes up for, 100 % all of it.",
        "Outcomes: "
        + "; ".join(f"{name}, {text}" for name, text in OUTCOMES.items() if name in met)
        + ".",
        DIAGNOSIS,
    ]
    if tried > 1:
        said.append(
            f"{tried} settings were tried on one cell: some come near by chance. A factor that"
            " explains the gap closes it in the other cells of its runs too."
        )
    if ablation.printed is not None:
        said.append("Marks: " + ", ".join(f"{mark} {verdict}" for mark, verdict in LEGEND) + ".")
    return [*said, *item.notes]


def csv_text(ablation: Ablation) -> str:
    """The tidy table: the cell's key columns, then `COLUMNS`. low and high are of the difference to
    the published number; gap and left (of it) are over the `paired_n` units that the setting and
    the declared one share."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*ablation.item.key_columns, *COLUMNS])
    for _, effects in ranked(ablation.effects):
        for each in effects:
            row = each.judged
            writer.writerow(
                [
                    *each.cell.keys.values(),
                    each.factor,
                    each.setting,
                    each.says,
                    row.published,
                    row.published_std,
                    number_text(row.ours),
                    number_text(row.ours_std),
                    row.n,
                    ablation.item.unit,
                    *map(number_text, (row.difference, row.low, row.high, row.margin)),
                    row.protocol,
                    row.verdict,
                    each.n,
                    *map(number_text, (each.change, each.low, each.high, each.gap, each.rest)),
                    number_text(each.closed),
                    each.outcome,
                    " ".join(row.run_ids),
                ]
            )
    return out.getvalue()


def markdown_text(ablation: Ablation) -> str:
    """What closes the gap, the table of settings, what the paper leaves open, how to read it."""
    lines = [f"# {markdown(title(ablation))}", ""]
    if banner := quick_banner(ablation.item):
        lines += [f"> **{banner}**", ""]
    lines += [f"{markdown(ablation.item.title)}; {markdown(heading(ablation))}.", ""]
    lines += [f"- {markdown(line)}" for line in findings(ablation)]
    lines += ["", pipe_row(HEADER), "|" + " --- |" * len(HEADER)]
    lines += [pipe_row(row) for row in rows(ablation)]
    lines += ["", "## What is in question", ""]
    for factor, effects in ranked(ablation.effects):
        lines.append(f"- **{markdown(factor)}**: {markdown(ablation.why[factor])}")
        lines += [f"  - {markdown(e.setting)}: {markdown(e.says)}" for e in effects if e.says]
    lines += ["", "## How to read it", ""]
    lines += [f"- {markdown(line)}" for line in notes(ablation)]
    return "\n".join(lines) + "\n"


def write(ablation: Ablation, folder: Path) -> Path:
    """Write `<paper>/<item>--<cell>.csv` and `.md` below `folder`, each whole or not at all; the
    same numbers give the same bytes. Returns the Markdown's path."""
    path = Path(folder) / ablation.item.paper / f"{ablation.stem}.md"
    write_text(path.with_name(f"{ablation.stem}.csv"), csv_text(ablation))
    write_text(path, markdown_text(ablation))
    return path
