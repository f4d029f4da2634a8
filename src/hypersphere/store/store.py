"""Where finished runs are found, and who may write a run's folder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hypersphere import paths
from hypersphere.errors import UserError
from hypersphere.files import write_text
from hypersphere.store.records import Record, decode, encode, read_lines

RECORD, LOCK = "record.json", "lock"


class Store:
    """Records by run id, from `results/*/records.jsonl` (they travel by git) and from
    `runs/<id>/record.json` (written last by the run itself; it means done).

    complaints: one line for each record that could not be read.
    """

    def __init__(self, runs: Path | None = None, results: Path | None = None) -> None:
        self.runs = runs or paths.runs_dir()
        self.results = results or paths.results_dir()
        self.records: dict[str, Record] = {}
        self.complaints: list[str] = []
        for file in sorted(self.results.glob("*/records.jsonl")):
            records, complaints = read_lines(file)
            self.records |= records
            self.complaints += complaints
        for file in sorted(self.runs.glob(f"*/{RECORD}")):
            if (record := self._read(file)) is not None:
                self.records[record["run_id"]] = record

    def folder(self, run_id: str) -> Path:
        """The run's folder, which may not exist."""
        return self.runs / run_id

    def get(self, run_id: str) -> Record | None:
        """The record of a finished run, looking again on disk for one finished elsewhere."""
        file = self.folder(run_id) / RECORD
        if run_id not in self.records and file.exists() and (record := self._read(file)):
            self.records[run_id] = record
        return self.records.get(run_id)

    def write(self, record: Record) -> None:
        """Write `runs/<id>/record.json`, atomically; from then on the run is done."""
        write_text(self.folder(record["run_id"]) / RECORD, encode(record) + "\n")
        self.records[record["run_id"]] = record

    @contextlib.contextmanager
    def claim(self, run_id: str, waiting: Callable[[str], None] = lambda _: None) -> Iterator[None]:
        """Own the run's folder; waits while another process does (`waiting` is told once).

        The lock is the kernel's and goes with its owner, however that ends: a killed run leaves
        nothing to clean up. Raises UserError when the folder cannot be made.
        """
        folder = self.folder(run_id)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = open(folder / LOCK, "a+")  # noqa: SIM115  (closed below, after the work)
        except OSError as error:
            raise UserError(
                f"{folder}: cannot be written ({error.strerror}); make it writable or set"
                " HYPERSPHERE_RUNS to a folder that is"
            ) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting(
                    f"run {run_id} is being trained by {self.owner(run_id) or 'another process'}"
                )
                fcntl.flock(file, fcntl.LOCK_EX)
            file.truncate(0)
            file.write(
                json.dumps({"pid": os.getpid(), "host": platform.node(), "since": time.time()})
            )
            file.flush()
            yield

    def owner(self, run_id: str) -> str:
        """`pid N on HOST` of the process that trains the run now, or an empty string."""
        try:
            with open(self.folder(run_id) / LOCK) as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    return ""
                except BlockingIOError:
                    owner = json.loads(file.read())
                    return f"pid {owner['pid']} on {owner['host']}"
        except (OSError, ValueError, KeyError):
            return ""

    def _read(self, file: Path) -> Record | None:
        try:
            return decode(file.read_text())
        except (OSError, ValueError) as error:
            self.complaints.append(f"{file}: {error}; the run counts as not done")
            return None
