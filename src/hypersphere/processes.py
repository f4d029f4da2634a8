"""Processes of our own that work beside this one and end with it."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def pool(
    workers: int, start: Callable[..., None] | None = None, *given: Any
) -> ProcessPoolExecutor:
    """`workers` processes, each of which calls `start(*given)` first.

    They are started afresh: a forked copy of a process in which torch has threads may hang.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, _begin, (start, given))


def _begin(start: Callable[..., None] | None, given: tuple[Any, ...]) -> None:
    watch_parent()
    if start is not None:
        start(*given)


def watch_parent() -> None:
    """End this process when the one that started it does: a worker whose parent was killed would
    go on beside whoever takes over."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
