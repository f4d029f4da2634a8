"""How time and memory grow with classes, dimensions, runs and images: the numbers of
docs/scale.md. Seconds are of one thread of the processor, whatever else it does; megabytes are what
a process took at its peak beyond what it had before."""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from benches import many_runs
from benches.measure import Bench
from hypersphere import losses, prototypes
from hypersphere.evaluation.fewshot import evaluate
from hypersphere.heads import NormalizedSoftmax

BATCH, TURNS = 128, 3
Row = dict[str, Any]


def lines(bench: Bench, large: bool) -> None:
    """Measure and keep them. large: also those sizes that take many minutes or much memory."""
    from benches import scale_files  # needs PIL

    classes = [100, 1_000, 10_000, 100_000]
    bench.note(
        "scale: a step of the head, batch 128, by classes and dimensions",
        lambda: rows(
            head_step,
            [(k, d) for d in (64, 512) for k in classes]
            + [(classes[-1], d, True) for d in (64, 512)],
        ),
    )
    bench.note(
        "scale: class vectors inferred and few-shot evaluation, 64 dimensions, by classes",
        lambda: rows(new_classes, [(k,) for k in classes[: 4 if large else 3]]),
    )
    bench.note(
        "scale: prototypes in 25 dimensions, by classes",
        lambda: rows(placement, [(k,) for k in [100, 200, 400, 1000][: 4 if large else 3]]),
    )
    runs = [1_000, 10_000, 100_000][: 3 if large else 2]
    bench.note(
        "scale: store and tables, by runs", lambda: {"rows": [many_runs.measure(n) for n in runs]}
    )
    files = [1_000, 10_000, 100_000][: 3 if large else 2]
    bench.note(
        "scale: image files of 256 x 192 pixels, by images",
        lambda: rows(scale_files.measure, [(n,) for n in files]),
    )


def rows(measure: Callable[..., Row], sizes: Iterable[tuple[int, ...]]) -> dict[str, list[Row]]:
    """What `measure` says of each size, in a fresh process: free memory that an earlier one has
    left behind would not be counted."""
    context = multiprocessing.get_context("spawn")
    found = []
    for size in sizes:
        with context.Pool(1, torch.set_num_threads, (1,)) as pool:
            found.append(pool.apply(measure, size))
    return {"rows": found}


class Peak:
    """Megabytes beyond those at the start, None where /proc does not say."""

    def __init__(self) -> None:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
        self.before = memory("VmRSS")

    def __call__(self) -> float | None:
        now = memory("VmHWM")
        return None if now is None or self.before is None else round(now - self.before, 1)


def memory(key: str) -> float | None:
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(x.split()[1]) / 1024 for x in lines if x.startswith(f"{key}:")), None)


def seconds(once: Callable[[], object], turns: int = TURNS) -> float:
    """The least of some turns."""
    taken = []
    for _ in range(turns):
        started = time.process_time()
        once()
        taken.append(time.process_time() - started)
    return round(min(taken), 6)


def head_step(classes: int, dim: int, whole: bool = False) -> Row:
    """Loss, gradients and an SGD step with momentum on a batch of embeddings, and the classes of
    500 others. whole: with all logits at once, as a head without parts would."""
    torch.manual_seed(0)
    if whole:
        losses.WHOLE = sys.maxsize
    z, labels = torch.randn(BATCH, dim).requires_grad_(), torch.arange(BATCH) % classes
    queries = torch.randn(500, dim)
    head = NormalizedSoftmax(dim, classes, scale=16.0)
    peak = Peak()
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        head.loss(z, labels).backward()
        optimizer.step()

    step()
    taken, megabytes = seconds(step), peak()
    with torch.no_grad():
        predicting = seconds(lambda: head.classify(queries), 2)
    parts = BATCH * classes > losses.WHOLE
    return {
        "classes": classes,
        "dimensions": dim,
        "logits": "in parts" if parts else "all at once",
        "seconds": taken,
        "peak_mb": megabytes,
        "class_vectors_mb": round(classes * dim * 4 / 2**20, 2),
        "predict_500_seconds": predicting,
    }


def new_classes(classes: int) -> Row:
    """Half of the classes are new. Means of ten embeddings each; then few-shot accuracies by five
    examples, as many queries as classes but 10,000 at least."""
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(10 * classes) % classes
    queries = torch.arange(max(classes, 10_000)) % classes
    centres = torch.randn(classes, 64, generator=g)
    z, test = (centres[y] + torch.randn(len(y), 64, generator=g) for y in (labels, queries))
    head, peak = NormalizedSoftmax(64, 2, scale=16.0), Peak()
    infer = seconds(lambda: head.infer(z, labels, torch.arange(classes), True), 2)
    after = peak()
    peak, base = Peak(), range(classes // 2)
    given = {"test": test, "test_labels": queries, "shots": [5], "draws": 1}
    few = seconds(lambda: evaluate(z, labels, base, range(classes // 2, classes), **given), 1)
    return {
        "classes": classes,
        "infer_seconds": infer,
        "infer_peak_mb": after,
        "few_shot_seconds": few,
        "few_shot_peak_mb": peak(),
    }


def placement(classes: int) -> Row:
    """The search with the settings for many classes, and 1,000 steps of the published procedure
    (from 20 of them)."""
    peak = Peak()
    points = None

    def search() -> None:
        nonlocal points
        points = prototypes.optimal(classes, 25, stages=10, rounds=20)

    found: Row = {"classes": classes, "optimal_seconds": seconds(search, 1)}
    found["optimal_peak_mb"] = peak()
    found["largest_cosine"] = round(prototypes.separation(points).largest_cosine, 4)
    steps = seconds(lambda: prototypes.published(classes, 25, steps=20), 2)
    return found | {"published_1000_steps_seconds": round(50 * steps, 3)}
