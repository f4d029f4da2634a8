"""`hypersphere ablate`: find out why a cell differs, one factor at a time."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hypersphere.errors import UserError
from hypersphere.run import by_reason, open_store, positive, run, run_options, workers_of

if TYPE_CHECKING:
    from hypersphere.answers.places import Found
    from hypersphere.papers.ablations import Sweep
    from hypersphere.papers.factors import Factor
    from hypersphere.reporting.ablation import Ablation
    from hypersphere.store import Store

TEXT = "why a cell differs: try what the paper leaves open, one factor at a time"
EXAMPLES = """examples:
  hypersphere ablate nsl table4 nsl 5 seen --preset small --dry-run   what would be trained
  hypersphere ablate nsl table4 nsl 5 seen --preset small             with one class split
  hypersphere ablate nsl table4 nsl 5 seen --preset small --seeds 3   with three: intervals
  hypersphere ablate hpn table1 hpn cifar100 10 --factor schedule --factor "loss over the batch"

Factors are declared in conf/paper/<key>/ablations.yaml (docs/extending.md). Runs are shared with
everything else and can be stopped at any time. A diagnosis: it changes no table's setting.
"""


def add_parser(commands: Any) -> None:
    """Add `ablate` to the parser's subcommands."""
    command = commands.add_parser(
        "ablate", help=TEXT, description=f"{TEXT[0].upper()}{TEXT[1:]}.", epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    command.set_defaults(command=_ablate, budget=None)
    command.add_argument("paper", help="key of the paper, such as nsl")
    command.add_argument("item", help="such as table4")
    command.add_argument(
        "cell", nargs="*", help="values of its row and column, in any order, or column=value"
    )
    command.add_argument("--preset", default="quick", help="quick (default), small or paper")
    command.add_argument(
        "--seeds", type=positive, default=1, metavar="N",
        help="of the cell's seeds (splits, draws) the first N (default: 1; from 3 on intervals)",
    )  # fmt: skip
    command.add_argument(
        "--factor", action="append", default=[], metavar="NAME",
        help="this factor alone (repeatable; default: all of the cell's)",
    )  # fmt: skip
    command.add_argument(
        "--dry-run", action="store_true", help="say what would be trained and how long it takes"
    )
    command.add_argument("--json", action="store_true", help="for programs")
    command.add_argument(
        "--workers", type=positive, help="processes, one thread each (default: cores)"
    )
    run_options(command)


def _ablate(options: argparse.Namespace) -> int:
    from hypersphere.papers.ablations import sweep
    from hypersphere.papers.factors import named
    from hypersphere.papers.plan import plan_of
    from hypersphere.papers.status import plan_summary
    from hypersphere.reporting.ablation_files import FOLDER, write

    store = open_store()
    cell, of = _cell(options, store)
    chosen = named(of, options.factor)
    declared, keys = cell.planned_item.paper, cell.cell.keys
    spec = declared.item(options.item)
    whole = sweep(declared, spec, options.preset, keys, of)
    some = sweep(declared, spec, options.preset, keys, chosen).of_units(options.seeds)
    plan, names = plan_of([some.item]), [factor.name for factor in chosen]
    if options.dry_run:
        summary = plan_summary(plan, store, workers_of(options))
        told = _told(whole, store).of(names)
        if options.json:
            print(json.dumps(_json(told) | {"plan": summary}, indent=2))
        else:
            print(f"{_text(told)}\n\n{_plan_text(summary, some, workers_of(options))}")
        return 0
    folder = store.results / options.preset / FOLDER
    if not (folder / declared.key / f"{whole.stem}.csv").exists():
        write(_told(whole, store), folder)  # what is there `render` keeps up to date
    with contextlib.redirect_stdout(sys.stderr):  # how it goes; the answer alone is printed
        status = run(plan, store, options)
    told = _told(whole, open_store()).of(names)
    if options.json:
        print(json.dumps(_json(told), indent=2))
    else:
        print(f"{_text(told)}\nwith all factors: {folder / declared.key / whole.stem}.md")
    return status


def _cell(options: argparse.Namespace, store: Store) -> tuple[Found, list[Factor]]:
    """The cell that the words name, and its factors. Raises UserError where it has none."""
    from hypersphere.answers.places import find, only
    from hypersphere.papers.factors import concerning, factors

    where = f"{options.paper} {options.item}"
    found = find(options.paper, options.item, options.cell, options.preset, "", store)
    cell = only(found, " ".join([where, *options.cell]))
    declared = cell.planned_item.paper
    every = factors(declared)
    if of := concerning(declared, every, options.item, cell.cell.keys):
        return cell, of
    items = ", ".join(dict.fromkeys(name for factor in every for name in factor.items))
    raise UserError(
        f"{where}: no factor in {declared.folder / 'ablations.yaml'} concerns this cell (there are"
        f" some for: {items or 'nothing'}); declare what could explain it (docs/extending.md)"
    )


def _told(whole: Sweep, store: Store) -> Ablation:
    """What all settings of the cell do so far, beside the other sweeps of its runs."""
    from hypersphere.papers.plan import make_plan
    from hypersphere.papers.render import ablations, begun_sweeps
    from hypersphere.store import read_lines

    preset = whole.item.preset
    records, _ = read_lines(store.results / preset / "records.jsonl")
    planned = make_plan(preset, [whole.item.paper.key])
    others = [s for s in begun_sweeps(planned, store, preset, records) if s.stem != whole.stem]
    return ablations([*others, whole], store)[-1]


def _plan_text(summary: Mapping[str, Any], some: Sweep, workers: int) -> str:
    """What is missing of the planned units, and how long it should take."""
    from hypersphere.progress import duration

    number = len(some.cell.nodes)
    units = f"with {number} {some.item.spec.unit}{'' if number == 1 else 's'}"
    trainings, others = summary["trainings_missing"], summary["other_nodes_missing"]
    if not trainings + others:
        return f"{units}: nothing to run, all is done"
    lines = [f"{units}: {trainings} trainings to run and {others} evaluations or computations"]
    if summary["seconds"] is not None and summary["runnable_here"]:
        lines.append(
            f"expected time: {duration(summary['hours'] * 3600)} with {workers} processes of one"
            " thread, by past records"
        )
    elif summary["runnable_here"]:
        lines.append("expected time: unknown, no finished run of these kinds yet")
    lines += [f"cannot run here: {line}" for line in by_reason(summary["blocked"])]
    return "\n".join(lines)


def _text(told: Ablation) -> str:
    """For a person to read."""
    from hypersphere.answers.explain import aligned
    from hypersphere.reporting.ablation import findings
    from hypersphere.reporting.ablation_files import DIAGNOSIS, HEADER, heading, rows, title

    lines = [title(told), f"  {heading(told)}", *(f"- {line}" for line in findings(told))]
    table, before = [HEADER], ""
    for factor, *rest in rows(told):
        table.append((factor if factor != before else "", *rest))
        before = factor
    return "\n".join([*lines, aligned(table), DIAGNOSIS])


def _json(told: Ablation) -> dict[str, Any]:
    from hypersphere.reporting.ablation import findings, ranked

    item, declared = told.item, told.declared
    return {
        "paper": item.paper,
        "item": item.name,
        "preset": item.preset,
        "keys": item.cells[0].keys,
        "unit": item.unit,
        "published": declared.published,
        "declared": {
            name: getattr(declared, name)
            for name in ("ours", "ours_std", "n", "difference", "low", "high", "margin",
                         "protocol", "verdict")
        },
        "findings": findings(told),
        "why": {name: why for name, why in told.why.items()
                if any(each.factor == name for each in told.effects)},
        "settings": [
            {
                "factor": each.factor, "setting": each.setting, "differs": each.says,
                "ours": each.judged.ours, "ours_std": each.judged.ours_std, "n": each.judged.n,
                "values": each.cell.values, "difference": each.judged.difference,
                "protocol": each.judged.protocol, "verdict": each.judged.verdict,
                "paired_n": each.n, "change": each.change, "change_low": each.low,
                "change_high": each.high, "gap": each.gap, "left": each.rest,
                "closed": each.closed, "outcome": each.outcome,
                "run_ids": list(each.judged.run_ids),
            }
            for _, effects in ranked(told.effects) for each in effects
        ],
    }  # fmt: skip
