"""Hydra's side of `hydra/launcher=joblib|slurm|ray` and of a user's own configuration (Hydra looks
for plugins in this package)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class OwnConfiguration(SearchPathPlugin):
    """Looks into HYPERSPHERE_CONF before anything else."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        from hypersphere import paths

        if (own := paths.own_conf_dir()) is not None:
            search_path.prepend("own", f"file://{own}")


class JobLauncher(Launcher):
    """Freezes every job of a multirun, as composed now, and hands it to the engine."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.settings = settings

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.config = config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Train what the overrides of each job say; returns when all are through."""
        from hypersphere.app import launch_jobs  # needs torch; Hydra loads every plugin

        plain = {
            key: OmegaConf.to_container(value, resolve=True)
            if OmegaConf.is_config(value)
            else value
            for key, value in self.settings.items()
        }
        launch_jobs([list(overrides) for overrides in job_overrides], plain)
        return [
            JobReturn(overrides=overrides, status=JobStatus.COMPLETED, _return_value=None)
            for overrides in job_overrides
        ]
