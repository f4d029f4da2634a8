"""`hypersphere run`: work out what a plan misses, by the launcher of choice, then render."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from hypersphere.errors import UserError

if TYPE_CHECKING:
    from hypersphere.config import Node
    from hypersphere.execute import Outcome
    from hypersphere.papers.planned import Plan
    from hypersphere.store import Store

LOCAL = "local"
IN_FLIGHT = 9  # trainings on one GPU: small networks fill a fraction of it each


def run_options(command: argparse.ArgumentParser) -> None:
    """The options of `run` beside those of a plan."""
    command.add_argument(
        "--launcher",
        default=LOCAL,
        help="local (default), joblib, slurm, ray, or a YAML file like those in"
        " conf/hydra/launcher",
    )
    command.add_argument(
        "--runs-per-device",
        type=int,
        choices=range(1, 1000),
        metavar="N",
        help=f"trainings in flight on one GPU (default: {IN_FLIGHT}, of a launcher its preset's);"
        " of a launcher without GPUs, processes per job",
    )
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a value of the launcher's preset, such as partition=gpu (repeatable)",
    )
    command.add_argument(
        "--detach", action="store_true", help="submit and return; the same call again goes on"
    )
    command.add_argument(
        "--retry-failed", action="store_true", help="try failed runs again, whatever failed them"
    )
    command.add_argument(
        "--track",
        action="store_true",
        help="mirror runs to W&B as they finish (see `hypersphere track push --help`)",
    )
    command.add_argument(
        "--fail-fast", action="store_true", help="stop at the first run that fails"
    )


def run(plan: Plan, store: Store, options: argparse.Namespace) -> int:
    """Carry out `plan`; returns the exit status: 0 well, 1 a failed run.

    Raises UserError for an item asked for by name of which nothing can run here, for results that
    cannot be written, and for a launcher that is not to be had; nothing has been trained then.
    """
    from hypersphere.papers.budget import within
    from hypersphere.papers.costs import seconds_of
    from hypersphere.papers.planned import blocked
    from hypersphere.papers.render import collect, render
    from hypersphere.papers.rendered import unchanged
    from hypersphere.papers.status import budget_text
    from hypersphere.progress import RunProgress

    if options.launcher == LOCAL and (options.set or options.detach):
        raise UserError("--set and --detach are for a launcher: --launcher joblib, slurm or ray")
    carry_out = _launcher(options)
    skipped = {i: reason for i in plan.items if (reason := blocked(i)) and plan.missing(store, [i])}
    unready = plan.unready(store)
    missing = plan.missing(store)
    todo = [node for node in missing if node.id not in unready]
    if options.item and missing and not todo:
        raise UserError(f"{options.item}: {'; '.join(dict.fromkeys(unready.values()))}")
    if options.budget:
        chosen = within(plan, store, options.budget * workers_of(options))
        _say(budget_text(chosen, options.budget, workers_of(options)))
        todo = [node for node in todo if node.id in chosen.nodes]
    started = {i for i in skipped if any(node.id not in unready for node in i.every_node())}
    collect(plan, store, options.preset)  # an unwritable folder shows before anything trains
    todo, left_out = _without_failed(todo, store, options.retry_failed)
    failures = []
    # Whatever has no past record counts the same: the time left then goes by the number of runs.
    weights = {
        node_id: 1.0 if seconds is not None and math.isnan(seconds) else seconds or 0.0
        for node_id, seconds in seconds_of(todo, store).items()
    }
    if todo:
        rest = len(plan.nodes) - len(todo)
        _say(f"{options.preset}: {len(todo)} runs to do, {rest} done or skipped")
    with RunProgress(weights) as progress, contextlib.ExitStack() as stack:
        # One run left is trained as many are, on one thread: its numbers must not depend on that.
        found = carry_out(todo, store, workers_of(options), progress.say)
        tracked = stack.enter_context(_tracker(plan, store, todo, options.track, progress.say))
        for outcome in stack.enter_context(contextlib.closing(found)):
            if outcome.error:
                failures.append(outcome)
                progress.say(f"run {outcome.node.id} failed: {outcome.error}")
            progress.finished(outcome.node.id, not outcome.error)
            tracked(outcome.node)
            if outcome.error and options.fail_fast:
                progress.say("stopping (--fail-fast); what is under way ends first")
                break
    if options.detach:
        print("submitted; `hypersphere status` shows how it goes, the same call again collects")
        return 0
    store = open_store()
    collect(plan, store, options.preset)
    tables = unchanged(plan, store, options.preset) or render(plan, store, options.preset)
    for said, partly in (("not run", False), ("run in part", True)):
        of_kind = {i: why for i, why in skipped.items() if (i in started) == partly}
        for line in by_reason({f"{i.paper.key} {i.spec.name}": w for i, w in of_kind.items()}):
            _say(f"{said}: {line}")
    print(f"{len(tables)} tables, claims and {store.results / options.preset / 'index.html'}")
    if failures:
        _say(
            f"{len(failures)} of {len(todo)} runs failed; `hypersphere status` says why, and"
            " --retry-failed tries them again"
        )
    for line in left_out:
        _say(line)
    return 1 if failures or left_out else 0


@contextlib.contextmanager
def _tracker(
    plan: Plan, store: Store, todo: Sequence[Node], wanted: bool, say: Callable[[str], None]
) -> Iterator[Callable[[Node], None]]:
    """What to tell of each node that is through."""
    if not wanted:
        yield lambda node: None
        return
    from hypersphere.tracking.follower import Follower

    with Follower(plan, store, todo, say) as follower:
        yield follower.finished


def workers_of(options: argparse.Namespace) -> int:
    """Processes that the options ask for; where they do not say, one on a device, else the
    cores."""
    if options.workers:
        return options.workers
    from hypersphere.training.packed import on_device

    return 1 if on_device() else os.cpu_count() or 1


def positive(text: str) -> int:
    """A whole number above 0, of an option."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def by_reason(blocked: Mapping[str, str]) -> list[str]:
    """`nsl table5, figure3-6: why`: one line per paper and reason (`<paper> <item>` -> reason)."""
    from hypersphere.reporting.board import short_list

    groups: dict[tuple[str, str], list[str]] = {}
    for item, reason in blocked.items():
        paper, _, name = item.partition(" ")
        groups.setdefault((paper, reason), []).append(name)
    return [f"{paper} {short_list(names)}: {why}" for (paper, why), names in groups.items()]


