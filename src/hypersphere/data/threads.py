"""Work on many files by threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item, Result = TypeVar("Item"), TypeVar("Result")
AHEAD = 4096  # that wait at a time: half a million would take a gigabyte


def in_threads(
    function: Callable[[Item], Result], items: Sequence[Item], threads: int
) -> Iterator[Result]:
    """function(item) of each, in order; what one raises is raised here."""
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(items), AHEAD):
            yield from pool.map(function, items[start : start + AHEAD])
