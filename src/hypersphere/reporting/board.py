"""The board for the README: per paper and item, how many cells got which verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hypersphere.reporting.cells import Item
from hypersphere.reporting.layout import shown_counts

NOT_BUILT = "not built yet"


def counts_text(item: Item) -> str:
    """`12 reproduced, 3 not run`: the verdicts that occur, in their fixed order."""
    return ", ".join(f"{count} {verdict}" for verdict, count in shown_counts(item).items())


def board_markdown(
    papers: Sequence[tuple[str, str]],
    item_names: Mapping[str, Sequence[str]],
    built: Mapping[str, Mapping[str, Sequence[Item]]],
) -> str:
    """One Markdown table: a row per paper and built item, a column of counts per preset, and one
    row for what a paper still lacks. Primary tables only; variants stand on the page.

    `papers` are (key, title); `item_names[key]` lists every item of that paper in order, built
    or not; `built[preset][key]` holds the items that have a spec.
    """
    presets = list(built)
    lines = [
        "| paper | item | " + " | ".join(presets) + " |",
        "|" + " --- |" * (2 + len(presets)),
    ]
    for key, title in papers:
        found = {
            preset: {item.name: item for item in built[preset].get(key, ()) if not item.variant}
            for preset in presets
        }
        names = [n for n in item_names[key] if any(n in items for items in found.values())]
        rows = [[name, *(_counts(found[preset].get(name)) for preset in presets)] for name in names]
        if lacking := [name for name in item_names[key] if name not in names]:
            rows.append([short_list(lacking), *([NOT_BUILT] * len(presets))])
        for i, row in enumerate(rows):
            # the title once per paper keeps the board readable
            lines.append(f"| {'' if i else title} | {' | '.join(row)} |")
    return "\n".join(lines)


def _counts(item: Item | None) -> str:
    return NOT_BUILT if item is None else counts_text(item)


def claims_markdown(rows: Mapping[str, Sequence[Mapping[str, str]]]) -> str:
    """One Markdown table of the claims that have comparisons with numbers behind them (`rows`:
    preset -> rows of claims.csv), and how many claims are decided."""
    lines = ["| paper | item | claim | preset | verdict | evidence |", "|" + " --- |" * 6]
    lines += [
        f"| {row['paper']} | {row['item']} | {row['claim']} | {preset} | {row['verdict']} |"
        f" {row['evidence']} |"
        for preset, found in rows.items()
        for row in found
        if row["n"]
    ]
    claims = {_identity(row) for found in rows.values() for row in found}
    decided = {
        _identity(row) for found in rows.values() for row in found if row["verdict"] != "not tested"
    }
    return "\n".join([*lines, "", f"{len(decided)} of {len(claims)} claims decided."])


def _identity(row: Mapping[str, str]) -> tuple[str, str, str]:
    return row["paper"], row["item"], row["claim"]


def short_list(names: Sequence[str]) -> str:
    """`table5-6, figure1-11, text`: runs of numbered names as ranges."""
    found: list[tuple[str, list[int]]] = []
    for name in names:
        stem = name.rstrip("0123456789")
        number = int(name[len(stem) :] or 0)
        if found and stem != name and found[-1][0] == stem and found[-1][1][-1] == number - 1:
            found[-1][1].append(number)
        else:
            found.append((stem, [number] if stem != name else []))
    return ", ".join(
        f"{stem}{numbers[0]}-{numbers[-1]}"
        if len(numbers) > 1
        else f"{stem}{''.join(map(str, numbers))}"
        for stem, numbers in found
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
