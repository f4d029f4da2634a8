"""Several trainings in flight on one device, in one process and one thread."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from hypersphere.errors import UserError
from hypersphere.training.packed import Ready

Job = TypeVar("Job")

PAUSE = 2e-4  # seconds, while the device has enough to do


@dataclass
class Flight(Generic[Job]):
    """A job under way."""

    job: Job
    steps: Generator[Ready, None, object]
    ready: Ready


def together(
    jobs: Sequence[Job],
    start: Callable[[Job], Generator[Ready, None, object]],
    in_flight: int,
    say: Callable[[str], None] = print,
) -> Iterator[tuple[Job, Exception | None]]:
    """Carry `jobs` through, at most `in_flight` at a time, yielding each with its error, if any.

    start: a job's steps (training.train.steps_of). A job is let on when its device has caught up;
    what it works out does not depend on the others. One that fails does not end the others; one
    that runs out of memory is given up and tried again with fewer beside it, at last alone.
    """
    waiting, flying, limit = deque(jobs), list[Flight[Job]](), in_flight
    full = False
    while waiting or flying:
        while waiting and len(flying) < limit:
            job = waiting.popleft()
            flying.append(Flight(job, start(job), _at_once))
        if full:  # now that the error, which held what the run had, is gone
            _release()
            full = False
        moved = False
        for flight in list(flying):
            if not flight.ready():
                continue
            moved = True
            error: Exception | None = None
            try:
                flight.ready = next(flight.steps)
                continue
            except StopIteration:
                pass
            except torch.OutOfMemoryError as refused:
                if len(flying) > 1:
                    flying.remove(flight)
                    limit = len(flying)
                    waiting.appendleft(flight.job)
                    full = True
                    say(f"out of memory with {limit + 1} runs in flight: going on with {limit}")
                    continue
                why = str(refused).splitlines()[0]
                error = UserError(f"out of memory, alone on its device: {why}")
            except Exception as raised:  # one failing run must not end the others
                error = raised
            flying.remove(flight)
            yield flight.job, error
        if not moved:
            time.sleep(PAUSE)


def _at_once() -> bool:
    return True


def _release() -> None:
    """Give back what a run that was given up held on the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
