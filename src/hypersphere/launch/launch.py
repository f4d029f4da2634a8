"""Carrying out a plan's nodes by jobs of an engine, watching them through the store."""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from hypersphere.config import Node
from hypersphere.devices import devices
from hypersphere.errors import UserError
from hypersphere.execute import Outcome, Say
from hypersphere.launch import jobs
from hypersphere.launch.engines import Engine, open_engine
from hypersphere.launch.frozen import batches
from hypersphere.launch.jobs import Job
from hypersphere.launch.settings import Settings
from hypersphere.store import Store

POLL = 1.0  # seconds between two looks at the jobs
GONE = 3  # looks without a job before it counts as ended


def launch(
    nodes: Sequence[Node],
    store: Store,
    settings: Settings,
    say: Say,
    *,
    fail_fast: bool = False,
    detach: bool = False,
) -> Iterator[Outcome]:
    """Work out `nodes` (parents before children) by jobs, yielding each outcome as it comes.

    Nodes that a job of an earlier call still has are waited for, not submitted again. Closing the
    iterator early cancels what is left. detach: return once all is submitted (an engine whose jobs
    outlive this process). Raises UserError where the engine is not to be had or takes no job.
    """
    engine = open_engine(settings)
    watch = _Watch(engine, {node.id: node for node in nodes}, store)
    try:
        adopted = watch.adopt()
        if adopted:
            say(f"{adopted} runs are with jobs that were submitted before")
        rest = [node for node in nodes if node.id not in watch.job_of]
        submitted = submit(rest, store, settings, engine, fail_fast)
        if submitted:
            count, runs = len(submitted), len(rest)
            say(f"{settings.engine}: {count} job{'s' * (count > 1)} submitted for {runs} runs")
        watch.add(submitted)
        if not detach:
            yield from watch.outcomes()
    except GeneratorExit:
        engine.cancel(engine.alive(watch.names()))
        raise
    finally:
        engine.close()


def submit(
    nodes: Sequence[Node], store: Store, settings: Settings, engine: Engine, fail_fast: bool
) -> list[Job]:
    """Freeze `nodes` in jobs, hand them to the engine and note in the store that they wait."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    folder = store.runs / jobs.FOLDER / f"{stamp}-{uuid.uuid4().hex[:6]}"
    how = settings.runs_per_device, settings.threads, fail_fast, settings.devices or devices()
    found = [
        jobs.write_job(folder / f"{index}.json", batch, *how)
        for index, batch in enumerate(batches(nodes, settings.runs_per_job))
    ]
    for job in found:
        for node_id in job.node_ids:
            store.forget(node_id)
            store.queued(node_id, launcher=settings.engine, job=os.fspath(job.file))
    if found:
        engine.submit(found)
    return found


class _Watch:
    """Jobs under way: which nodes they have, and what they said of them so far."""

    def __init__(self, engine: Engine, nodes: dict[str, Node], store: Store) -> None:
        self.engine, self.nodes, self.store = engine, nodes, store
        self.jobs: dict[Path, Job] = {}
        self.job_of: dict[str, Path] = {}
        self._read: dict[Path, int] = {}
        self._absent: dict[Path, int] = {}

    def add(self, found: Sequence[Job]) -> None:
        for job in found:
            self.jobs[job.file] = job
            self.job_of |= {i: job.file for i in job.node_ids if i in self.nodes}

    def adopt(self) -> int:
        """Take over the jobs of an earlier call that are still alive; how many nodes they have."""
        if not self.engine.durable:
            return 0
        named = {}
        for file in (self.store.runs / jobs.FOLDER).glob("*/*.job"):
            named[file.with_suffix(".json")] = file.read_text().strip()
        alive = self.engine.alive(named.values())
        for file in sorted(file for file, name in named.items() if name in alive):
            try:
                job = jobs.read_job(file)
            except UserError:
                continue  # damaged: its runs are submitted again
            # What failed in it is wanted again; the rest of what it said is read once more below.
            failed = {node_id for node_id, error in self._lines(job) if error}
            self._read.pop(file, None)
            self.jobs[file] = job
            self.job_of |= {i: file for i in job.node_ids if i in self.nodes and i not in failed}
        return len(self.job_of)

    def names(self) -> set[str]:
        return {self.jobs[file].name for file in set(self.job_of.values())}

    def outcomes(self) -> Iterator[Outcome]:
        """What becomes of each node, until none is left."""
        while self.job_of:
            open_jobs = {self.jobs[file] for file in set(self.job_of.values())}
            alive = self.engine.alive({job.name for job in open_jobs})
            for job in open_jobs:  # asked first, read after: nothing is said once it is gone
                yield from self._said(job)
                if job.name in alive:
                    self._absent.pop(job.file, None)
                    continue
                self._absent[job.file] = self._absent.get(job.file, 0) + 1
                if self._absent[job.file] >= GONE:
                    yield from self._left(job)
            if self.job_of:
                time.sleep(POLL)

    def _said(self, job: Job) -> Iterator[Outcome]:
        for node_id, error in self._lines(job):
            if self.job_of.get(node_id) == job.file:
                yield self._settle(node_id, error)

    def _lines(self, job: Job) -> list[tuple[str, str]]:
        """Ids and errors that the job wrote since the last look."""
        start = self._read.get(job.file, 0)
        if not job.outcomes.exists() or job.outcomes.stat().st_size <= start:
            return []
        with open(job.outcomes, "rb") as file:
            file.seek(start)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read[job.file] = start + len(whole)
        found = []
        for line in whole.splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # cut off by a kill
                said = json.loads(line)
                found.append((said["id"], said["error"]))
        return found

    def _left(self, job: Job) -> Iterator[Outcome]:
        """A job that is gone: its nodes are done, or it ended before them."""
        for node_id in [i for i in job.node_ids if self.job_of.get(i) == job.file]:
            if self.store.get(node_id) is not None:
                yield self._settle(node_id, "")
                continue
            state = self.store.state(node_id)
            if state.name == "queued":
                self.store.forget(node_id)
            error = state.about.get("error") if state.name == "failed" else None
            yield self._settle(
                node_id,
                error
                or f"{job.name} ended before it (killed, out of memory or time?); its log is beside"
                f" {job.file}; run again to go on",
            )

    def _settle(self, node_id: str, error: str) -> Outcome:
        del self.job_of[node_id]
        return Outcome(self.nodes[node_id], error)
