"""`hypersphere track`: finished runs mirrored to W&B."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hypersphere.errors import UserError

if TYPE_CHECKING:
    from hypersphere.papers.planned import Plan
    from hypersphere.store import Store

EXAMPLES = """modes:
  WANDB_MODE says it (online, offline, disabled); else online where W&B has a key (WANDB_API_KEY, or
  `wandb login` of this machine), and offline where it has none. Offline runs lie beside the runs:
  `wandb sync runs/wandb/*/wandb/offline-run-*` uploads them. WANDB_PROJECT, WANDB_ENTITY as usual.

examples:
  hypersphere run --preset small --track     mirror each run as it finishes
  hypersphere track push --preset small      mirror finished runs, whoever trained them
  hypersphere track push 0123456789ab        one run of your own (scripts/train.py)
  hypersphere track push --paper nsl --again mirror them anew, as after a change of the project
  hypersphere track views --preset small     a saved view per paper in the W&B project
"""


def add_parser(commands: Any, planned: Callable[[argparse.Namespace], tuple[Plan, Store]]) -> None:
    """Add the command `track` to the parser's subcommands. planned: the plan that the options
    --preset, --paper and --item ask for, and the run store."""
    text = "mirror finished runs to Weights & Biases"
    actions = commands.add_parser("track", help=f"{text} (track push)").add_subparsers(
        required=True, metavar="action"
    )
    command = actions.add_parser(
        "push", help=text, description=f"{text[0].upper()}{text[1:]}, each once.",
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    command.set_defaults(command=lambda options: _push(options, planned))
    command.add_argument("runs", nargs="*", metavar="RUN", help="ids (default: those of a preset)")
    _choice(command)
    command.add_argument("--again", action="store_true", help="also what W&B has already")
    text = "save a view per paper in the W&B project: its runs, curves, pictures, numbers by item"
    command = actions.add_parser("views", help=text, description=f"{text[0].upper()}{text[1:]}.")
    command.set_defaults(command=lambda options: _views(options, planned))
    _choice(command)


def _choice(command: argparse.ArgumentParser) -> None:
    command.add_argument("--preset", default="quick", help="quick (default), small or paper")
    command.add_argument("--paper", default="", help="key of a paper (default: all built ones)")
    command.add_argument("--item", default="", help="one item, such as table2")


def _push(
    options: argparse.Namespace, planned: Callable[[argparse.Namespace], tuple[Plan, Store]]
) -> int:
    from hypersphere.run import open_store
    from hypersphere.tracking.follower import figures
    from hypersphere.tracking.mirrored import complete, named
    from hypersphere.tracking.push import FOLDER, NotTaken, mode, push, push_tables

    how = mode()
    if how == "disabled":
        print("WANDB_MODE=disabled: nothing is mirrored")
        return 0
    if options.runs:
        store = open_store()
        runs = list(named(store, options.runs))
    else:
        plan, store = planned(options)
        runs = list(complete(plan, store))
    taken, refused = push(
        runs, store, how, _say,
        again=options.again, pictures=lambda run: figures(run, store),
    )  # fmt: skip
    try:
        tables = 0 if options.runs else push_tables(store, options.preset, how)
    except NotTaken as error:
        tables, refused = 0, refused + 1
        _say(f"W&B: the tables were not mirrored: {error}")
    print(f"W&B ({how}): {taken} runs mirrored and {tables} tables, {refused} not taken")
    if how == "offline" and taken:
        print(f"upload them with: wandb sync {store.runs / FOLDER}/*/wandb/offline-run-*")
    return 1 if refused else 0


def _views(
    options: argparse.Namespace, planned: Callable[[argparse.Namespace], tuple[Plan, Store]]
) -> int:
    from hypersphere.tracking.push import PROJECT, mode
    from hypersphere.tracking.views import views

    plan, store = planned(options)
    entity, project = (os.environ.get(f"WANDB_{name}", "") for name in ("ENTITY", "PROJECT"))
    found = list(views(plan, store, entity, project or PROJECT))
    if mode() != "online":
        raise UserError(
            "saved views live on W&B's server: log in (`wandb login`, or WANDB_API_KEY) and leave"
            " WANDB_MODE unset"
        )
    if not entity:
        raise UserError("WANDB_ENTITY is not set: whose project is it? (your user or team name)")
    failed = 0
    for view in found:
        try:
            view.save()
        except Exception as error:  # the network's, the server's and the library's own
            failed += 1
            _say(f"W&B: the view {view.name!r} was not saved: {error}")
        else:
            print(f"{view.name}: {view.url}")
    return 1 if failed else 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
