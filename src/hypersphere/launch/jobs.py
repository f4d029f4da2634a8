"""A job: a file of frozen nodes, the work on them wherever it runs, and what it says of each.

runs/jobs/<submission>/3.json       the nodes, the folders they use, the code that submitted them
runs/jobs/<submission>/3.job        what the engine calls the job
runs/jobs/<submission>/3.outcomes   one line per finished node (id, error), as they come
runs/jobs/<submission>/3.log        what is unusual
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypersphere import paths, provenance
from hypersphere.config import Node
from hypersphere.devices import DEVICES
from hypersphere.errors import UserError
from hypersphere.files import write_text
from hypersphere.launch.frozen import freeze, thaw
from hypersphere.store import Store, leases

FOLDER = "jobs"
PLACES = ("HYPERSPHERE_DATA", "HYPERSPHERE_RUNS", "HYPERSPHERE_RESULTS")


@dataclass(frozen=True)
class Job:
    """A job by its file. node_ids: of the nodes it works on."""

    file: Path
    node_ids: tuple[str, ...]

    @property
    def name(self) -> str:
        """What the engine calls it; empty while it is not submitted."""
        named = self.file.with_suffix(".job")
        return named.read_text().strip() if named.exists() else ""

    def submitted_as(self, name: str) -> None:
        write_text(self.file.with_suffix(".job"), name + "\n")

    @property
    def outcomes(self) -> Path:
        return self.file.with_suffix(".outcomes")


def write_job(
    file: Path,
    nodes: Sequence[Node],
    runs_per_device: int,
    threads: int,
    fail_fast: bool,
    devices: int = 1,
) -> Job:
    """Freeze `nodes` in a job's file. Raises UserError where a node cannot be frozen."""
    frozen = [json.loads(json.dumps(freeze(node))) for node in nodes]
    for each in frozen:
        thaw(each)
    data, runs, results = paths.data_dir(), paths.runs_dir(), paths.results_dir()
    content = {
        "code": provenance.code(),
        "places": dict(zip(PLACES, map(str, (data, runs, results)), strict=True)),
        "runs_per_device": runs_per_device,
        "threads": threads,
        "devices": devices,
        "fail_fast": fail_fast,
        "nodes": frozen,
    }
    write_text(file, json.dumps(content) + "\n")
    return Job(file, tuple(node.id for node in nodes))


def read_job(file: Path) -> Job:
    """The job of a file. Raises UserError for one that cannot be read."""
    return Job(file, tuple(node["id"] for node in _content(file)["nodes"]))


def work(file: str, engine: str, parent: int = 0) -> None:
    """Work on a job; what an engine calls, in a process of its own.

    engine: names the job in the store, where nothing else does. parent: pid of the process without
    which this one ends, or 0.
    """
    path = Path(file)
    content = _content(path)
    os.environ.update(content["places"])
    os.environ["OMP_NUM_THREADS"] = str(content["threads"])
    os.environ[DEVICES] = str(content.get("devices", 1))
    if not os.environ.get("SLURM_JOB_ID"):
        os.environ[leases.JOB] = engine
    if parent:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    import torch

    torch.set_num_threads(content["threads"])
    from hypersphere.execute import run_nodes
    from hypersphere.training.packed import on_device

    log = open(path.with_suffix(".log"), "a", buffering=1)  # noqa: SIM115  (until the end)
    with log, open(path.with_suffix(".outcomes"), "a", buffering=1) as outcomes:

        def say(line: str) -> None:
            log.write(f"{time.strftime('%H:%M:%S')} {line}\n")

        if (changed := code_change(content["code"])) is not None:
            say(changed)
        store = Store()
        for complaint in store.complaints:
            say(complaint)
        nodes = []
        for frozen in content["nodes"]:
            try:
                nodes.append(thaw(frozen))
            except UserError as error:
                store.failed(frozen["id"], str(error), mendable=True)
                outcomes.write(json.dumps({"id": frozen["id"], "error": str(error)}) + "\n")
        # In flight in this process where there is a GPU, else in one process each.
        several = content["runs_per_device"]
        found = run_nodes(nodes, store, *((1, say, several) if on_device() else (several, say)))
        for outcome in found:
            outcomes.write(json.dumps({"id": outcome.node.id, "error": outcome.error}) + "\n")
            if outcome.error:
                say(f"run {outcome.node.id} failed: {outcome.error}")
            if outcome.error and content["fail_fast"]:
                break


def code_change(submitted: dict[str, Any]) -> str | None:
    """A line when the code is not that of the submission. The runs are those that were submitted
    all the same; their records name the code that trained them."""
    now = provenance.code()
    if now["digest"] == submitted["digest"]:
        return None
    then, here = (str(code["commit"])[:12] for code in (submitted, now))
    where = f"commit {then}, now {here}" if then != here else f"commit {here}, edited since"
    return f"the code changed since this job was submitted ({where}); its runs are those submitted"


def _content(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
        assert isinstance(content["nodes"], list) and content["code"] and content["places"]
        return content
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise UserError(f"{file}: no job of ours ({error}); submit it again") from None


def _end_with(parent: int) -> None:
    """Train on no longer than the launcher lives, which hands the work out anew."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
