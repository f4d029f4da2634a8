"""Composing configurations with Hydra, strictly, with errors that a person can act on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hypersphere import paths
from hypersphere.config import composed
from hypersphere.config.components import check
from hypersphere.config.plain import Plain
from hypersphere.config.training import Component, Training, check_training
from hypersphere.data.facts import DATASETS, pinned_file
from hypersphere.errors import UserError, did_you_mean

NOT_TRAINING = ("hydra", "paper", "evaluations")  # what a run's identity never sees

# `${pinned:FILE}` is the checksum that the table of datasets states for a file.
OmegaConf.register_new_resolver("pinned", pinned_file, replace=True)


def compose(overrides: Sequence[str]) -> dict[str, Any]:
    """The resolved configuration that Hydra composes from `overrides` (command-line syntax).

    Raises UserError: one line naming the key or option, and the nearest right one.
    """
    config, _ = _compose(tuple(overrides))
    return resolve(config)


def compose_values(options: Sequence[str], values: Mapping[str, Any]) -> dict[str, Any]:
    """Like `compose`, for a plan of many runs that differ in plain values alone.

    options: group choices (`head=nsl`), composed by Hydra once and remembered.
    values: dotted key -> value, set afterwards; equal to `key=value` on the command line.
    """
    config, keys = _compose(tuple(options))
    for key in values:
        if key not in keys:
            raise UserError(f"{key}: no such key{did_you_mean(key, keys)}")
    if (found := _plain(tuple(options)).with_values(values)) is not None:
        return found
    config = config.copy()
    for key, value in values.items():
        OmegaConf.update(config, key, value)
    return resolve(config)


def split_config(config: Mapping[str, Any]) -> tuple[Training, dict[str, Component]]:
    """The checked training and its evaluations (name -> component) of a composed config."""
    raw = {key: value for key, value in config.items() if key not in NOT_TRAINING}
    evaluations = {
        name: check(node, f"evaluations.{name}")
        for name, node in (config.get("evaluations") or {}).items()
    }
    training = check_training(raw)
    for name, component in evaluations.items():
        needs_unseen = getattr(component.target, "needs_unseen", False)
        if needs_unseen and training.split_is_known and not training.split().unseen:
            raise UserError(
                f"evaluations.{name}: judges unseen classes,"
                f" split={training.components['split'].name} has none; choose evaluations=none"
            )
    return training, evaluations


@lru_cache(maxsize=512)
def _compose(overrides: tuple[str, ...]) -> tuple[DictConfig, frozenset[str]]:
    if (config := composed.recall(overrides)) is None:
        with _hydra() as loader:
            try:
                config = hydra_compose("train", list(overrides))
            except (HydraException, OmegaConfBaseException, ValueError) as error:
                raise UserError(_explain(error, overrides, loader)) from None
        composed.keep(overrides, config)
    return config, _keys(config)


@lru_cache(maxsize=512)
def _plain(options: tuple[str, ...]) -> Plain:
    return Plain(_compose(options)[0])


class _hydra:
    """Hydra initialised on our configuration, leaving a surrounding Hydra application as it was."""

    def __enter__(self) -> ConfigLoader:
        self._outer = GlobalHydra.instance().hydra
        GlobalHydra.instance().clear()
        register_datasets()
        initialize_config_dir(str(paths.conf_dir()), version_base="1.3")
        return GlobalHydra.instance().config_loader()

    def __exit__(self, *_: Any) -> None:
        GlobalHydra.instance().clear()
        if self._outer is not None:
            GlobalHydra.instance().hydra = self._outer


def register_datasets() -> None:
    """Make every dataset, the user's own too, an option of the group `data` (`data=cifar10`): what
    its kind of images needs (conf/data), under its name."""
    options = ConfigStore.instance()
    for name in DATASETS:
        kind = "in_memory" if composed.in_memory(name) else "image_files"
        options.store(group="data", name=name, node={"defaults": [kind], "name": name})


def resolve(config: DictConfig) -> dict[str, Any]:
    """Plain nested values, every interpolation resolved. Raises UserError naming the key."""
    try:
        resolved = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        # An interpolation fails where it is used; the key it asked for stands in the message.
        asked = re.search(r"Missing mandatory value: (\S+)", str(error))
        key = asked.group(1) if asked else error.full_key or "configuration"
        raise UserError(f"{key}: {str(error).strip().splitlines()[0]}") from None
    assert isinstance(resolved, dict)
    return resolved


def _keys(config: DictConfig, prefix: str = "") -> frozenset[str]:
    keys: set[str] = set()
    for name in config:
        full = f"{prefix}{name}"
        keys.add(full)
        node = (
            OmegaConf.select(config, str(name))
            if not OmegaConf.is_interpolation(config, name)
            else None
        )
        if isinstance(node, DictConfig):
            keys |= _keys(node, f"{full}.")
    return frozenset(keys)


def _explain(error: Exception, overrides: Sequence[str], loader: ConfigLoader) -> str:
    """One line for what Hydra says in several."""
    text = str(error)
    found = re.search(r"Could not (?:override|find) '([^']+)'", text)
    if found is None:
        return f"{' '.join(overrides)}: {text.strip().splitlines()[0]}"
    wrong = found.group(1)
    groups = loader.list_groups("")
    group, _, option = wrong.partition("/")
    folder = wrong.rpartition("/")[0]
    if group in groups and option:
        nested = folder.removeprefix(group).lstrip("/")
        options = [f"{nested}/{o}".lstrip("/") for o in loader.get_group_options(folder)]
        hint = did_you_mean(option, options)
        return f"{group}={option}: no such option{hint} (options: {', '.join(options)})"
    # The keys depend on the options chosen: head=triplet has no scale.
    chosen = [o for o in overrides if o.partition("=")[0] in groups]
    keys = _compose(tuple(chosen))[1]
    own = [o for o in chosen if o.partition("=")[0] == wrong.partition(".")[0]]
    beside = f" (with {own[0]})" if own else ""
    return f"{wrong}: no such key{beside}{did_you_mean(wrong, [*keys, *groups])}"
