"""Write one item as CSV (tidy), Markdown (readable) and LaTeX (booktabs)."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from hypersphere.files import write_text
from hypersphere.reporting.cells import Item
from hypersphere.reporting.layout import (
    LEGEND_LINE,
    grids,
    grids_beside,
    number_text,
    quick_banner,
    reading_line,
)
from hypersphere.reporting.verdicts import chance_note, judge_item

RESULT_COLUMNS = (
    "published", "published_std", "ours", "ours_std", "n", "unit", "difference",
    "low", "high", "margin", "protocol", "verdict", "run_ids",
)  # fmt: skip
GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "varepsilon", "η": "eta",
    "θ": "theta", "κ": "kappa", "λ": "lambda", "μ": "mu", "π": "pi", "ρ": "rho",
    "σ": "sigma", "τ": "tau", "φ": "varphi", "ω": "omega",
}  # fmt: skip
LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "_": r"\_",
    "%": r"\%",
    "&": r"\&",
    "#": r"\#",
    "$": r"\$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # a row that starts with one of these would be read as an argument of the line break before it
    "[": "{[}",
    "*": "{*}",
    "±": r"$\pm$",
    "→": r"$\rightarrow$",
    "✓": r"$\surd$",
    "✗": r"$\times$",
    "×": r"$\times$",
    "−": "$-$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "–": "--",
    "—": "---",
    "\0": "{}",
} | {letter: f"$\\{name}$" for letter, name in GREEK.items()}


def csv_text(item: Item) -> str:
    """The tidy table: the published key columns, then `RESULT_COLUMNS`."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*item.key_columns, *RESULT_COLUMNS])
    for cell, row in judge_item(item):
        writer.writerow(
            [
                *cell.keys.values(),
                row.published,
                row.published_std,
                number_text(row.ours),
                number_text(row.ours_std),
                row.n,
                item.unit_of(cell),
                number_text(row.difference),
                number_text(row.low),
                number_text(row.high),
                number_text(row.margin),
                row.protocol,
                row.verdict,
                " ".join(row.run_ids),
            ]
        )
    return out.getvalue()


def heading(item: Item) -> str:
    """The item's title, and the variant where it is one."""
    variant = f" ({item.variant})" if item.variant else ""
    return f"{item.title}{variant}"


def _footer(item: Item) -> list[str]:
    return [LEGEND_LINE, *item.notes, chance_note(item)]


def markdown(text: str) -> str:
    """Text that Markdown shows as it is, in one line."""
    # no `_`: inside a word it means itself, and labels stay readable in a terminal
    for character in ("\\", "|", "*", "<", "`", "["):
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())


def markdown_text(item: Item) -> str:
    """Title, one grid per readable layout, legend, notes and the sentence about chance."""
    lines = [f"# {markdown(heading(item))}", ""]
    if banner := quick_banner(item):
        lines += [f"> **{banner}**", ""]
    lines += [markdown(reading_line(item)), ""]
    for grid in [*grids(item), *grids_beside(item)]:
        if grid.caption:
            lines += [f"## {markdown(grid.caption)}", ""]
        lines.append(pipe_row((*grid.corner, *grid.columns)))
        lines.append("|" + " --- |" * (len(grid.corner) + len(grid.columns)))
        lines += [pipe_row((*label, *texts)) for label, texts in grid.rows]
        lines.append("")
    lines += [f"- {markdown(line)}" for line in _footer(item)]
    return "\n".join(lines) + "\n"


def pipe_row(texts: tuple[str, ...]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(markdown(text) for text in texts) + " |"


def escape_latex(text: str) -> str:
    """Text as LaTeX shows it unchanged, in a document that loads nothing but booktabs."""
    # LaTeX would join two hyphens to a dash
    plain = re.sub(r"-(?=-)", "-\0", " ".join(text.split()))
    return "".join(LATEX.get(character, character) for character in plain)


def latex_text(item: Item) -> str:
    """One `table` environment with a booktabs tabular per grid and the Markdown's content."""
    lines = ["% needs \\usepackage{booktabs}", "\\begin{table}", "\\centering"]
    lines.append(f"\\caption{{{escape_latex(heading(item))}}}")
    if banner := quick_banner(item):
        lines += [f"\\textbf{{{escape_latex(banner)}}}\\par\\medskip"]
    for grid in [*grids(item), *grids_beside(item)]:
        if grid.caption:
            lines.append(f"{escape_latex(grid.caption)}\\par\\smallskip")
        lines.append(f"\\begin{{tabular}}{{{'l' * (len(grid.corner) + len(grid.columns))}}}")
        lines += ["\\toprule", _latex_row((*grid.corner, *grid.columns)), "\\midrule"]
        lines += [_latex_row((*label, *texts)) for label, texts in grid.rows]
        lines += ["\\bottomrule", "\\end{tabular}\\par\\medskip"]
    lines.append("\\raggedright\\footnotesize")
    lines += [f"{escape_latex(line)}\\par" for line in (reading_line(item), *_footer(item))]
    lines.append("\\end{table}")
    return "\n".join(lines) + "\n"


def _latex_row(texts: tuple[str, ...]) -> str:
    return " & ".join(escape_latex(text) for text in texts) + r" \\"


def write(item: Item, folder: Path) -> tuple[Path, Path, Path]:
    """Write `<item>.csv`, `.md` and `.tex` into `folder` (a variant: `<item>--<variant>.*`).

    Each file appears whole or not at all, and the same item gives the same bytes.
    """
    texts = {".csv": csv_text(item), ".md": markdown_text(item), ".tex": latex_text(item)}
    paths = []
    for ending, text in texts.items():
        # with_suffix would cut a variant that holds a dot
        path = Path(folder) / f"{item.stem}{ending}"
        write_text(path, text)
        paths.append(path)
    return paths[0], paths[1], paths[2]
