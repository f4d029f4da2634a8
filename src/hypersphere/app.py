"""One training, or a Hydra multirun of them, from the command line (scripts/train.py)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from omegaconf import DictConfig

from hypersphere import paths
from hypersphere.config import Component, Evaluation, Node, Training, compose, split_config
from hypersphere.config.compose import register_datasets, resolve
from hypersphere.data.inventory import unready
from hypersphere.errors import UserError
from hypersphere.execute import run_node
from hypersphere.store import Store
from hypersphere.store.records import Record

MULTIRUN = ("-m", "--multirun")


def main() -> None:
    """Check every job of the command line first, then hand over to Hydra."""
    try:
        register_datasets()
        _drop_foreign_launchers()
        flags = [word for word in sys.argv[1:] if word.startswith("-")]
        if not flags and any(word.startswith("hydra/launcher=") for word in sys.argv[1:]):
            raise UserError("hydra/launcher= acts on a multirun only: train.py -m ...")
        if all(flag in MULTIRUN for flag in flags):  # --help, --cfg and the like only look
            check_jobs([word for word in sys.argv[1:] if not word.startswith("-")])
        hydra.main(version_base="1.3", config_path=str(paths.conf_dir()), config_name="train")(
            job
        )()
    except UserError as error:
        sys.exit(f"train: {error}")


def _drop_foreign_launchers() -> None:
    """Hydra's own plugins for joblib and Ray, where they are installed too, have presets of the
    names of ours, and Hydra would check ours by theirs."""
    Plugins.instance()  # loads them
    theirs = ConfigStore.instance().repo.get("hydra", {}).get("launcher", {})
    for preset in (paths.conf_dir() / "hydra" / "launcher").glob("*.yaml"):
        theirs.pop(preset.name, None)


def check_jobs(overrides: list[str]) -> None:
    """Compose and check every job of a (multi)run before the first one trains, and that the images
    of those still to be trained are here.

    Raises UserError for the first that does not hold.
    """
    store = Store()
    ours = [override for override in overrides if not override.lstrip("+~").startswith("hydra")]
    try:
        parsed = OverridesParser.create().parse_overrides(ours)
        batches = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    except HydraException as error:
        raise UserError(f"{' '.join(ours)}: {str(error).splitlines()[0]}") from None
    for batch in batches:
        for job_overrides in batch:
            training, _ = split_config(compose(job_overrides))
            if store.get(training.id) is None and (why := unready(training.data.name)):
                raise UserError(why)


def launch_jobs(jobs: Sequence[Sequence[str]], preset: dict[str, Any]) -> None:
    """Hand the jobs of a multirun to an engine, frozen as they are composed now, and print the
    numbers of each when all are through. Exits with status 1 when a run failed."""
    from hypersphere.launch.launch import launch
    from hypersphere.launch.settings import check_settings

    found = [
        split_config(compose([o for o in job if not o.lstrip("+~").startswith("hydra")]))
        for job in jobs
    ]
    nodes = {node.id: node for training, judges in found for node in _nodes(training, judges)}
    store = Store()
    todo = [node for node in nodes.values() if store.get(node.id) is None]
    failed = 0
    for outcome in launch(todo, store, check_settings(preset, "hydra.launcher"), print):
        if outcome.error:
            failed += 1
            print(f"run {outcome.node.id} failed: {outcome.error}", file=sys.stderr)
    for training, judges in found:
        print(f"run {training.id}")
        for node in _nodes(training, judges):
            _print_numbers(store.get(node.id))
    if failed:
        sys.exit(f"train: {failed} of {len(todo)} runs failed")


def _nodes(training: Training, judges: dict[str, Component]) -> list[Node]:
    return [training, *(Evaluation(component, training) for component in judges.values())]


def _print_numbers(record: Record | None) -> None:
    for name, value in record["metrics"].items() if record else ():
        number = fmean(value) if isinstance(value, list) else value
        print(f"  {record['kind']} {name} {number:.4f}")


def job(config: DictConfig) -> None:
    """Train what `config` says (unless it is done) and judge it; the record is in the run store."""
    training, evaluations = split_config(resolve(config))
    store = Store()
    print(f"run {training.id}: {'done already' if store.get(training.id) else 'training'}")
    for node in _nodes(training, evaluations):
        _print_numbers(run_node(node, store))
    print(f"record: {store.folder(training.id) / 'record.json'}")


if __name__ == "__main__":  # where there is no scripts/train.py: an installed package
    main()