def open_store() -> Store:
    """The run store; what of it cannot be read is said."""
    from hypersphere.store import Store

    store = Store()
    for complaint in store.complaints:
        _say(complaint)
    return store


def _launcher(
    options: argparse.Namespace,
) -> Callable[[Sequence[Node], Store, int, Callable[[str], None]], Iterator[Outcome]]:
    """What carries out nodes as the options say; the preset is checked now."""
    from hypersphere.execute import run_nodes
    from hypersphere.training.packed import on_device

    if options.launcher == LOCAL:
        in_flight = options.runs_per_device or IN_FLIGHT if on_device() else 1
        return lambda nodes, store, workers, say: run_nodes(nodes, store, workers, say, in_flight)
    from hypersphere.launch.engines import check_engine
    from hypersphere.launch.launch import launch
    from hypersphere.launch.settings import launcher_settings

    settings = launcher_settings(options.launcher, options.set)
    if options.workers:
        settings = settings.with_jobs(options.workers)
    if options.runs_per_device:
        settings = settings.model_copy(update={"runs_per_device": options.runs_per_device})
    if options.detach and settings.engine != "slurm":
        raise UserError(
            f"--detach: jobs of {settings.engine} end with the process that started them"
        )
    check_engine(settings)
    return lambda nodes, store, _, say: launch(
        nodes, store, settings, say, fail_fast=options.fail_fast, detach=options.detach
    )


def _without_failed(nodes: list[Node], store: Store, retry: bool) -> tuple[list[Node], list[str]]:
    """The nodes to try, and a line for each error that would only come again: a failure that the
    user could not mend (a UserError names what to mend, and is tried again by every call)."""
    if retry:
        return nodes, []
    barred: set[str] = set()
    errors: dict[str, list[str]] = {}
    for node in nodes:
        state = store.state(node.id)
        if node.parent in barred:
            barred.add(node.id)
        elif state.name == "failed" and not state.about.get("mendable"):
            barred.add(node.id)
            errors.setdefault(str(state), []).append(node.id)
    lines = [
        f"not tried again: run {ids[0]}{f' and {len(ids) - 1} more' if ids[1:] else ''} {text};"
        " --retry-failed does"
        for text, ids in errors.items()
    ]
    return [node for node in nodes if node.id not in barred], lines


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
