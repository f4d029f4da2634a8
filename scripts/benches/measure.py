"""Variants taking turns, and the file of this processor."""

from __future__ import annotations

import json
import os
import re
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from hypersphere import paths, provenance
from hypersphere.files import write_text

Variants = dict[str, Callable[[], float]]  # each does some work and says how much


class Bench:
    """Measures lines, prints each and keeps it in the file of this processor."""

    def __init__(self, rounds: int, only: str, machine: dict[str, Any]) -> None:
        self.rounds, self.only, self.machine = rounds, only, machine
        named = machine["processor"].lower()
        if not (machine["amx"] or machine["avx512_bf16"]):  # hosts may give two kinds one name
            named += " without bf16"
        name = re.sub(r"[^a-z0-9]+", "-", named).strip("-")
        self.file = paths.results_dir() / "bench" / f"{name}.json"

    def line(
        self,
        title: str,
        variants: Callable[[], Variants],
        unit: str = "img/s",
        quality: Callable[[], dict[str, float]] = dict,
    ) -> None:
        """Take turns, then print what was done per second and the ratio to the first variant.

        quality: numbers of what came out (largest cosines, say), by name.
        """
        if self.only not in title:
            return
        work = variants()
        rates: dict[str, list[float]] = {name: [] for name in work}
        for turn in range(self.rounds + 1):  # the first round warms up
            for name, once in work.items():
                started = time.perf_counter()
                done = once()
                if turn:
                    rates[name].append(done / (time.perf_counter() - started))
        print(f"\n{title}\n{'':<36}{f'{unit} min':>12}{'median':>12}{'max':>12}{'ratio':>11}")
        first, kept = np.array(next(iter(rates.values()))), {}
        for name, found in rates.items():
            ratio = statistics.median(np.array(found) / first)
            low, mid, high = min(found), statistics.median(found), max(found)
            rate = "".join(f"{x:>12,.0f}" if low >= 10 else f"{x:>12.3g}" for x in (low, mid, high))
            print(f"{name:<36}{rate}{ratio:>11,.2f}", flush=True)
            kept[name] = {"min": low, "median": mid, "max": high, "ratio": ratio}
        came_out = quality()
        if came_out:
            print(", ".join(f"{name} {number:.4f}" for name, number in came_out.items()))
        self._keep(
            title, {"unit": unit, "rounds": self.rounds, "variants": kept, "quality": came_out}
        )

    def note(self, title: str, measure: Callable[[], dict[str, Any]]) -> None:
        """Print and keep figures that have no variants; of lists, an entry a line."""
        if self.only not in title:
            return
        found = measure()
        print(f"\n{title}")
        for name, value in found.items():
            listed = value if isinstance(value, list) else [value]
            print(*(f"  {name}: {entry}" for entry in listed), sep="\n", flush=True)
        self._keep(title, found)

    def _keep(self, title: str, found: dict[str, Any]) -> None:
        known = json.loads(self.file.read_text()) if self.file.exists() else {"lines": {}}
        more = len(known["lines"].get(title, {}).get("rows", []))
        if more > len(found.get("rows", ())) > 0:  # a page is drawn from the largest sizes
            print(f"  (the file keeps its {more} sizes: --scale measures them all again)")
            return
        known |= {"machine": self.machine, "versions": provenance.versions()}
        # What is true of the moment goes with the line: how busy the machine was, and by what code.
        found |= {"load": round(os.getloadavg()[0], 1), "commit": provenance.git()["commit"]}
        known["lines"][title] = found
        write_text(self.file, json.dumps(known, indent=2) + "\n")
