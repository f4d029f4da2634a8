"""The boards: per paper, item and claim, how many got which verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from hypersphere.reporting.cells import Item
from hypersphere.reporting.layout import shown_counts
from hypersphere.reporting.verdicts import CLAIM_VERDICTS, VERDICTS

NOT_BUILT = "not built yet"
SHOWN = (*VERDICTS[:-1], "measured", VERDICTS[-1])  # `not run` stands last


def counts_text(item: Item) -> str:
    """`12 reproduced, 3 not run`: the verdicts that occur, in their fixed order."""
    return ", ".join(f"{count} {verdict}" for verdict, count in shown_counts(item).items())


def scoreboard_markdown(
    papers: Sequence[tuple[str, str]],
    built: Mapping[str, Mapping[str, Sequence[Item]]],
    rows: Mapping[str, Sequence[Mapping[str, str]]],
) -> str:
    """One Markdown table: a row per paper with its cells by verdict in each preset and its claims,
    and a row for all papers. Arguments as in `board_markdown` and `claims_markdown`."""
    lines = [
        "| paper | " + " | ".join(f"cells, `{preset}`" for preset in built) + " | claims |",
        "|" + " --- |" * (2 + len(built)),
    ]
    decided = _verdicts(rows)
    for keys, title in [*(([key], title) for key, title in papers), (None, "all")]:
        chosen = [key for key, _ in papers] if keys is None else keys
        cells = [
            _all_counts(item for key in chosen for item in found.get(key, ()) if not item.variant)
            for found in built.values()
        ]
        count = Counter(v for (key, *_), v in decided.items() if key in chosen)
        claims = ", ".join(f"{count[verdict]} {verdict}" for verdict in CLAIM_VERDICTS)
        lines.append(f"| {title} | {' | '.join(cells)} | {claims} |")
    return "\n".join(lines)


def _all_counts(items: Iterable[Item]) -> str:
    """The verdicts that occur in several items, in their fixed order."""
    total: Counter[str] = Counter()
    for item in items:
        total.update(dict(shown_counts(item)))
    return ", ".join(f"{total[verdict]} {verdict}" for verdict in SHOWN if total[verdict])


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
    found = _verdicts(rows)
    decided = sum(verdict != "not tested" for verdict in found.values())
    return "\n".join([*lines, "", f"{decided} of {len(found)} claims decided."])


def _verdicts(
    rows: Mapping[str, Sequence[Mapping[str, str]]],
) -> dict[tuple[str, str, str], str]:
    """How each claim (paper, item, words) stands: as the last preset says that decides it."""
    found: dict[tuple[str, str, str], str] = {}
    for row in (row for of_preset in rows.values() for row in of_preset):
        claim = row["paper"], row["item"], row["claim"]
        if found.get(claim, "not tested") == "not tested" or row["verdict"] != "not tested":
            found[claim] = row["verdict"]
    return found


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
