"""Doing the work of a plan: one node at a time, or many in one-thread processes."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from hypersphere import processes, provenance
from hypersphere.config import Computation, Evaluation, Node, Training
from hypersphere.errors import ContradictedError, UserError
from hypersphere.files import disk_trouble, sha256_of
from hypersphere.store import EMBEDDINGS, MODEL, Store, TakenError, artifacts
from hypersphere.store.records import Record

if TYPE_CHECKING:  # torch comes with it
    from hypersphere.training.packed import Ready

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
    queue = _Queue(nodes, store)
    if workers <= 1:
        if in_flight > 1:
            yield from _packed(queue, say, in_flight)
            return
        while queue.waiting:
            found = queue.next()
            assert found is not None  # parents come before children
            node, patient = found
            if outcome := queue.lost(node):
                yield outcome
            else:
                yield from queue.settle(node, partial(_attempt, node, store, say, patient))
        return
    running: dict[Future[Outcome], Node] = {}
    # One thread per process must be known before torch is imported there.
    os.environ["OMP_NUM_THREADS"] = "1"
    with processes.pool(workers, _start_worker, store) as pool:
        while queue.waiting or running:
            while len(running) < workers:  # more would put evaluations behind all trainings
                if (found := queue.next()) is None:
                    break
                node, patient = found
                if outcome := queue.lost(node):
                    yield outcome
                else:
                    running[_submit(pool, node, patient)] = node
            done, _ = wait(running, return_when=FIRST_COMPLETED) if running else ((), ())
            for future in done:
                node = running.pop(future)
                yield from queue.settle(node, partial(_result, future, node))


class _Queue:
    """Nodes that are still to be worked out, parents before children. What another process is at
    comes last; several that start at once find that out as late as when they claim a run."""

    def __init__(self, nodes: Sequence[Node], store: Store) -> None:
        self.waiting, self.store = {node.id: node for node in nodes}, store
        self._unfinished = set(self.waiting)
        self._failed: set[str] = set()
        self._put_off: set[str] = set()

    def next(self) -> tuple[Node, bool] | None:
        """Take the first node whose parent is through, of those that nobody is at if there are
        such, and whether to wait for it if somebody is. None when all wait for their parents."""
        ready = self._ready()
        for node in ready:
            if not _taken(node, self.store):
                return self._take(node, free=True)
        return self._take(ready[0], free=False) if ready else None

    def wave(self) -> list[tuple[Node, bool]]:
        """Take all nodes at once whose parents are through, with the same preference."""
        ready = self._ready()
        free = [node for node in ready if not _taken(node, self.store)]
        return [self._take(node, free=bool(free)) for node in free or ready]

    def lost(self, node: Node) -> Outcome | None:
        """The outcome of a node whose parent failed, noted."""
        if node.parent not in self._failed:
            return None
        return self._note(Outcome(node, f"its parent {node.parent} failed"))

    def settle(self, node: Node, work: Callable[[], Outcome]) -> Iterator[Outcome]:
        """What `work` makes of a node, noted. Nothing where it finds the node taken meanwhile: that
        is put back, and waited for the next time, else a process with nothing else to do would ask
        again and again."""
        try:
            yield self._note(work())
        except TakenError:
            self.waiting[node.id] = node
            self._put_off.add(node.id)

    def _note(self, outcome: Outcome) -> Outcome:
        """Remember what nothing can rest on after this outcome, and what can."""
        self._unfinished.discard(outcome.node.id)
        if outcome.error:
            self._failed.add(outcome.node.id)
        if outcome.parent_failed:
            self._failed.add(str(outcome.node.parent))
        return outcome

    def _ready(self) -> list[Node]:
        return [node for node in self.waiting.values() if node.parent not in self._unfinished]

    def _take(self, node: Node, *, free: bool) -> tuple[Node, bool]:
        del self.waiting[node.id]
        return node, not free or node.id in self._put_off


def _packed(queue: _Queue, say: Say, in_flight: int) -> Iterator[Outcome]:
    """The outcomes of a queue, so many trainings at once whose parents are through."""
    from hypersphere.training.together import together
    from hypersphere.training.train import steps_of

    provenance.git()
    store = queue.store
    while queue.waiting:
        trainings: list[tuple[Training, bool]] = []
        for node, patient in queue.wave():
            if outcome := queue.lost(node):
                yield outcome
            elif isinstance(node, Training) and store.get(node.id) is None:
                trainings.append((node, patient))
            else:
                yield from queue.settle(node, partial(_attempt, node, store, say, patient))

        def start(job: tuple[Training, bool]) -> Generator[Ready, None, object]:
            return steps_of(job[0], _claiming(store, job[1]), say=say)

        for (node, _), error in together(trainings, start, in_flight, say):
            yield from queue.settle(node, partial(_ended, node, error, store))


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


def _claiming(store: Store, patient: bool) -> Store:
    """The store that waits for whoever works on a run, or raises TakenError."""
    return store if patient else store.hurried()


def _attempt(node: Node, store: Store, say: Say, patient: bool) -> Outcome:
    """The outcome of a node. Raises TakenError, unless patient, when somebody works on it."""
    try:
        run_node(node, _claiming(store, patient), say)
    except Exception as error:  # one failing run must not end the others
        return _ended(node, error, store)
    return _ended(node, None, store)


def _ended(node: Node, error: Exception | None, store: Store) -> Outcome:
    """The outcome of a run that ended with `error`, which the store remembers, or well. Raises
    TakenError, with which a run has not begun."""
    if error is None:
        return Outcome(node)
    if isinstance(error, TakenError):
        raise error
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


def _work(node: Node, patient: bool) -> Outcome:
    assert _worker_store is not None
    # Nothing is said here: epochs are in the run's own log.
    return _attempt(node, _worker_store, lambda line: None, patient)


def _submit(pool: ProcessPoolExecutor, node: Node, patient: bool) -> Future[Outcome]:
    try:
        return pool.submit(_work, node, patient)
    except BrokenProcessPool as error:  # a killed process takes the whole pool with it
        future: Future[Outcome] = Future()
        future.set_exception(error)
        return future


def _result(future: Future[Outcome], node: Node) -> Outcome:
    try:
        return future.result()
    except BrokenProcessPool:
        return Outcome(node, "a process was killed (out of memory?); run again to go on")
