"""The `hypersphere` command."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from hypersphere import __version__, ablate_command, evaluate_command, paths
from hypersphere.answers import commands as answers_commands
from hypersphere.data import commands as data_commands
from hypersphere.errors import UserError, did_you_mean
from hypersphere.run import by_reason, open_store, positive, run_options, workers_of
from hypersphere.store import export
from hypersphere.tracking import commands as tracking_commands

if TYPE_CHECKING:
    from hypersphere.papers.planned import Plan
    from hypersphere.store import Store

EXAMPLES = """examples:
  hypersphere plan --preset small            what the tables need, what is done, how long it takes
  hypersphere run --paper nsl --item table2  train what is missing, then render
  hypersphere status                         done and missing runs per item
  hypersphere render --preset small          tables, claims and page from the records alone
  hypersphere claims                         which of the papers' claims hold, on what evidence
  hypersphere explain nsl table2 --preset small   where a number comes from: runs, data, command
  hypersphere diff RUN RUN                   how two runs, cells or stores differ
  hypersphere ablate nsl table4 nsl 5 seen   why a cell differs: one factor at a time
  hypersphere doctor                         what of this machine would make runs fail
  hypersphere evaluate z.npy --labels y.npy  few-shot, open-set and retrieval numbers of your own
  hypersphere run --launcher slurm --set partition=gpu   the same by jobs of SLURM (docs/cluster.md)
  hypersphere store merge ~/from-cluster     join runs of another machine
  hypersphere store export 0123456789ab      a trained run for others: weights, config, card
  hypersphere track push --preset small      mirror finished runs to W&B (docs/tracking.md)
  hypersphere data status                    which datasets are here, and where they go
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status (0 well, 1 a failed run, 2 bad input)."""
    parser = _parser()
    if "_ARGCOMPLETE" in os.environ:
        from hypersphere.answers.completion import complete

        complete(parser)
    options = parser.parse_args(arguments)
    try:
        return options.command(options) or 0
    except UserError as error:
        print(f"hypersphere: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of a pipe (`| head`) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("\nhypersphere: stopped; finished runs are kept, run again to go on", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    """Shows what may follow where nothing does; those of its commands are of its kind."""

    def error(self, message: str) -> NoReturn:
        if message.endswith((": command", ": action")):  # nothing else is required of these names
            self.print_help(sys.stderr)
            self.exit(2, f"\n{self.prog}: which of these?\n")
        super().error(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="hypersphere",
        description="Reproduce five papers on hyperspherical embeddings, number by number.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"hypersphere {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    for name, function, text in (
        ("plan", _plan, "what the items need: trainings, shared, done, missing, expected time"),
        ("run", _run, "train what is missing, then render"),
        ("status", _status, "done and missing runs per item"),
        ("render", _render, "write tables, claims and page from records alone"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(command=function)
        command.add_argument("--preset", default="quick", help="quick (default), small or paper")
        command.add_argument("--paper", default="", help="key of a paper (default: all built ones)")
        command.add_argument("--item", default="", help="one item, such as table2")
        if name in ("plan", "status"):
            command.add_argument("--json", action="store_true", help="for programs")
        if name in ("plan", "run"):
            command.add_argument(
                "--workers", type=positive, help="processes, one thread each (default: cores)"
            )
            command.add_argument(
                "--budget",
                type=_duration,
                metavar="TIME",
                help="only what settles most verdicts and claims in 4h, 90m, ...",
            )
        if name == "plan":
            command.add_argument(
                "--repeats",
                action="store_true",
                help="also what repeats the open verdicts would take, and their price",
            )
        if name == "run":
            run_options(command)
    answers_commands.add_parser(commands)
    ablate_command.add_parser(commands)
    evaluate_command.add_parser(commands)
    data_commands.add_parser(commands)
    tracking_commands.add_parser(commands, _planned)
    kept = commands.add_parser("store", help="join runs of other machines, hand a trained run on")
    actions = kept.add_subparsers(required=True, metavar="action")
    text = "join finished runs from elsewhere: verified, none overwritten"
    command = actions.add_parser("merge", help=text, description=text)
    command.set_defaults(command=_merge)
    command.add_argument(
        "sources", nargs="+", metavar="DIR", help="runs/, results/, what holds them, or an archive"
    )
    export.add_parser(actions)
    board = commands.add_parser("board", help="rewrite the boards in README.md and docs/board.md")
    board.set_defaults(command=_board)
    return parser


def _plan(options: argparse.Namespace) -> None:
    from hypersphere.papers.budget import within
    from hypersphere.papers.status import budget_summary, budget_text, plan_summary
    from hypersphere.papers.undecided import text as undecided_text
    from hypersphere.papers.undecided import undecided
    from hypersphere.progress import duration

    plan, store = _planned(options)
    workers = workers_of(options)
    summary = plan_summary(plan, store, workers)
    chosen = within(plan, store, options.budget * workers) if options.budget else None
    if chosen is not None:
        summary["budget"] = budget_summary(chosen, options.budget, workers)
    open_verdicts = undecided(plan, store) if options.repeats else None
    if open_verdicts is not None:
        summary["undecided"] = open_verdicts
    if options.json:
        print(json.dumps(summary, indent=2))
        return
    print(f"preset {options.preset}: {summary['items']} items")
    once = summary["once"]
    print(
        f"one seed, no variants: {once['trainings']} trainings for {once['table_cells']} table"
        f" cells and {once['numbers_of_figures']} numbers of figures"
    )
    print(
        f"trainings: {summary['trainings']} ({summary['trainings_of_the_items']} if nothing were"
        f" shared between items), {summary['trainings_missing']} missing"
    )
    print(
        f"evaluations and computations: {summary['other_nodes']},"
        f" {summary['other_nodes_missing']} missing"
    )
    if again := summary["trained_again"]:
        print(f"trained again first: {again}, whose records are here but not their weights")
    if summary["stale"]:
        print(f"stale: {summary['stale']} finished runs were made before a fix and no longer count")
    missing = summary["trainings_missing"] + summary["other_nodes_missing"]
    if not summary["runnable_here"]:
        print("nothing to run" if not missing else "nothing of what is missing can run here:")
    elif summary["seconds"] is None:
        print("expected time: unknown, no finished run of these kinds yet")
    else:
        print(
            f"expected time: {duration(summary['hours'] * 3600)} with {workers} processes"
            f" of one thread, by past records"
        )
    for line in by_reason(summary["blocked"]):
        print(f"cannot run here: {line}")
    if chosen is not None:
        print(budget_text(chosen, options.budget, workers))
    if open_verdicts is not None:
        print(undecided_text(open_verdicts))


def _run(options: argparse.Namespace) -> int:
    from hypersphere.run import run

    plan, store = _planned(options)
    return run(plan, store, options)


def _status(options: argparse.Namespace) -> None:
    from hypersphere.papers.status import UNFINISHED, item_rows

    plan, store = _planned(options)
    rows = item_rows(plan, store)
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        state = "complete" if row["complete"] else f"{row['planned'] - row['done']} missing"
        if not row["complete"] and row["planned"] == row["done"]:
            state = "to be judged" if row["planned"] else "to be computed"  # without training
        print(f"{row['paper']:<16} {row['item']:<9} {row['done']}/{row['planned']} runs, {state}")
        for kind in UNFINISHED:
            for line, runs in _grouped(row[kind]).items():
                more = f" and {len(runs) - 3} more" if len(runs) > 3 else ""
                print(f"{'':<27}{line} (run {', '.join(runs[:3])}{more})")
        if row["blocked"]:
            print(f"{'':<27}{row['blocked']}")


def _grouped(runs: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """What is said of runs -> their ids."""
    said: dict[str, list[str]] = {}
    for run in runs:
        said.setdefault(run["text"], []).append(run["run_id"])
    return said


def _render(options: argparse.Namespace) -> None:
    from hypersphere.papers.render import collect, render

    plan, store = _planned(options)
    number = collect(plan, store, options.preset)
    tables = render(plan, store, options.preset)
    print(f"{len(tables)} tables from {number} records: {store.results / options.preset}")


def _merge(options: argparse.Namespace) -> int:
    from hypersphere.store.merge import merge

    store, bad = open_store(), 0
    for source in options.sources:
        merged = merge(Path(source), store)
        for line in merged.refused:
            print(f"refused: {line}", file=sys.stderr)
        for line in merged.conflicts:
            print(f"conflict: {line}", file=sys.stderr)
        bad += len(merged.refused) + len(merged.conflicts)
        print(
            f"{source}: {len(merged.added)} runs added, {len(merged.known)} here already,"
            f" {len(merged.completed)} given their files back, {len(merged.conflicts)} in conflict,"
            f" {len(merged.refused)} refused"
        )
    print("`hypersphere render` puts them into the tables of their preset")
    return 1 if bad else 0


def _board(_: argparse.Namespace) -> None:
    from hypersphere.papers.board import write_boards

    write_boards(paths.root(), open_store().collected())


def _planned(options: argparse.Namespace) -> tuple[Plan, Store]:
    from hypersphere.papers.plan import make_plan
    from hypersphere.papers.spec import PRESETS, paper_keys, papers_with

    if options.preset not in PRESETS:
        hint = did_you_mean(options.preset, PRESETS)
        raise UserError(f"no preset {options.preset!r}{hint} (presets: {', '.join(PRESETS)})")
    keys = [options.paper] if options.paper else paper_keys()
    if options.item and not options.paper:
        keys = papers_with(options.item)
    return make_plan(options.preset, keys, [options.item] if options.item else []), open_store()


def _duration(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    number, unit = text[:-1], text[-1:]
    try:
        seconds = float(number) * units[unit]
    except (ValueError, KeyError):
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 4h, 90m or 2d")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
