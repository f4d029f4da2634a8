"""A plan of thousands of runs: seconds and memory to expand it, hash it and report its state.

python scripts/benches/many_runs.py --runs 10000      prints figures as JSON

The plan is that of a paper's item with as many repeats as it takes. Half of its runs are done, in
records of their own or in a table of records; of the others some are queued, failed, interrupted,
or at work while the status is asked for, by a process that knows nothing yet.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hypersphere import cli, provenance
from hypersphere.config import Node
from hypersphere.papers import spec
from hypersphere.papers.plan import make_plan
from hypersphere.papers.planned import Plan
from hypersphere.store import Store
from hypersphere.store.records import Record, write_lines

PRESET, PAPER, ITEM = "paper", "nsl", "table2"
EPOCHS = 40  # in the curve of a record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000, help="of the plan, at least")
    for process in ASKED:  # what it measures, of so many repeats
        parser.add_argument(f"--{process}", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    asked = [ask(getattr(options, name)) for name, ask in ASKED.items() if getattr(options, name)]
    print(json.dumps(asked[0] if asked else measure(options.runs), indent=2))


def measure(runs: int) -> dict[str, object]:
    """The figures of a plan of at least so many runs, over a store made for it."""
    each, names = len(planned(1).nodes), numbers()
    repeats = -(-runs // each)
    plan = planned(repeats)
    with tempfile.TemporaryDirectory() as folder:
        places = {
            "HYPERSPHERE_RUNS": f"{folder}/runs",
            "HYPERSPHERE_RESULTS": f"{folder}/results",
        }
        store = Store(Path(folder) / "runs", Path(folder) / "results")
        with contextlib.ExitStack() as at_work:
            states = fill(store, plan, at_work, names)
            number = len(plan.nodes)
            del plan  # another process is about to hold as much
            found = [
                subprocess.run(
                    [sys.executable, __file__, f"--{process}", str(repeats)],
                    env={**os.environ, **places}, stdout=subprocess.PIPE, text=True, check=True,
                ).stdout
                for process in ASKED
            ]  # fmt: skip
    told, parts = map(json.loads, found)
    return {"runs": number, "states": states, **told, "parts_cpu_seconds": parts}


def ask(repeats: int) -> dict[str, object]:
    """What `hypersphere status` says of the plan, what it took, and what its parts take alone."""
    started, began = time.perf_counter(), time.process_time()
    repeat(repeats)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        cli.main(["status", "--preset", PRESET, "--paper", PAPER, "--item", ITEM, "--json"])
    seconds, cpu = time.perf_counter() - started, time.process_time() - began
    (row,) = json.loads(said.getvalue())
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "peak_memory_mb": peak_memory(),
        "said": {
            key: len(v) if isinstance(v, list) else v
            for key, v in row.items()
            if isinstance(v, list | int)  # counts: texts may name places of this machine
        },
    }


def parts(repeats: int) -> dict[str, float]:
    """CPU seconds of planning, of opening the store, of collecting the records of the plan, and of
    its table: numbers into cells, verdicts, files."""
    from hypersphere.papers import render  # `status` needs neither, nor their memory
    from hypersphere.reporting import tables

    make_plan("quick", [PAPER], [ITEM])  # what is read once, whatever is planned
    taken, started = {}, time.process_time()

    def took(name: str) -> None:
        nonlocal started
        taken[name] = round(time.process_time() - started, 2)
        started = time.process_time()

    plan = planned(repeats)
    took("plan")
    store = Store()
    took("open")
    render.collect(plan, store, PRESET)
    took("collect")
    for item in render.judged_items(plan.items[0], store):
        tables.write(item, store.results / PRESET / "tables" / PAPER)
    took("table")
    return taken


def peak_memory() -> int | None:
    """Of this process, in MB; None where /proc does not say it (getrusage also counts what its
    parent had when it was started)."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(x.split()[1]) // 1024 for x in lines if x.startswith("VmHWM:")), None)


def repeat(repeats: int) -> None:
    """Let the paper's preset have so many seeds, in this process."""
    about = spec.paper(PAPER).about
    about.presets[PRESET] = about.presets[PRESET].model_copy(update={"seeds": list(range(repeats))})


def planned(repeats: int) -> Plan:
    repeat(repeats)
    return make_plan(PRESET, [PAPER], [ITEM])


def fill(
    store: Store, plan: Plan, at_work: contextlib.ExitStack, names: set[str]
) -> dict[str, int]:
    """Give the plan's runs states, in turn; how many have each. at_work: what holds the leases of
    those at work; names: of the numbers of each record."""
    counts = dict.fromkeys(("done", "queued", "failed", "interrupted", "running", "missing"), 0)
    listed: list[Record] = []
    for index, node in enumerate(plan.nodes.values()):
        kind = ("done", "done", "queued", "done", "failed", "done", "interrupted", "missing")[
            index % 8
        ]
        if index in (2, 10):
            kind = "running"
            at_work.enter_context(store.claim(node.id))
        elif kind == "done" and index % 2:
            listed.append(record_of(node, names))
        elif kind == "done":
            store.write(record_of(node, names))
        elif kind == "queued":
            store.queued(node.id, launcher="slurm", job="runs/jobs/1/1.json")
        elif kind == "failed":
            store.failed(node.id, "Traceback\nZeroDivisionError: made up", mendable=False)
        elif kind == "interrupted":  # what a killed process of this machine leaves behind
            with store.claim(node.id):
                lease = next(store.folder(node.id).glob("lease.*.json"))
                text = lease.read_text()
            lease.write_text(text)
        counts[kind] += 1
    write_lines(store.results / PRESET / "records.jsonl", listed)
    return counts


def numbers() -> set[str]:
    """What the paper's tables and figures show, whichever run has it, as records name it."""
    items = make_plan(PRESET, [PAPER]).items
    shown = {name for item in items for cell in item.cells for name in cell.metrics.values()}
    return {name.partition("/")[2] for name in shown}


def record_of(node: Node, names: set[str]) -> Record:
    """A record as large as those of real runs."""
    curve = [{"epoch": e + 1, "loss": 1 / (e + 1), "seconds": 1.25} for e in range(EPOCHS)]
    return provenance.stamp(node, time.monotonic(), "cpu") | {
        "config": getattr(node, "raw", {}),
        "diverged": False,
        "epochs": curve,
        "metrics": {"loss": 0.1} | dict.fromkeys(names, 0.5),
        "artifacts": {},
    }


ASKED = {"ask": ask, "parts": parts}


if __name__ == "__main__":
    main()
