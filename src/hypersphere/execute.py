"""Doing the work of a plan: one node at a time, or many in one-thread processes."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from hypersphere import processes, provenance
from hypersphere.config import Computation, Evaluation, Node, Training
from hypersphere.errors import ContradictedError, UserError
from hypersphere.files import disk_trouble, sha256_of
from hypersphere.store import EMBEDDINGS, MODEL, Store, artifacts
from hypersphere.store.records import Record

Say = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """What became of one node: done, or why it failed. parent_failed: because its parent, although
    there is a record, could not be worked out again."""

    node: Node
    error: str = ""
    parent_failed: bool = False


def run_node(node: Node, store: Store, say: Say = print) -> Record:
    """The record of `node`, worked out now unless it is done. Parents must be done already."""
    provenance.git()  # remembered now: the code that runs is the code that was just imported
    if isinstance(node, Training):
        from hypersphere.training.train import train

        return train(node, store, say=say)
    if (record := store.get(node.id)) is not None:
        return record
    parent = _parent_with_files(node, store, say) if isinstance(node, Evaluation) else None
    with store.claim(node.id, say):
        if (record := store.get(node.id)) is not None:
            return record
        started = time.monotonic()
        diverged = parent is not None and parent["diverged"]
        found = {} if diverged else _work_out(node, store)
        arrays = {name: value for name, value in found.items() if isinstance(value, dict)}
        record = provenance.stamp(node, started, _device(node))
        if parent is not None and not diverged:  # trained again elsewhere they are others
            record["parent_weights"] = sha256_of(store.folder(parent["run_id"]) / MODEL)
        record |= {
            "diverged": diverged,
            "metrics": {name: value for name, value in found.items() if name not in arrays},
            "artifacts": artifacts.save(store.folder(node.id) / artifacts.FOLDER, arrays),
        }
        store.write(record)
        return record


def run_nodes(
    nodes: Sequence[Node], store: Store, workers: int, say: Say, in_flight: int = 1
) -> Iterator[Outcome]:
    """Work out `nodes` (parents before children), yielding each outcome as it comes.

    workers: number of processes, each with one thread: on a CPU that uses the cores best
    (docs of the speed figures: two one-thread trainings beat one with two threads). With 1 the
    work is done in this process; in_flight: then so many trainings at once, for a device that one
    alone does not fill. A node whose parent failed fails too, and says so. What another process is
    at is left for later, so that several launchers share the work. To stop early, close the
    iterator: what is under way ends first.
    """
    failed: set[str] = set()
    waiting = list(nodes)
    unfinished = {node.id for node in nodes}
    if workers <= 1:
        if in_flight > 1:
            yield from _packed(waiting, failed, store, say, in_flight)
            return
        while waiting:
            node = _next(waiting, unfinished, store)
            assert node is not None  # parents come before children
            outcome = _after(node, failed) or _attempt(node, store, say)
            failed |= _lost(outcome)
            unfinished.discard(node.id)
            yield outcome
        return
    running: dict[Future[Outcome], Node] = {}
    # One thread per process must be known before torch is imported there.
    os.environ["OMP_NUM_THREADS"] = "1"
    with processes.pool(workers, _start_worker, store) as pool:
        while waiting or running:
            while len(running) < workers:  # a queue would put evaluations behind all trainings
                if (node := _next(waiting, unfinished, store)) is None:
                    break
                if outcome := _after(node, failed):
                    failed |= _lost(outcome)
                    unfinished.discard(node.id)
                    yield outcome
                else:
                    running[_submit(pool, node)] = node
            done, _ = wait(running, return_when=FIRST_COMPLETED) if running else ((), ())
            for future in done:
                node = running.pop(future)
                outcome = _result(future, node)
                failed |= _lost(outcome)
                unfinished.discard(node.id)
                yield outcome


def _packed(
    nodes: Sequence[Node], failed: set[str], store: Store, say: Say, in_flight: int
) -> Iterator[Outcome]:
    """The outcomes of nodes, so many trainings at once whose parents are through."""
    from hypersphere.training.together import together
    from hypersphere.training.train import steps_of

    provenance.git()
    left = list(nodes)
    while left:
        ids = {node.id for node in left}
        wave = [node for node in left if node.parent not in ids]
        wave = [node for node in wave if not _taken(node, store)] or wave
        chosen = {node.id for node in wave}
        left = [node for node in left if node.id not in chosen]
        trainings: list[Training] = []
        for node in wave:
            if outcome := _after(node, failed):
                failed |= _lost(outcome)
                yield outcome
            elif isinstance(node, Training) and store.get(node.id) is None:
                trainings.append(node)
            else:
                outcome = _attempt(node, store, say)
                failed |= _lost(outcome)
                yield outcome
        trainings.sort(key=lambda each: _taken(each, store))  # theirs would be waited for
        jobs = together(trainings, lambda each: steps_of(each, store, say=say), in_flight, say)
        for node, error in jobs:
            outcome = _failed(node, error, store) if error else Outcome(node)
            failed |= _lost(outcome)
            yield outcome


def _next(waiting: list[Node], unfinished: set[str], store: Store) -> Node | None:
    """Take the first node whose parent is through from `waiting`: one that is not taken, if there
    is such a one. None when all wait for their parents."""
    chosen = None
    for index, node in enumerate(waiting):
        if node.parent in unfinished:
            continue
        if not _taken(node, store):
            return waiting.pop(index)
        chosen = index if chosen is None else chosen
    return None if chosen is None else waiting.pop(chosen)


def _taken(node: Node, store: Store) -> bool:
    """Whether somebody works on a node, or on its parent (trained again, its files were gone)."""
    return any(store.owner(run) for run in (node.id, node.parent) if run)


def _work_out(node: Evaluation | Computation, store: Store) -> dict[str, Any]:
    """Numbers (one, or one per draw) and artifacts (arrays by name) of a node, by name."""
    if isinstance(node, Computation):
        return node.component.build()
    import torch

    from hypersphere.evaluation.embeddings import Embeddings
    from hypersphere.training.train import load_network
    from hypersphere.training.trained import TrainedNetwork

    training, folder = node.training, store.folder(node.training.id)
    where = f"{node.component.name} of {training.data.name}, run {training.id}"
    split, seed = training.split(), training.settings.seed
    with torch.no_grad():  # tensors made in inference mode could not be optimised upon
        try:
            if _reads_images(node):
                return node.component.build(TrainedNetwork(training, folder), split, seed)
            head = load_network(training, folder).head
            return node.component.build(head, Embeddings.read(folder / EMBEDDINGS), split, seed)
        except ValueError as error:  # what the evaluation's docstring says it needs
            raise UserError(f"{where}: {error}") from None


def _reads_images(node: Evaluation | Computation) -> bool:
    """Whether an evaluation says that it needs the network itself, for images that it brings."""
    return getattr(node.component.target, "reads_images", False)


def _device(node: Evaluation | Computation) -> str:
    """Where the numbers of an evaluation or computation come about."""
    import torch

    return "cuda" if _reads_images(node) and torch.cuda.is_available() else "cpu"


def _parent_with_files(node: Evaluation, store: Store, say: Say) -> Record:
    from hypersphere.training.train import train

    return train(node.training, store, need_files=True, say=say)


def _after(node: Node, failed: set[str]) -> Outcome | None:
    if node.parent in failed:
        return Outcome(node, f"its parent {node.parent} failed")
    return None


def _lost(outcome: Outcome) -> set[str]:
    """Ids of the runs that nothing can rest on after this outcome."""
    lost = {outcome.node.id} if outcome.error else set()
    if outcome.parent_failed:
        lost.add(str(outcome.node.parent))
    return lost


def _attempt(node: Node, store: Store, say: Say) -> Outcome:
    try:
        run_node(node, store, say)
    except Exception as error:  # one failing run must not end the others
        return _failed(node, error, store)
    return Outcome(node)


def _failed(node: Node, error: Exception, store: Store) -> Outcome:
    """The outcome of a run that ended with `error`, which the store remembers."""
    text, mendable = str(error), True
    if not isinstance(error, UserError):
        reason = disk_trouble(error, store.runs) if isinstance(error, OSError) else None
        text = f"{reason}: {error}" if reason else "".join(traceback.format_exception(error))
        mendable = reason is not None
    store.failed(node.id, text, mendable=mendable)
    contradicted = isinstance(error, ContradictedError) and error.run_id == node.parent
    return Outcome(node, text, contradicted)


_worker_store: Store | None = None


def _start_worker(store: Store) -> None:
    import torch

    global _worker_store
    _worker_store = store
    torch.set_num_threads(1)


def _work(node: Node) -> Outcome:
    assert _worker_store is not None
    return _attempt(node, _worker_store, lambda line: None)  # epochs are in the run's own log


def _submit(pool: ProcessPoolExecutor, node: Node) -> Future[Outcome]:
    try:
        return pool.submit(_work, node)
    except BrokenProcessPool as error:  # a killed process takes the whole pool with it
        future: Future[Outcome] = Future()
        future.set_exception(error)
        return future


def _result(future: Future[Outcome], node: Node) -> Outcome:
    try:
        return future.result()
    except BrokenProcessPool:
        return Outcome(node, "a process was killed (out of memory?); run again to go on")
