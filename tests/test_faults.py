"""Bad weather: processes killed at any moment, full and read-only disks. Nothing done is lost."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hypersphere.papers.plan import make_plan
from hypersphere.store import Store

pytestmark = pytest.mark.slow

# Starts anew as often as it is told to, in forks of one process that has imported and planned
# everything: a restart costs milliseconds, and the kills fall on work rather than on imports.
PARENT = """
import json, os, sys
import torch
torch.set_num_threads(1)
import hypersphere.training.train, hypersphere.papers.render, hypersphere.execute
from hypersphere import cli
from hypersphere.papers.plan import make_plan
from hypersphere.papers.spec import paper_keys
make_plan("quick", paper_keys())
for line in sys.stdin:
    words, environment = json.loads(line)
    if (pid := os.fork()) == 0:
        os.setsid()
        os.environ.update(environment)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os._exit(cli.main(words))
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
# Twelve trainings and what judges each.
RUN = ["run", "--paper", "embedded-spaces", "--item", "figure2", "--workers", "1"]


@pytest.fixture
def parent():
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT], env=os.environ | {"OMP_NUM_THREADS": "1"}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    yield process
    process.stdin.close()
    process.wait(60)


class Place:
    """Runs and results of their own, and `hypersphere` at work on them."""

    def __init__(self, folder: Path, parent: subprocess.Popen) -> None:
        self.runs, self.results, self.parent = folder / "runs", folder / "results", parent

    def start(self) -> int:
        """The pid of the process that is at work now."""
        where = {"HYPERSPHERE_RUNS": str(self.runs), "HYPERSPHERE_RESULTS": str(self.results)}
        self.parent.stdin.write(json.dumps([RUN, where]) + "\n")
        self.parent.stdin.flush()
        return int(self.parent.stdout.readline())

    def status(self) -> int:
        return int(self.parent.stdout.readline())

    def store(self) -> Store:
        return Store(self.runs, self.results)

    def tables(self) -> dict[str, bytes]:
        found = self.results.rglob("tables/**/*.*")
        return {str(f.relative_to(self.results)): f.read_bytes() for f in found}


def test_fifty_kills_at_random_moments(tmp_path, parent):
    quiet, stormy = Place(tmp_path / "quiet", parent), Place(tmp_path / "stormy", parent)
    quiet.start()
    assert quiet.status() == 0
    plan = make_plan("quick", ["embedded-spaces"], ["figure2"])
    each = sum(quiet.store().get(i)["seconds"] for i in plan.nodes) / 25
    chance, kills, taken = random.Random(0), 0, 0
    finished: dict[str, bytes] = {}
    while kills < 50:
        pid = stormy.start()
        time.sleep(chance.uniform(0, each))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        status = stormy.status()
        assert status in (0, -signal.SIGKILL)
        kills += status != 0
        assert stormy.store().complaints == []
        now = {f.parent.name: f.read_bytes() for f in stormy.runs.glob("*/record.json")}
        # what was reported done is still there, and was not made a second time
        assert {run: now.get(run) for run in finished} == finished
        finished = now
        if len(finished) >= len(plan.nodes) - 4:
            # near the end: the storm goes on over runs that are taken away again
            for run in chance.sample(sorted(finished), 8):
                shutil.rmtree(stormy.runs / run)
                del finished[run]
                taken += 1
            for file in stormy.results.rglob("records.jsonl"):
                file.unlink()
    stormy.start()
    assert stormy.status() == 0
    assert stormy.tables() == quiet.tables() and len(quiet.tables()) >= 3
    logs = list(stormy.runs.glob("*/log.txt"))
    for log in logs:  # each epoch was finished and counted once
        epochs = [int(line.split()[1].split("/")[0]) for line in log.read_text().splitlines()]
        assert epochs == sorted(set(epochs))
    assert len(logs) == len(plan.trainings())
    mine, theirs = stormy.store(), quiet.store()
    for node_id in plan.nodes:
        a, b = mine.get(node_id), theirs.get(node_id)
        assert a.get("files") == b.get("files")  # checksums of weights and embeddings


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")


@contextlib.contextmanager
def small_disk(folder: Path, size: str):
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def command(*words, **environment):
    return subprocess.run(
        [sys.executable, "-m", "hypersphere.cli", *words], capture_output=True, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment, timeout=300,
    )  # fmt: skip


@needs_root
def test_a_full_disk_is_said_and_the_work_goes_on_from_where_it_was(tmp_path):
    item = ["--paper", "nsl", "--item", "figure11", "--workers", "1"]
    with small_disk(tmp_path / "disk", "6m") as disk:
        place = {"HYPERSPHERE_RUNS": str(disk / "runs"), "HYPERSPHERE_RESULTS": str(tmp_path / "r")}
        full = command("run", *item, **place)
        assert full.returncode == 1 and "No space left on device" in full.stderr
        assert "Traceback" not in full.stderr
        store = Store(disk / "runs", tmp_path / "r")
        done = {f.parent.name: f.read_bytes() for f in (disk / "runs").glob("*/record.json")}
        assert store.complaints == [] and done
        subprocess.run(["mount", "-o", "remount,size=200m", disk], check=True)
        again = command("run", *item, **place)
        assert again.returncode == 0, again.stderr
        assert {run: (disk / "runs" / run / "record.json").read_bytes() for run in done} == done
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        other = ["--paper", "nsl", "--item", "figure8", "--workers", "1"]
        failed = command("run", *other, **place)  # its runs are not there
        assert failed.returncode == 1 and "HYPERSPHERE_RUNS" in failed.stderr
        assert "Read-only file system" in failed.stderr and "Traceback" not in failed.stderr
        assert command("render", *item[:-2], **place).returncode == 0  # reading needs no writing
        assert command("status", *item[:-2], **place).returncode == 0
