"""A real SLURM: its jobs fill the same store, through preemption and the death of a node."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hypersphere import paths
from hypersphere.papers.plan import make_plan
from hypersphere.store import Store, leases
from tests.slurm.cluster import lacking, running

WHY = lacking() or ("" if importlib.util.find_spec("submitit") else "needs submitit")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(WHY), reason=f"no SLURM here: {WHY} (make test-cluster installs it)"),
]

PAPER, ITEM = "embedded-spaces", "figure2"
RUN = ["run", "--paper", PAPER, "--item", ITEM]
SLURM = ["--launcher", "slurm", "--set", "mem_gb=0", "--set", "runs_per_job=4"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with running(tmp_path_factory.mktemp("slurm")) as found:
        yield found


def hypersphere(*words, **environment):
    done = subprocess.run(
        [sys.executable, "-m", "hypersphere.cli", *words], capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


def places(folder):
    return {name: str(folder / name) for name in ("HYPERSPHERE_RUNS", "HYPERSPHERE_RESULTS")}


def tables(place) -> dict[str, bytes]:
    results = Path(place["HYPERSPHERE_RESULTS"])
    return {str(f.relative_to(results)): f.read_bytes() for f in results.rglob("tables/**/*.*")}


def test_preempted_and_with_a_node_dead_it_ends_with_the_same_tables(cluster, tmp_path):
    local, remote = places(tmp_path / "local"), places(tmp_path / "slurm")
    submitted = hypersphere(*RUN, *SLURM, "--detach", **remote, **cluster.environment)
    assert "jobs submitted for" in submitted.stderr
    runs = Path(remote["HYPERSPHERE_RUNS"])
    store = Store(runs, Path(remote["HYPERSPHERE_RESULTS"]))
    nodes = make_plan("quick", [PAPER], [ITEM]).nodes
    assert {store.state(node).name for node in nodes} <= {"queued", "running", "done"}

    def at_work(node):
        """Ids of runs whose job is on that node now, and that job."""
        jobs = cluster.run("squeue", "-h", "-r", "-t", "R", "-w", node, "-o", "%i").split()
        found = {i for i in nodes if any(f"(slurm {j})" in store.owner(i) for j in jobs)}
        return found, jobs

    # the signal of a preemption or time limit, to a job that is at work
    cluster.wait_for(lambda: at_work("n1")[0], 120)
    (run, *_), (preempted,) = at_work("n1")
    os.kill(store.state(run).about["pid"], signal.SIGUSR2)
    log = next((runs / "jobs").glob(f"*/slurm/{preempted}_0_log.out"))
    cluster.wait_for(lambda: "preempted" in log.read_text(), 60)

    # a node is gone, with what it was doing; no daemon of it says a word
    cluster.wait_for(lambda: at_work("n2")[0], 120)
    cut_off, _ = at_work("n2")
    cluster.kill_node("n2")
    over = {"interrupted", "done"}
    cluster.wait_for(lambda: {store.state(i).name for i in cut_off} <= over, 20)
    controller = cluster.folder / "slurmctld.log"
    cluster.wait_for(lambda: "due to failure of node n2" in controller.read_text(), 120)
    cluster.start_node("n2")

    # the same call again takes over the jobs that are still there
    collected = hypersphere(*RUN, *SLURM, **remote, **cluster.environment)
    assert "runs are with jobs that were submitted before" in collected.stderr
    assert "submitted for" not in collected.stderr.replace("submitted before", "")
    hypersphere(*RUN, "--workers", "2", **local)
    assert tables(remote) == tables(local) and len(tables(local)) >= 3
    # each epoch of each run was finished once, and counted once
    for log in runs.glob("*/log.txt"):
        epochs = [int(line.split()[1].split("/")[0]) for line in log.read_text().splitlines()]
        assert epochs == sorted(set(epochs))
    rows = json.loads(hypersphere("status", "--paper", PAPER, "--json", **remote).stdout)
    (row,) = [row for row in rows if row["item"] == ITEM]
    assert row["complete"] and not row["running"] and not row["interrupted"]


def test_a_multirun_of_hydra_goes_the_same_way(cluster, tmp_path):
    place = places(tmp_path)
    words = "-m paper=nsl hydra/launcher=slurm hydra.launcher.mem_gb=0 schedule.epochs=1".split()
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, paths.root() / "scripts/train.py", *words, "seed=0,1"],
        env={**os.environ, **place, **cluster.environment}, capture_output=True, text=True,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "slurm: 2 jobs submitted" in done.stdout and "training loss" in done.stdout
    store = Store(Path(place["HYPERSPHERE_RUNS"]), Path(place["HYPERSPHERE_RESULTS"]))
    trained = [r["run_id"] for r in store.records.values() if r["kind"] == "training"]
    assert len(trained) == 2 and time.monotonic() - started < 120
    assert all("slurm " in leases._newest(store.folder(i)).job for i in trained)
