"""What mkdocs asks us when it builds the documentation: the part of a paper's page that `conf/`
declares, so that it cannot drift, pictures of the results, and links into the repository, which the
built pages lack."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

from hypersphere import paths
from hypersphere.papers.spec import ItemSpec, Paper, paper, paper_keys
from hypersphere.reporting.declared import ByKey

DECLARED = re.compile(r"<!-- declared: ([a-z-]+) -->")
OVERVIEW = "<!-- papers -->"
PICTURE = re.compile(r"(!\[[^\]]*\]\()((?:\.\./)+[^)]*\.png)\)")
LINK = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+[^)]*)\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """A page before it is rendered."""
    markdown = DECLARED.sub(lambda found: declared(paper(found[1])), markdown)
    markdown = markdown.replace(OVERVIEW, overview())
    folder = Path(config["docs_dir"]) / Path(page.file.src_uri).parent
    markdown = PICTURE.sub(lambda found: _picture(found, folder, config, files), markdown)
    return LINK.sub(lambda found: _link(found, folder, Path(config["docs_dir"])), markdown)


def declared(about: Paper) -> str:
    """What conf/paper/<key> says of a paper: presets, decisions, deviations, items."""
    key, said = about.key, about.about
    parts = [
        f"{said.citation}: [{said.url}]({said.url})",
        "",
        "## What each preset does",
        "",
        "| preset | protocol | how it departs from the paper | repeats |",
        "| --- | --- | --- | --- |",
        *(
            f"| `{name}` | {spec.protocol} | {_text(spec.note)} | {_by_key(spec.seeds, len)} |"
            for name, spec in said.presets.items()
        ),
        "",
        "```",
        f"make reproduce-tables PRESET=small PAPER={key}",
        f"make reproduce-tables PRESET=paper PAPER={key} ITEM={next(iter(about.items))}",
        "```",
        "",
        "## Where it deviates, and why",
        "",
        *(f"- {_text(line)}" for line in said.deviations),
        "",
        "## Where the paper is silent",
        "",
        "How it was decided; none of it was chosen by its distance to a printed value.",
        "",
        *(f"- {_text(line)}" for line in said.decisions),
        "",
        "## Items",
        "",
        "*Margin*: how far from the printed number ours may lie and count as equal, in the printed"
        " unit. *Unit*: what repeats are independent in. *Variants*: other numbers of the same"
        " runs, or runs of their own, beside the primary table.",
        "",
        "| item | what | unit | margin | variants |",
        "| --- | --- | --- | --- | --- |",
        *(_row(item) for item in about.items.values()),
        "",
        *_notes(about),
    ]
    return "\n".join(parts)


def overview() -> str:
    """All papers, with their items."""
    rows = ["| key | paper | items |", "| --- | --- | --- |"]
    for key in paper_keys():
        about = paper(key).about
        rows.append(f"| [`{key}`]({key}.md) | {about.title} | {len(paper(key).items)} |")
    return "\n".join(rows)


def _row(item: ItemSpec) -> str:
    variants = ", ".join(f"`{name}`" for name in item.variants)
    title = re.sub(r"^(Table|Figure) \w+: ", "", item.title)
    margin = "" if item.grid is not None else _by_key(item.margin)
    return f"| {item.name} | {_text(title)} | {item.unit} | {margin} | {variants} |"


def _notes(about: Paper) -> list[str]:
    """What items do otherwise than their paper's presets, and what their variants are."""
    said: dict[str, list[str]] = {}
    for item in about.items.values():
        for preset, own in item.presets.items():
            if own.note:
                said.setdefault(f"preset `{preset}`: {_text(own.note)}", []).append(item.name)
        for name, variant in item.variants.items():
            if variant.note:
                said.setdefault(f"variant `{name}`: {_text(variant.note)}", []).append(item.name)
    if not said:
        return []
    lines = [f"- {', '.join(names)}, {text}" for text, names in said.items()]
    return ["## Items that have their own ways", "", *lines, ""]


def _by_key(value: Any, shown: Any = str) -> str:
    """A value, or those of a table by the value of a key column."""
    if not isinstance(value, ByKey):
        return str(shown(value))
    found = {str(shown(each)) for each in value.words.values()}
    return f"{' or '.join(sorted(found))} (by {value.by})"


def _text(text: str) -> str:
    """Plain words as markdown: nothing but `code` is markup, and no bar ends a column."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([*_<|])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


def _picture(found: re.Match[str], folder: Path, config: Any, files: Any) -> str:
    """A picture of the repository goes along with the pages."""
    source = Path(os.path.normpath(folder / found[2]))
    path = source.relative_to(paths.root()).as_posix()
    if files.get_file_from_path(path) is None:
        files.append(File.generated(config, path, content=source.read_bytes()))
    return f"{found[1]}{os.path.relpath(Path(config['docs_dir']) / path, folder)})"


def _link(found: re.Match[str], folder: Path, docs: Path) -> str:
    """Links to files of the repository become their path: the built pages stand alone."""
    target = Path(os.path.normpath(folder / found[2].partition("#")[0]))
    if target.is_relative_to(docs):
        return found[0]
    if not target.exists():
        raise ValueError(f"{folder}: no {found[2]} in the repository")
    path = target.relative_to(paths.root()).as_posix()
    return f"`{path}`" if found[1].strip("`/") in (path, f"{path}/") else f"{found[1]} (`{path}`)"
