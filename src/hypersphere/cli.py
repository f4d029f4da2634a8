"""The `hypersphere` command."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from hypersphere import __version__, evaluate_command, paths
from hypersphere.data import commands as data_commands
from hypersphere.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from hypersphere.papers.plan import Plan
    from hypersphere.store import Store

IN_FLIGHT = 9  # trainings on one GPU: small networks fill a fraction of it each

EXAMPLES = """examples:
  hypersphere plan --preset small            what the tables need, what is done, how long it takes
  hypersphere run --paper nsl --item table2  train what is missing, then render
  hypersphere status                         done and missing runs per item
  hypersphere render --preset small          tables, claims and page from the records alone
  hypersphere evaluate z.npy --labels y.npy  few-shot, open-set and retrieval numbers of your own
  hypersphere data status                    which datasets are here, and where they go
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status (0 well, 1 a failed run, 2 bad input)."""
    options = _parser().parse_args(arguments)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
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
                "--workers", type=_positive, help="processes, one thread each (default: cores)"
            )
        if name == "run":
            command.add_argument("--launcher", default="local", help="local")
            command.add_argument(
                "--runs-per-device", type=_positive,
                help=f"trainings in flight on one GPU (default: {IN_FLIGHT}); none without a GPU",
            )  # fmt: skip
    evaluate_command.add_parser(commands)
    data_commands.add_parser(commands)
    board = commands.add_parser("board", help="rewrite the board in README.md (from a checkout)")
    board.set_defaults(command=_board)
    return parser


def _plan(options: argparse.Namespace) -> None:
    from hypersphere.papers.status import plan_summary
    from hypersphere.progress import duration

    plan, store = _planned(options)
    summary = plan_summary(plan, store, _workers(options))
    if options.json:
        print(json.dumps(summary, indent=2))
        return
    print(f"preset {options.preset}: {summary['items']} items")
    print(
        f"trainings: {summary['trainings']} ({summary['trainings_of_the_items']} if nothing were"
        f" shared between items), {summary['trainings_missing']} missing"
    )
    print(
        f"evaluations and computations: {summary['other_nodes']},"
        f" {summary['other_nodes_missing']} missing"
    )
    if summary["stale"]:
        print(f"stale: {summary['stale']} finished runs were made before a fix and no longer count")
    missing = summary["trainings_missing"] + summary["other_nodes_missing"]
    if not summary["runnable_here"]:
        print("nothing to run" if not missing else "nothing of what is missing can run here:")
    elif summary["seconds"] is None:
        print("expected time: unknown, no finished run of these kinds yet")
    else:
        print(
            f"expected time: {duration(summary['hours'] * 3600)} with {_workers(options)} processes"
            f" of one thread, by past records"
        )
    for line in _by_reason(summary["blocked"]):
        print(f"cannot run here: {line}")


def _by_reason(blocked: Mapping[str, str]) -> list[str]:
    """`nsl table5, figure3-6: why`: one line per paper and reason (`<paper> <item>` -> reason)."""
    from hypersphere.reporting.board import short_list

    groups: dict[tuple[str, str], list[str]] = {}
    for item, reason in blocked.items():
        paper, _, name = item.partition(" ")
        groups.setdefault((paper, reason), []).append(name)
    return [f"{paper} {short_list(names)}: {why}" for (paper, why), names in groups.items()]


def _run(options: argparse.Namespace) -> int:
    from hypersphere.execute import run_nodes
    from hypersphere.papers.plan import blocked, expected_seconds
    from hypersphere.papers.render import collect, render
    from hypersphere.progress import RunProgress

    if options.launcher != "local":
        raise UserError(
            f"--launcher {options.launcher}: only local is built so far; Hydra's launchers work for"
            " single trainings: python scripts/train.py -m hydra/launcher=joblib ..."
        )
    plan, store = _planned(options)
    skipped = {i: reason for i in plan.items if (reason := blocked(i)) and plan.missing(store, [i])}
    unready = plan.unready(store)
    missing = plan.missing(store)
    todo = [node for node in missing if node.id not in unready]
    if options.item and missing and not todo:
        raise UserError(f"{options.item}: {'; '.join(dict.fromkeys(unready.values()))}")
    started = {i for i in skipped if any(node.id not in unready for node in i.every_node())}
    collect(plan, store, options.preset)  # an unwritable folder shows before anything trains
    failures = []
    # Whatever has no past record counts the same: the time left then goes by the number of runs.
    weights = {node.id: expected_seconds([node], store)[0] for node in todo}
    weights = {k: w if w == w else 1.0 for k, w in weights.items()}
    if todo:
        rest = len(plan.nodes) - len(todo)
        _say(f"{options.preset}: {len(todo)} runs to do, {rest} done or skipped")
    with RunProgress(weights) as progress:
        # One run left is trained as many are, on one thread: its numbers must not depend on that.
        for outcome in run_nodes(todo, store, _workers(options), progress.say, _in_flight(options)):
            if outcome.error:
                failures.append(outcome)
                progress.say(f"run {outcome.node.id} failed: {outcome.error}")
            progress.finished(outcome.node.id, not outcome.error)
    store = _store()
    collect(plan, store, options.preset)
    tables = render(plan, store, options.preset)
    for said, partly in (("not run", False), ("run in part", True)):
        of_kind = {i: why for i, why in skipped.items() if (i in started) == partly}
        for line in _by_reason({f"{i.paper.key} {i.spec.name}": w for i, w in of_kind.items()}):
            _say(f"{said}: {line}")
    print(f"{len(tables)} tables, claims and {store.results / options.preset / 'index.html'}")
    if failures:
        print(
            f"{len(failures)} of {len(todo)} runs failed; run again to retry them", file=sys.stderr
        )
    return 1 if failures else 0


def _status(options: argparse.Namespace) -> None:
    from hypersphere.papers.status import item_rows

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
        for owner in row["running"]:
            print(f"{'':<27}running: {owner}")
        if row["blocked"]:
            print(f"{'':<27}{row['blocked']}")


def _render(options: argparse.Namespace) -> None:
    from hypersphere.papers.render import collect, render

    plan, store = _planned(options)
    number = collect(plan, store, options.preset)
    tables = render(plan, store, options.preset)
    print(f"{len(tables)} tables from {number} records: {store.results / options.preset}")


def _board(_: argparse.Namespace) -> None:
    from hypersphere.papers.board import write_board

    write_board(paths.root() / "README.md", _store())


def _planned(options: argparse.Namespace) -> tuple[Plan, Store]:
    from hypersphere.papers.plan import make_plan
    from hypersphere.papers.spec import PRESETS, paper_keys, papers_with

    if options.preset not in PRESETS:
        hint = did_you_mean(options.preset, PRESETS)
        raise UserError(f"no preset {options.preset!r}{hint} (presets: {', '.join(PRESETS)})")
    keys = [options.paper] if options.paper else paper_keys()
    if options.item and not options.paper:
        keys = papers_with(options.item)
    return make_plan(options.preset, keys, [options.item] if options.item else []), _store()


def _store() -> Store:
    from hypersphere.store import Store

    store = Store()
    for complaint in store.complaints:
        _say(complaint)
    return store


def _workers(options: argparse.Namespace) -> int:
    if options.workers:
        return options.workers
    from hypersphere.training.packed import on_device

    return 1 if on_device() else os.cpu_count() or 1


def _in_flight(options: argparse.Namespace) -> int:
    from hypersphere.training.packed import on_device

    return options.runs_per_device or (IN_FLIGHT if on_device() else 1)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
