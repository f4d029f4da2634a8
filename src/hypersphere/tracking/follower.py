"""Mirroring runs as they finish, by a process of its own: W&B may fail there, or hang, and the
trainings neither notice nor wait."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from hypersphere.config import Node, check_training
from hypersphere.store import Store
from hypersphere.tracking.mirrored import Mirrored, groups, planned, run_of
from hypersphere.tracking.push import mode, push, stated_mode

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hypersphere.papers.planned import Plan

LAST = 120.0  # seconds that W&B gets for what is left when the last training is through


class Follower:
    """Hands each run of `plan` on when its training and all that judges it are through.

    todo: the nodes that are about to be worked out. As a context, it waits at its end for what W&B
    has not taken yet, but no longer than `patience` seconds.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        todo: Sequence[Node],
        say: Callable[[str], None],
        patience: float = LAST,
    ) -> None:
        self.plan, self.store, self.say, self.patience = plan, store, say, patience
        self._groups = groups(plan.nodes.values())
        self._left = {run: {n.id for n in nodes} for run, nodes in groups(todo).items()}
        self._lines = queue.SimpleQueue[str | None]()
        stated_mode()  # a wrong one shows before anything trains
        # Everything of W&B's is in that process: a service of this one would be waited for.
        own = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hypersphere.tracking.follower"],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=own,
        )  # fmt: skip
        # A thread of its own: a pipe whose reader hangs takes no more when it is full.
        self._writer = threading.Thread(target=self._write, daemon=True)
        self._writer.start()

    def finished(self, node: Node) -> None:
        """Note that a node is through, well or not."""
        run = run_of(node)
        left = self._left.get(run, set())
        left.discard(node.id)
        if not left and (found := planned(self.plan, self.store, self._groups[run])):
            self._lines.put(json.dumps(asdict(found)))

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.put(None)
        try:
            self._process.wait(self.patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self.say(
                f"W&B: not through {self.patience:.0f} s after the last run; `hypersphere track"
                " push` mirrors the rest another time"
            )

    def _write(self) -> None:
        assert self._process.stdin is not None
        try:
            while (line := self._lines.get()) is not None:
                self._process.stdin.write(line + "\n")
                self._process.stdin.flush()
            self._process.stdin.close()
        except (OSError, ValueError):  # it gave up, and said why
            return


def figures(run: Mirrored, store: Store) -> Iterator[tuple[str, Figure]]:
    """The pictures of a mirrored training whose files are here."""
    from hypersphere.tracking.pictures import pictures

    if run.kind == "training":
        raw = {name: value for name, value in run.config.items() if name != "provenance"}
        yield from pictures(check_training(raw), store.folder(run.run_id))


def main() -> None:
    """Mirror what comes on standard input, a run per line."""
    store = Store()
    runs = (Mirrored(**json.loads(line)) for line in sys.stdin)
    push(runs, store, mode(), _say, pictures=lambda run: figures(run, store))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
