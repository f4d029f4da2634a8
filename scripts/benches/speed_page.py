"""The tables of docs/speed.md, from the files of the processors that it is about.

python scripts/benches/speed_page.py

Each stands between marks that name its file, in a page whose text is written by hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypersphere.reporting.board import replace_block

ROOT = Path(__file__).parents[2]
PAGE, MEASURED = ROOT / "docs" / "speed.md", ROOT / "results" / "bench"
# What a line's title and its first variant begin with, and another variant: at least so many times
# as fast, with AMX and with AVX-512's bfloat16 alone.
PIL, STYLE, TWO = "PIL, DataLoader", "published style", "two runs, one thread each"
TARGETS = {
    ("data stage, CIFAR-10", PIL, "in memory, one thread"): (12, 12),
    ("data stage, 28 x 28", PIL, "in memory, one thread"): (50, 50),
    ("whole training loop, ResNet-32", STYLE, "one run, two threads"): (3, 1.9),
    ("whole training loop, ResNet-32", STYLE, TWO): (3.5, 2.3),
    ("whole training loop, ResNet-32", STYLE, "the same, compiled"): (4, 2.3),
    ("whole training loop, VGG", STYLE, "one run, two threads"): (3, 2.3),
    ("whole training loop, VGG", STYLE, TWO): (3.5, 2.3),
    ("what drives a step", "plain loop", "Lightning, 16 steps per call"): (0.98, 0.98),
    ("loss and gradient", "pytorch-metric-learning", "ours"): (1, 1),
    ("few-shot in", "a pass of ResNet-32", "saved embeddings, one call per size"): (2000, 2000),
    ("privileged loss and gradient, 100", "a list", "sums of powers"): (40, 40),
    ("privileged loss and gradient, 200", "a list", "sums of powers"): (120, 120),
}
KINDS = {"amx": "AMX", "avx512_bf16": "AVX-512 with bfloat16"}


def table(measured: dict[str, Any]) -> str:
    """A row for each variant beside the first one of its line, which its ratio is to."""
    machine = measured["machine"]
    fast = next((KINDS[key] for key in KINDS if machine[key]), "no bfloat16")
    rows = [
        f"**{machine['processor']}**, {machine['cores']} cores, {fast}; medians of rounds in"
        " which the variants take turns.",
        "",
        "| what | first | another | times as fast | aimed at |",
        "| --- | --- | --- | --- | --- |",
    ]
    return "\n".join([*rows, *_rows(measured["lines"], machine)])


def _rows(lines: dict[str, Any], machine: dict[str, Any]) -> Iterator[str]:
    for title, line in lines.items():
        (first, base), *others = line.get("variants", {"": {}}).items()
        beside = f"{first}: {_number(base['median'])} {line['unit']}" if others else ""
        came_out = ", ".join(f"{k} {v:.3f}" for k, v in line.get("quality", {}).items())
        said = f"{title}{came_out and f' (largest cosine: {came_out})'} | {beside}"
        for name, found in others:
            yield (
                f"| {said} | {name}: {_number(found['median'])} | {_number(found['ratio'])}"
                f" | {_aim(title, first, name, machine)} |"
            )
            said = " | "


def _aim(title: str, first: str, variant: str, machine: dict[str, Any]) -> str:
    for (line, base, of), (amx, bfloat16) in TARGETS.items():
        if title.startswith(line) and first.startswith(base) and variant == of:
            if machine["amx"]:
                return f"{amx:,g}"
            return f"{bfloat16:,g}" if machine["avx512_bf16"] else ""  # none was set without
    return ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def page(text: str) -> str:
    """The page with the tables between its marks brought up to date."""
    for name in re.findall(r"<!-- (\S+):begin -->", text):
        measured = json.loads((MEASURED / f"{name}.json").read_text())
        text = replace_block(text, name, table(measured))
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
