"""One self-contained page per preset: the board, every table with its single values, the claims."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hypersphere.files import write_text
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
from hypersphere.reporting.tables import heading
from hypersphere.reporting.verdicts import (
    Judged,
    as_number,
    chance_note,
    judge_item,
)
from hypersphere.reporting.viewers import viewers


def page_html(
    preset: str,
    items: Sequence[Item],
    claims: Sequence[Mapping[str, str]],
    records: int,
    figures: Path | None = None,
) -> str:
    """The page's text. `claims` are rows of claims.csv, `records` counts the finished runs,
    `figures` holds <paper>/<item>.png, which go into the page where they are."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    papers: dict[str, list[dict[str, Any]]] = {}
    for item in items:
        papers.setdefault(item.paper, []).append(_table(item, figures))
    counted: dict[str, int] = {}
    for claim in claims:
        counted[claim["verdict"]] = counted.get(claim["verdict"], 0) + 1
    return environment.get_template("page.html.jinja").render(
        preset=preset,
        papers=papers,
        claims=claims,
        claim_counts=counted,
        records=records,
        colours=COLOURS,
        sequence=SEQUENCE,
        turnable=any(table["viewers"] for tables in papers.values() for table in tables),
    )


def write_page(
    path: Path,
    preset: str,
    items: Sequence[Item],
    claims: Sequence[Mapping[str, str]],
    records: int,
    figures: Path | None = None,
) -> None:
    """Write the page atomically; the same input gives the same bytes."""
    write_text(Path(path), page_html(preset, items, claims, records, figures))


def _picture(item: Item, figures: Path | None) -> str:
    """The item's picture as a data URI, '' where there is none."""
    path = figures / item.paper / f"{item.stem}.png" if figures is not None else None
    if path is None or not path.exists():
        return ""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _table(item: Item, figures: Path | None) -> dict[str, Any]:
    turned = viewers(item)
    classes = {
        label: name
        for each in turned
        for label, name in zip(each["data"]["classes"], each["data"]["names"], strict=True)
    }
    names = [name for name in item.key_columns if name not in fixed_names(item)]
    return {
        "id": f"{item.paper}-{item.stem}",
        "name": item.stem,
        "title": heading(item),
        "picture": _picture(item, figures),
        "viewers": turned,
        "classes": sorted(classes.items()),
        "unit": item.unit,
        "margin": margin_text(item) if item.printed else "",
        "metric_label": item.metric_label,
        "fixed": fixed_keys(item),
        "banner": quick_banner(item),
        "keys": names,
        "rows": [_row(item, cell, judged, names) for cell, judged in judge_item(item)],
        "counts": shown_counts(item),
        "beside": grids_beside(item),
        "notes": [*item.notes, chance_note(item)],
    }


def _row(item: Item, cell: Cell, judged: Judged, names: Sequence[str]) -> dict[str, Any]:
    digits = places(item, cell)
    sort = (as_number(judged.published), judged.ours, judged.difference)
    return {
        "keys": [cell.keys[name] for name in names],
        "published": published_text(judged),
        "ours": ours_text(item, cell, judged, digits),
        "difference": "" if judged.difference is None else f"{judged.difference:+.{digits}f}",
        "interval": _interval(judged, digits),
        "verdict": judged.verdict,
        "protocol": cell.protocol,
        "values": [(unit, number_text(value)) for unit, value in cell.values.items()],
        "run_ids": judged.run_ids,
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
