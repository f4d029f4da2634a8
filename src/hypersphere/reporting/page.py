"""One self-contained page per preset: the board, every table with its single values, the claims,
and the runs behind each cell."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hypersphere.files import write_text
from hypersphere.reporting import ablation_files, strips
from hypersphere.reporting.ablation import Ablation, findings
from hypersphere.reporting.cells import Cell, Item
from hypersphere.reporting.embeddings import COLOURS, SEQUENCE
from hypersphere.reporting.layout import (
    fixed_keys,
    fixed_names,
    grids_beside,
    margin_text,
    number_text,
    ours_text,
    places,
    published_text,
    quick_banner,
    shown_counts,
)
from hypersphere.reporting.pictures import Picture, page_copy
from hypersphere.reporting.provenance import Provenance
from hypersphere.reporting.tables import heading
from hypersphere.reporting.verdicts import (
    CLAIM_VERDICTS,
    Judged,
    as_number,
    chance_note,
    judge_item,
)
from hypersphere.reporting.viewers import viewers
from hypersphere.store.records import Record


def page_html(
    preset: str,
    items: Sequence[Item],
    claims: Sequence[Mapping[str, str]],
    records: Mapping[str, Record],
    figures: Path | None = None,
    commands: Mapping[str, str] | None = None,
    ablations: Sequence[Ablation] = (),
) -> str:
    """The page's text. `claims` are rows of claims.csv, `records` the finished runs by id,
    `figures` holds <paper>/<item>.png, of which copies go into the page where they are, `commands`
    say by run id how to work a run out again, where that is known, `ablations` why cells differ."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    provenance = Provenance(records, commands or {})
    papers: dict[str, dict[str, Any]] = {}
    turnable = False
    for item in items:
        paper = papers.setdefault(item.paper, {"source": item.source, "items": [], "ablations": []})
        table = _table(item, figures)
        provenance.add(table["id"], item)
        turnable = turnable or bool(table["viewers"])
        if item.variant and paper["items"] and paper["items"][-1]["name"] == item.name:
            paper["items"][-1]["variants"].append(table)
        else:
            paper["items"].append(table)
    for ablation in ablations:
        papers[ablation.item.paper]["ablations"].append(_ablation(ablation))
    verdicts = Counter(claim["verdict"] for claim in claims)
    return environment.get_template("page.html.jinja").render(
        preset=preset,
        papers=papers,
        claims=claims,
        claim_counts={verdict: verdicts[verdict] for verdict in CLAIM_VERDICTS},
        records=len(records),
        provenance=provenance.data(),
        strip_size=(strips.WIDTH, strips.HEIGHT),
        colours=COLOURS,
        sequence=SEQUENCE,
        turnable=turnable,
    )


def write_page(
    path: Path,
    preset: str,
    items: Sequence[Item],
    claims: Sequence[Mapping[str, str]],
    records: Mapping[str, Record],
    figures: Path | None = None,
    commands: Mapping[str, str] | None = None,
    ablations: Sequence[Ablation] = (),
) -> None:
    """Write the page atomically; the same input gives the same bytes."""
    text = page_html(preset, items, claims, records, figures, commands, ablations)
    write_text(Path(path), text)


def _ablation(ablation: Ablation) -> dict[str, Any]:
    return {
        "id": f"{ablation.item.paper}-{ablation.stem}",
        "of": f"{ablation.item.paper}-{ablation.item.name}",
        "name": ablation.item.name,
        "label": ablation.label,
        "heading": ablation_files.heading(ablation),
        "findings": findings(ablation),
        "header": ablation_files.HEADER,
        "rows": ablation_files.rows(ablation),
        "why": ablation.why,
        "notes": ablation_files.notes(ablation),
    }


def _picture(item: Item, figures: Path | None) -> Picture | None:
    path = figures / item.paper / f"{item.stem}.png" if figures is not None else None
    return page_copy(path) if path is not None and path.exists() else None


def _table(item: Item, figures: Path | None) -> dict[str, Any]:
    turned = viewers(item)
    classes = {
        label: name
        for each in turned
        for label, name in zip(each["data"]["classes"], each["data"]["names"], strict=True)
    }
    names = [name for name in item.key_columns if name not in fixed_names(item)]
    scales = strips.scales(item)
    return {
        "id": f"{item.paper}-{item.stem}",
        "paper": item.paper,
        "name": item.name,
        "stem": item.stem,
        "variant": item.variant,
        "title": heading(item),
        "picture": _picture(item, figures),
        "viewers": turned,
        "classes": sorted(classes.items()),
        "unit": item.unit,
        "margin": margin_text(item) if item.printed else "",
        "metric_label": item.metric_label,
        "fixed": fixed_keys(item),
        "banner": quick_banner(item),
        "scale": strips.scale_text(item, scales),
        "keys": names,
        "rows": [_row(item, cell, judged, names, scales) for cell, judged in judge_item(item)],
        "counts": shown_counts(item),
        "beside": grids_beside(item),
        "notes": [*item.notes, chance_note(item)],
        "variants": [],
    }


def _row(
    item: Item,
    cell: Cell,
    judged: Judged,
    names: Sequence[str],
    scales: dict[str, strips.Scale],
) -> dict[str, Any]:
    digits = places(item, cell)
    sort = (as_number(judged.published), judged.ours, judged.difference, judged.low)
    return {
        "keys": [cell.keys[name] for name in names],
        "published": published_text(judged),
        "ours": ours_text(item, cell, judged, digits),
        "strip": strips.strip(item, cell, scales),
        "difference": "" if judged.difference is None else f"{judged.difference:+.{digits}f}",
        "interval": _interval(judged, digits),
        "verdict": judged.verdict,
        "protocol": cell.protocol,
        # what the browser sorts these columns by
        "sort": [number_text(value) for value in sort],
    }


def _interval(judged: Judged, digits: int) -> str:
    if judged.low is None or judged.high is None:
        return ""
    if not math.isfinite(judged.low):
        return "every run diverged"
    # one decimal more than the table prints, so that a bound near the margin shows its side
    return f"{judged.low:+.{digits + 1}f} .. {judged.high:+.{digits + 1}f}"
