"""Drawing the pictures of many items, by all cores."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from hypersphere import processes
from hypersphere.errors import UserError
from hypersphere.reporting import plots
from hypersphere.reporting.cells import Item

WORTH = 8  # pictures, each about a second, for a process whose start takes three


def draw(items: Sequence[tuple[Item, Path]]) -> list[Path]:
    """Write the pictures of items, each into a folder; the files in order. Few are drawn here, many
    in processes beside this one. Raises UserError when one of these is killed."""
    drawn = [(item, folder) for item, folder in items if item.plot.kind != "none"]
    workers = min(os.cpu_count() or 1, len(drawn) // WORTH)
    if workers < 2:
        written = [plots.write(item, folder) for item, folder in drawn]
    else:
        with processes.pool(workers) as pool:
            futures = [pool.submit(plots.write, item, folder) for item, folder in drawn]
            try:
                written = [future.result() for future in futures]
            except BrokenProcessPool:
                raise UserError(
                    "a process that drew pictures was killed (out of memory?); run `hypersphere"
                    " render` again: what it reads is all there"
                ) from None
            finally:
                pool.shutdown(cancel_futures=True)
    return [path for paths in written for path in paths or ()]
