"""Progress for people: a bar on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

PLAIN_EVERY = 20.0  # seconds between plain lines


class RunProgress:
    """Runs done of `total`, and the time left.

    weights: expected seconds of each run by its id (any unit), so that the time left is not
    fooled by short runs finishing first.
    """

    def __init__(self, weights: dict[str, float], console: Console | None = None) -> None:
        self.weights, self.done, self.failed = weights, 0, 0
        self.left = sum(weights.values())
        self.total_weight = self.left
        self.started = self.last_line = time.monotonic()
        self.console = console or Console(stderr=True)
        self.bar: Progress | None = None

    def __enter__(self) -> RunProgress:
        if self.console.is_terminal:
            self.bar = Progress(
                TextColumn("runs"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[left]}"),
                console=self.console,
            )
            self.bar.__enter__()
            self.task = self.bar.add_task("runs", total=len(self.weights), left="")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.__exit__(kind, error, trace)

    def finished(self, run_id: str, ok: bool) -> None:
        """One more run is through."""
        self.done += 1
        self.failed += not ok
        self.left -= self.weights.get(run_id, 0.0)
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done, left=self._left())
        elif self.done == len(self.weights) or time.monotonic() - self.last_line >= PLAIN_EVERY:
            self.last_line = time.monotonic()
            failed = f", {self.failed} failed" if self.failed else ""
            print(f"{self.done}/{len(self.weights)} runs{failed}{self._left()}", flush=True)

    def say(self, line: str) -> None:
        """A line for the user, above the bar."""
        (self.bar.console.print if self.bar is not None else _plain)(line)

    def _left(self) -> str:
        worked = self.total_weight - self.left
        # The first runs also wait for the processes to start and say nothing of the rest.
        if self.done == len(self.weights) or self.done < 4 or worked <= 0:
            return ""
        seconds = (time.monotonic() - self.started) * self.left / worked
        return f", {duration(seconds)} left"


def duration(seconds: float) -> str:
    """`42 s`, `13 min` or `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


_plain: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True)  # noqa: E731
