"""Where finished runs are found, and who may write a run's folder."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypersphere import paths
from hypersphere.errors import UserError
from hypersphere.files import write_text
from hypersphere.store import leases, states
from hypersphere.store.records import Record, decode, encode, read_lines
from hypersphere.store.states import State

RECORD = "record.json"
MODEL, EMBEDDINGS = "model.safetensors", "embeddings.safetensors"  # of a finished training


class TakenError(Exception):
    """Another process works on the run, and the caller would rather do something else first."""


class Store:
    """Records by run id, from `results/*/records.jsonl` (they travel by git) and from
    `runs/<id>/record.json` (written last by the run itself; it means done).

    collected_only: know the records of the results alone, and nothing of the runs.
    complaints: one line for each record that could not be read.
    """

    def __init__(
        self,
        runs: Path | None = None,
        results: Path | None = None,
        *,
        collected_only: bool = False,
    ) -> None:
        self.runs = runs or paths.runs_dir()
        self.results = results or paths.results_dir()
        self.records: dict[str, Record] = {}
        self.complaints: list[str] = []
        self._leases: dict[str, leases.Lease] = {}
        self._patient = True
        self._collected_only = collected_only
        for file in sorted(self.results.glob("*/records.jsonl")):
            records, complaints = read_lines(file)
            self.records |= records
            self.complaints += complaints
        for file in () if collected_only else sorted(self.runs.glob(f"*/{RECORD}")):
            if (record := self._read(file)) is not None:
                self.records[record["run_id"]] = record

    def collected(self) -> Store:
        """What the results hold of this store now. What is drawn from it can be drawn again where
        only the results are, whatever runs end meanwhile."""
        return Store(self.runs, self.results, collected_only=True)

    def hurried(self) -> Store:
        """This store for a caller with other work at hand: `claim` raises TakenError where it
        would wait."""
        hurried = copy.copy(self)  # the same records, the same leases
        hurried._patient = False
        return hurried

    def folder(self, run_id: str) -> Path:
        """The run's folder, which may not exist."""
        return self.runs / run_id

    def get(self, run_id: str) -> Record | None:
        """The record of a finished run, looking again on disk for one finished elsewhere."""
        if run_id in self.records or self._collected_only:
            return self.records.get(run_id)
        file = self.folder(run_id) / RECORD
        if file.exists() and (record := self._read(file)):
            self.records[run_id] = record
        return self.records.get(run_id)

    def has_files(self, run_id: str) -> bool:
        """Whether a training is finished and its weights and embeddings are here, which do not
        travel with the records: what rests on it needs no training of it again."""
        folder = self.folder(run_id)
        files = all((folder / name).exists() for name in (MODEL, EMBEDDINGS))
        return files and self.get(run_id) is not None

    def beginning(self, text: str) -> list[Record]:
        """The finished runs whose ids begin with `text`, in the order of their ids."""
        ids = sorted(run_id for run_id in self.records if text and run_id.startswith(text))
        return [self.records[run_id] for run_id in ids]

    def write(self, record: Record) -> None:
        """Write `runs/<id>/record.json`, atomically; from then on the run is done.

        Raises UserError when another process took the run over meanwhile: its record counts.
        """
        run_id = record["run_id"]
        if (lease := self._leases.get(run_id)) is not None and lease.lost():
            raise UserError(
                f"run {run_id}: this process was silent for so long (suspended, or cut off from"
                " the disk) that another one took the run over; nothing was written"
            )
        write_text(self.folder(run_id) / RECORD, encode(record) + "\n")
        self.records[run_id] = record
        self.forget(run_id)

    @contextlib.contextmanager
    def claim(self, run_id: str, waiting: Callable[[str], None] = lambda _: None) -> Iterator[None]:
        """Own the run's folder; waits while somebody else does (`waiting` is told once).

        A killed owner leaves nothing to clean up, on this machine or another (leases.py). Raises
        UserError when the folder cannot be written, and in a `hurried` store TakenError.
        """

        def told(who: str) -> None:
            waiting(f"run {run_id} is being trained by {who}")

        folder = self.folder(run_id)
        with contextlib.ExitStack() as stack:
            try:
                lease = stack.enter_context(leases.hold(folder, told, patient=self._patient))
            except OSError as error:
                raise UserError(
                    f"{folder}: cannot be written ({error.strerror or error}); make it writable,"
                    " free some space, or set HYPERSPHERE_RUNS to a folder that is"
                ) from error
            if lease is None:
                who = self.owner(run_id) or "another process"
                raise TakenError(f"run {run_id} is being trained here by {who}")
            self.forget(run_id)
            self._leases[run_id] = lease
            stack.callback(self._leases.pop, run_id, None)
            yield

    def owner(self, run_id: str) -> str:
        """`pid N on HOST` of the process that trains the run now, or an empty string."""
        found = leases.holder(self.folder(run_id))
        return str(found) if found else ""

    def state(self, run_id: str) -> State:
        """What is known of a run: done, running, interrupted, failed, queued or missing."""
        if self.get(run_id) is not None:
            return State("done")
        return states.read(self.folder(run_id))

    def queued(self, run_id: str, **how: Any) -> None:
        """Note that a job will work on the run: launcher, job, and whatever else tells where."""
        states.write(self.folder(run_id), states.QUEUED, how)

    def failed(self, run_id: str, error: str, *, mendable: bool) -> None:
        """Note why a run failed. mendable: by the user (a UserError); such runs are tried again by
        the next call, others, whose error would come again, when asked to."""
        with contextlib.suppress(UserError):  # the full disk may be what it failed of
            states.write(self.folder(run_id), states.FAILED, {"error": error, "mendable": mendable})

    def forget(self, run_id: str) -> None:
        """Drop the notes of `queued` and `failed`: the run is tried again, or is done."""
        for name in (states.QUEUED, states.FAILED):
            with contextlib.suppress(OSError):
                (self.folder(run_id) / name).unlink()

    def _read(self, file: Path) -> Record | None:
        try:
            return decode(file.read_text())
        except (OSError, ValueError) as error:
            self.complaints.append(f"{file}: {error}; the run counts as not done")
            return None
