"""The board for the README: per paper and item, how many cells got which verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hypersphere.reporting.cells import Item
from hypersphere.reporting.verdicts import verdict_counts

NOT_BUILT = "not built yet"


def counts_text(item: Item) -> str:
    """`12 reproduced, 3 not run`: the verdicts that occur, in their fixed order."""
    counts = verdict_counts(item)
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)


def board_markdown(
    papers: Sequence[tuple[str, str]],
    item_names: Mapping[str, Sequence[str]],
    built: Mapping[str, Mapping[str, Sequence[Item]]],
) -> str:
    """One Markdown table: a row per paper, item and variant, a column of counts per preset.

    `papers` are (key, title); `item_names[key]` lists every item of that paper in order, built
    or not; `built[preset][key]` holds the items that have a spec.
    """
    presets = list(built)
    lines = [
        "| paper | item | " + " | ".join(presets) + " |",
        "|" + " --- |" * (2 + len(presets)),
    ]
    for key, title in papers:
        shown = title
        for name in item_names[key]:
            for stem in _stems(name, key, built):
                cells = [_counts(stem, built[preset].get(key, ())) for preset in presets]
                # the title once per paper keeps the board readable
                lines.append(f"| {shown} | {stem} | " + " | ".join(cells) + " |")
                shown = ""
    return "\n".join(lines)


def _stems(name: str, key: str, built: Mapping[str, Mapping[str, Sequence[Item]]]) -> list[str]:
    """The primary table first, then the variants that exist in some preset."""
    items = [item for preset in built.values() for item in preset.get(key, ())]
    return [name, *sorted({item.stem for item in items if item.name == name} - {name})]


def _counts(stem: str, items: Sequence[Item]) -> str:
    return next((counts_text(item) for item in items if item.stem == stem), NOT_BUILT)


def claims_markdown(rows: Mapping[str, Sequence[Mapping[str, str]]]) -> str:
    """One Markdown table of the decided claims (`rows`: preset -> rows of claims.csv), and how
    many are not."""
    lines = ["| paper | item | claim | preset | verdict | evidence |", "|" + " --- |" * 6]
    decided = [
        f"| {row['paper']} | {row['item']} | {row['claim']} | {preset} | {row['verdict']} |"
        f" {row['evidence']} |"
        for preset, found in rows.items()
        for row in found
        if row["verdict"] != "not tested"
    ]
    total = {(row["paper"], row["item"], row["claim"]) for found in rows.values() for row in found}
    known = {
        (row["paper"], row["item"], row["claim"])
        for found in rows.values()
        for row in found
        if row["verdict"] != "not tested"
    }
    return "\n".join(
        [*(lines + decided if decided else []), "", f"{len(known)} of {len(total)} claims decided."]
    )


def replace_block(text: str, name: str, block: str) -> str:
    """Put `block` between `<!-- name:begin -->` and `<!-- name:end -->`; the markers stay.

    Raises ValueError unless both markers stand in the text exactly once, in this order.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"the text needs {begin} and, after it, {end}, once each")
    before, rest = text.split(begin)
    return f"{before}{begin}\n{block.strip()}\n{end}{rest.split(end)[1]}"
