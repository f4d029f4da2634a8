"""`hypersphere explain | diff | claims | doctor | completion`: answers about what is there."""

from __future__ import annotations

import argparse
import json
from typing import Any

REAL = ("small", "paper")  # presets whose numbers decide claims

EXPLAIN = """examples:
  hypersphere explain nsl table2                       its cells, to choose from
  hypersphere explain nsl table2 nsl 3 --preset small  one cell: runs, configuration, data, code,
                                                       and the commands that make it again
  hypersphere explain nsl table2 k_unseen=3 nsl --preset small --json
"""
DIFF = """examples:
  hypersphere diff 70a0ace6fa69 ebed34670cfc               two runs (beginnings of ids will do)
  hypersphere diff nsl/table2/nsl,3 nsl/table2/triplet,3 --preset small
                                                           two cells: paired by split or seed
  hypersphere diff small:nsl/table2/nsl,3 paper:nsl/table2/nsl,3
  hypersphere diff ~/theirs/results results                two stores: which numbers differ
"""
COMPLETION = """examples:
  eval "$(hypersphere completion bash)"                 in ~/.bashrc; zsh likewise
  hypersphere completion fish > ~/.config/fish/completions/hypersphere.fish
"""


def add_parser(commands: Any) -> None:
    """Add these commands to the parser's subcommands."""

    def command(name: str, function: Any, text: str, examples: str = "") -> argparse.ArgumentParser:
        made = commands.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        made.set_defaults(command=function)
        made.add_argument("--json", action="store_true", help="for programs")
        return made

    explain = command("explain", _explain, "where a number of a table comes from", EXPLAIN)
    explain.add_argument("paper", help="key of the paper, such as nsl")
    explain.add_argument("item", help="such as table2, figure5, text")
    explain.add_argument(
        "cell", nargs="*", help="values of its row and column, in any order, or column=value"
    )
    explain.add_argument("--preset", default="quick", help="quick (default), small or paper")
    explain.add_argument("--variant", default="", help="of the item, such as `clean`")

    diff = command("diff", _diff, "how two runs, two cells or two stores differ", DIFF)
    diff.add_argument("one", help="run id, [preset:]paper/item/value,value, or a folder")
    diff.add_argument("other", help="likewise")
    diff.add_argument("--preset", default="quick", help="of cells that name none")

    claims = command("claims", _claims, "the papers' claims and how they stand on real data")
    claims.add_argument("--preset", default="", help="default: small and paper")
    claims.add_argument("--paper", default="", help="key of a paper (default: all)")
    claims.add_argument("--item", default="", help="as figure_claims.csv has it, such as table1-2")
    claims.add_argument("--verdict", default="", help="holds, partly, fails or 'not tested'")
    claims.add_argument("--all", action="store_true", help="also those that no number speaks of")

    command("doctor", _doctor, "what of this machine and environment would make runs fail or slow")

    text = "tab completion for a shell"
    completion = commands.add_parser(
        "completion", help=text, description=f"Print what a shell needs for {text}.",
        epilog=COMPLETION, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    completion.set_defaults(command=_completion)
    completion.add_argument("shell", choices=("bash", "zsh", "fish", "tcsh", "powershell"))


def _explain(options: argparse.Namespace) -> None:
    from hypersphere.answers.explain import brief, explained, text
    from hypersphere.answers.places import find
    from hypersphere.run import open_store

    store = open_store()
    found = find(options.paper, options.item, options.cell, options.preset, options.variant, store)
    if options.json:
        print(json.dumps([explained(each, store) for each in found], indent=2))
    elif len(found) > 1:
        print(brief(found))
    else:
        print(text(found[0], explained(found[0], store)))


def _diff(options: argparse.Namespace) -> None:
    from hypersphere.answers.diff import difference, text
    from hypersphere.run import open_store

    found = difference(options.one, options.other, options.preset, open_store())
    print(json.dumps(found, indent=2) if options.json else text(found))


def _claims(options: argparse.Namespace) -> None:
    from hypersphere.answers.scoreboard import claims, text
    from hypersphere.run import open_store

    presets = [options.preset] if options.preset else REAL
    rows = claims(presets, options.paper, options.item, options.verdict, open_store())
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        print(text(rows, options.all or bool(options.verdict or options.item)))


def _doctor(options: argparse.Namespace) -> int:
    import dataclasses

    from hypersphere.answers.doctor import examine, text

    found = examine()
    told = [dataclasses.asdict(each) for each in found]
    print(json.dumps(told, indent=2) if options.json else text(found))
    return 1 if any(each.state == "problem" for each in found) else 0


def _completion(options: argparse.Namespace) -> None:
    from hypersphere.answers.completion import script

    print(script(options.shell))
