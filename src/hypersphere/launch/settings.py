"""Launcher presets: conf/hydra/launcher/<name>.yaml, or a file of the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pydantic
import yaml

from hypersphere import paths
from hypersphere.config.components import check_values
from hypersphere.errors import UserError, did_you_mean

PLUGIN = "hydra_plugins.hypersphere.JobLauncher"
Count = Annotated[int, pydantic.Field(ge=1)]


class Settings(pydantic.BaseModel):
    """What every engine has.

    runs_per_job: trainings that one job works on (with what judges them), one after another but for
    runs_per_device: trainings in flight at a time inside a job.
    threads: of each training; one makes the numbers those of a local run, bit for bit.
    devices: that each training is shared between (training/several.py), which its job must have;
    None: HYPERSPHERE_DEVICES when it is submitted, else one.
    """

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)
    engine: ClassVar[str]
    at_a_time: ClassVar[str]  # the key that says how many jobs run at a time
    runs_per_job: Count = 1
    runs_per_device: Count = 1
    threads: Count = 1
    devices: Count | None = None

    def with_jobs(self, jobs: int) -> Settings:
        """The same with so many jobs at a time (`--workers`)."""
        return self.model_copy(update={self.at_a_time: jobs})


class Joblib(Settings):
    """jobs: processes at a time (None: as many as cores)."""

    engine, at_a_time = "joblib", "jobs"
    jobs: Count | None = None


class Slurm(Settings):
    """Resources of one job, and how many at a time.

    timeout_min: a job that comes to its limit is queued again, at most max_timeouts times, and goes
    on from its checkpoint; signal_delay_s before the limit it is told. array_size: tasks of one
    array at most (the cluster's MaxArraySize). setup: shell lines before the job (module load ...).
    sbatch: further options, by their long names.
    """

    engine, at_a_time = "slurm", "array_parallelism"
    timeout_min: Count = 240
    cpus_per_task: Count = 1
    mem_gb: Annotated[int, pydantic.Field(ge=0)] = 4
    gpus_per_node: Annotated[int, pydantic.Field(ge=0)] = 0
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    array_parallelism: Count = 256
    array_size: Count = 1000
    max_timeouts: Annotated[int, pydantic.Field(ge=0)] = 1000
    signal_delay_s: Count = 120
    setup: list[str] = []
    sbatch: dict[str, Any] = {}


class Ray(Settings):
    """address: of a cluster (`auto`: the one this machine belongs to; None: start one here, with
    `cpus` cores). cpus_per_job, gpus_per_job: what a job takes of it (fractions share a GPU)."""

    engine, at_a_time = "ray", "cpus"
    address: str | None = None
    cpus: Count | None = None
    cpus_per_job: float = 1.0
    gpus_per_job: float = 0.0


ENGINES: dict[str, type[Settings]] = {kind.engine: kind for kind in (Joblib, Slurm, Ray)}


def launcher_settings(name: str, changes: Sequence[str] = ()) -> Settings:
    """The preset `name` (or of the YAML file of that path), with `key=value` changes.

    Raises UserError for an unknown preset, key or value.
    """
    folder = paths.conf_dir() / "hydra" / "launcher"
    file = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not file.exists():
        known = ["local", *sorted(path.stem for path in folder.glob("*.yaml"))]
        raise UserError(
            f"--launcher {name}: no such launcher{did_you_mean(name, known)} (there are"
            f" {', '.join(known)}, and YAML files of your own)"
        )
    try:
        values = yaml.safe_load(file.read_text())
        if not isinstance(values, dict):
            raise UserError(f"{file}: must hold `engine: slurm` and the like")
        for change in changes:
            key, equals, value = change.partition("=")
            if not equals:
                raise UserError(f"--set {change}: must read key=value")
            values[key] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UserError(f"{file}: {' '.join(str(error).split())}") from None
    return check_settings(values, str(file))


def check_settings(values: dict[str, Any], where: str) -> Settings:
    """Checked settings of a preset's values. Raises UserError naming the key."""
    rest = {key: value for key, value in values.items() if key not in ("_target_", "engine")}
    engine = values.get("engine")
    if engine not in ENGINES:
        hint = did_you_mean(str(engine), ENGINES)
        raise UserError(f"{where}: engine={engine}: no such engine{hint} ({', '.join(ENGINES)})")
    kind = ENGINES[engine]
    return kind(**check_values(kind, rest, f"{where}: launcher"))
