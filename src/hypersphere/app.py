"""One training, or a Hydra multirun of them, from the command line (scripts/train.py)."""

from __future__ import annotations

import sys
from statistics import fmean

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig

from hypersphere import paths
from hypersphere.config import Evaluation, Node, compose, split_config
from hypersphere.config.compose import register_datasets, resolve
from hypersphere.data.inventory import unready
from hypersphere.errors import UserError
from hypersphere.execute import run_node
from hypersphere.store import Store

MULTIRUN = ("-m", "--multirun")


def main() -> None:
    """Check every job of the command line first, then hand over to Hydra."""
    try:
        register_datasets()
        flags = [word for word in sys.argv[1:] if word.startswith("-")]
        if all(flag in MULTIRUN for flag in flags):  # --help, --cfg and the like only look
            check_jobs([word for word in sys.argv[1:] if not word.startswith("-")])
        hydra.main(version_base="1.3", config_path=str(paths.conf_dir()), config_name="train")(
            job
        )()
    except UserError as error:
        sys.exit(f"train: {error}")


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


def job(config: DictConfig) -> None:
    """Train what `config` says (unless it is done) and judge it; the record is in the run store."""
    training, evaluations = split_config(resolve(config))
    store = Store()
    nodes: list[Node] = [training, *(Evaluation(c, training) for c in evaluations.values())]
    print(f"run {training.id}: {'done already' if store.get(training.id) else 'training'}")
    for node in nodes:
        record = run_node(node, store)
        for name, value in record["metrics"].items():
            number = fmean(value) if isinstance(value, list) else value
            print(f"  {record['kind']} {name} {number:.4f}")
    print(f"record: {store.folder(training.id) / 'record.json'}")
