"""The engines that carry jobs: joblib on this machine, submitit on SLURM, Ray."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from hypersphere.errors import UserError
from hypersphere.launch.jobs import Job, work
from hypersphere.launch.settings import Joblib, Ray, Settings, Slurm


class Engine(Protocol):
    """What the launching loop needs of an engine. durable: jobs outlive the process that submitted
    them, and are known by name to the next one."""

    durable: bool

    def submit(self, jobs: Sequence[Job]) -> None:
        """Hand over `jobs`, naming each (`Job.submitted_as`)."""

    def alive(self, names: Iterable[str]) -> set[str]:
        """Which of these jobs are waiting or at work."""

    def cancel(self, names: Iterable[str]) -> None:
        """End these jobs; what they were training goes on from its checkpoint another time."""

    def close(self) -> None:
        """Let go of the engine; the jobs of a durable one go on."""


def check_engine(settings: Settings) -> None:
    """Raises UserError, with the remedy, where the engine of a preset is not to be had here."""
    module = {"slurm": "submitit"}.get(settings.engine, settings.engine)
    if importlib.util.find_spec(module) is None:
        raise UserError(
            f"launcher {settings.engine}: {module} is not installed; pip install"
            f" 'hypersphere[{settings.engine}]' (in a checkout: .venv/bin/pip install -e"
            f" '.[{settings.engine}]')"
        )
    if settings.engine == "slurm":
        _slurm(["squeue", "--version"])


def open_engine(settings: Settings) -> Engine:
    """The engine of a preset. Raises UserError as `check_engine` does."""
    check_engine(settings)
    kinds: dict[type, Callable[[Any], Engine]] = {
        Joblib: JoblibEngine,
        Slurm: SlurmEngine,
        Ray: RayEngine,
    }
    return kinds[type(settings)](settings)


class JoblibEngine:
    """Processes of joblib's own kind (loky) on this machine; they end with this process."""

    durable = False

    def __init__(self, settings: Joblib) -> None:
        import joblib

        self._joblib, self._settings = joblib, settings
        self._open: set[str] = set()
        self._cancelled = threading.Event()
        self._thread: threading.Thread | None = None

    def submit(self, jobs: Sequence[Job]) -> None:
        for index, job in enumerate(jobs):
            job.submitted_as(f"joblib {os.getpid()}-{index}")
        self._open |= {job.name for job in jobs}
        self._thread = threading.Thread(target=self._carry, args=(list(jobs),), daemon=True)
        self._thread.start()

    def alive(self, names: Iterable[str]) -> set[str]:
        return self._open.intersection(names)

    def cancel(self, names: Iterable[str]) -> None:
        from joblib.externals.loky import get_reusable_executor

        self._cancelled.set()
        get_reusable_executor().shutdown(wait=True, kill_workers=True)

    def close(self) -> None:
        if self._thread is not None and not self._open:
            self._thread.join()

    def _carry(self, jobs: list[Job]) -> None:
        """One process that is killed takes all with it: hand what is left to new ones, as long as
        something gets done in between. What a job has said counts: of the jobs that ended, joblib
        may not have told yet when it breaks."""
        while jobs and not self._cancelled.is_set():
            before, rest = _said(jobs), {job.name: job for job in jobs}
            try:
                with self._joblib.parallel_config("loky", inner_max_num_threads=1):
                    parallel = self._joblib.Parallel(
                        self._settings.jobs or os.cpu_count(),
                        batch_size=1,
                        pre_dispatch="n_jobs",
                        return_as="generator_unordered",
                    )
                    for name in parallel(self._joblib.delayed(_joblib_job)(j) for j in jobs):
                        rest.pop(name)
                        self._open.discard(name)
            except Exception:  # loky's for a killed process, or the job's own: its log says
                pass
            if _said(jobs) == before:
                break
            jobs = list(rest.values())
        self._open.clear()


def _said(jobs: Sequence[Job]) -> int:
    """Bytes of outcomes that these jobs have written."""
    return sum(job.outcomes.stat().st_size for job in jobs if job.outcomes.exists())


def _joblib_job(job: Job) -> str:
    work(str(job.file), job.name, os.getppid())
    return job.name


class SlurmTask:
    """What submitit pickles: the job's file, no more. `checkpoint` is its hook before a time limit
    or a preemption: the same file again, which goes on from what is stored."""

    def __init__(self, file: Path) -> None:
        self.file = str(file)

    def __call__(self) -> None:
        work(self.file, "slurm")

    def checkpoint(self) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class SlurmEngine:
    """Arrays of SLURM jobs by submitit. Their state is asked of squeue, which every cluster has;
    sacct needs an accounting database."""

    durable = True

    def __init__(self, settings: Slurm) -> None:
        import submitit

        self._submitit, self._settings = submitit, settings

    def submit(self, jobs: Sequence[Job]) -> None:
        s = self._settings
        for start in range(0, len(jobs), s.array_size):
            part = jobs[start : start + s.array_size]
            folder = part[0].file.parent / "slurm"
            try:
                executor = self._submitit.SlurmExecutor(folder, max_num_timeout=s.max_timeouts)
                executor.update_parameters(
                    job_name="hypersphere",
                    time=s.timeout_min,
                    cpus_per_task=s.cpus_per_task,
                    mem=f"{s.mem_gb}GB",
                    gpus_per_node=s.gpus_per_node or None,
                    partition=s.partition,
                    account=s.account,
                    qos=s.qos,
                    array_parallelism=s.array_parallelism,
                    signal_delay_s=s.signal_delay_s,
                    stderr_to_stdout=True,
                    wckey=None,  # submitit's own is refused by some clusters
                    setup=s.setup or None,
                    additional_parameters={"requeue": True, **s.sbatch},
                )
                with executor.batch():  # one array; a task without arguments each
                    found = [executor.submit(SlurmTask(job.file)) for job in part]
            except (RuntimeError, subprocess.CalledProcessError) as error:
                raise UserError(f"SLURM took no job: {' '.join(str(error).split())}") from None
            for job, handle in zip(part, found, strict=True):
                job.submitted_as(f"slurm {handle.job_id}")

    def alive(self, names: Iterable[str]) -> set[str]:
        asked = set(names)
        try:
            # -r: one line per task of an array; without names, which squeue refuses once gone
            listed = _slurm(["squeue", "--noheader", "-r", "-o", "%i|%F_%K|%T"])
        except UserError:  # the controller is away for a moment: nobody knows
            return asked
        found = set()
        for line in listed.splitlines():
            *ids, state = line.strip().split("|")
            if state not in ENDED:
                found |= {f"slurm {number}" for number in ids}
        return asked & found

    def cancel(self, names: Iterable[str]) -> None:
        numbers = [name.removeprefix("slurm ") for name in names]
        for start in range(0, len(numbers), 500):
            _slurm(["scancel", *numbers[start : start + 500]])

    def close(self) -> None:
        pass


ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL"),
    *("OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
}


def _slurm(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        raise UserError(
            f"launcher slurm: no {command[0]} on this machine; submit from a node of the cluster,"
            " or choose LAUNCHER=joblib"
        ) from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{command[0]}: SLURM does not answer") from None
    if done.returncode:
        raise UserError(f"{' '.join(command[:2])}: {done.stderr.strip() or done.returncode}")
    return done.stdout


class RayEngine:
    """Tasks of Ray, on a cluster (`address`) or on this machine. They end with this process; one
    whose node or process dies is run again by Ray and goes on from its checkpoint."""

    durable = False

    def __init__(self, settings: Ray) -> None:
        import ray

        self._ray = ray
        # The workers find this package, and any that was put beside it, where this process does.
        found = os.pathsep.join(dict.fromkeys(path for path in sys.path if path))
        started = ray.init(
            address=settings.address,
            num_cpus=settings.cpus if settings.address is None else None,
            runtime_env={"env_vars": {"PYTHONPATH": found}},
            log_to_driver=False,
            include_dashboard=False,
            logging_level="ERROR",
        )
        assert started is not None
        self._task = ray.remote(
            num_cpus=settings.cpus_per_job, num_gpus=settings.gpus_per_job, max_retries=-1
        )(_ray_job)
        self._references: dict[str, Any] = {}

    def submit(self, jobs: Sequence[Job]) -> None:
        for index, job in enumerate(jobs):
            job.submitted_as(f"ray {os.getpid()}-{index}")
            self._references[job.name] = self._task.remote(str(job.file), job.name)

    def alive(self, names: Iterable[str]) -> set[str]:
        asked = {name: self._references[name] for name in names if name in self._references}
        if not asked:
            return set()
        _, waiting = self._ray.wait(list(asked.values()), num_returns=len(asked), timeout=0)
        return {name for name, reference in asked.items() if reference in waiting}

    def cancel(self, names: Iterable[str]) -> None:
        for name in names:
            self._ray.cancel(self._references[name], force=True)

    def close(self) -> None:
        self._ray.shutdown()


def _ray_job(file: str, name: str) -> None:
    work(file, name)
