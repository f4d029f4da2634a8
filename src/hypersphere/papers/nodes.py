"""From a cell's keys to its run: what its columns select, composed and checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from hypersphere import paths
from hypersphere.config import Component, Evaluation, Node, Training, compose_values, split_config
from hypersphere.config.words import override
from hypersphere.errors import UserError
from hypersphere.papers.spec import ItemSpec, PresetSpec, Selection
from hypersphere.reporting.declared import ByKey


def node_of(
    key: str,
    preset: str,
    spec: ItemSpec,
    overrides: Selection,
    parent: Selection | None,
    seed: int,
    source: str,
) -> Node:
    base = None
    if parent is not None:
        base, _ = _compose(key, preset, {**overrides, **parent}, seed)
        overrides = {**overrides, "initial": base.id}
    training, evaluations = _compose(key, preset, overrides, seed)
    training = training.starting_from(base)
    if source == "training":
        return training
    if source not in evaluations:
        known = ", ".join(["training", *evaluations])
        raise UserError(f"{key} {spec.name}: metric starts with {source!r}, known are {known}")
    return Evaluation(evaluations[source], training)


def _compose(
    key: str, preset: str, overrides: Selection, seed: int
) -> tuple[Training, dict[str, Component]]:
    groups = _groups(paths.conf_dir())
    recipe = "/".join(["paper=" + key, *filter(None, [overrides.get("recipe")]), preset])
    options, values = [recipe], {"seed": seed}
    for name, value in overrides.items():
        if name == "recipe":
            continue
        if name in groups:
            options.append(f"{name}={value}")
        else:
            values[name] = value
    return _composed(tuple(options), json.dumps(values, sort_keys=True))


@cache
def _groups(conf: Path) -> frozenset[str]:
    """Names of the groups of configurations: the folders of `conf`."""
    return frozenset(folder.name for folder in conf.iterdir() if folder.is_dir())


@cache
def _composed(options: tuple[str, ...], values: str) -> tuple[Training, dict[str, Component]]:
    """Cells of several items ask for the same run; composing costs milliseconds, so ask once."""
    chosen = json.loads(values)
    training, evaluations = split_config(compose_values(options, chosen))
    return training.asked_for(
        [*options, *(override(*each) for each in chosen.items())]
    ), evaluations


def overrides_of(spec: ItemSpec, keys: Mapping[str, str], settings: PresetSpec) -> Selection:
    found: Selection = {"recipe": spec.recipe}
    for column, chosen in spec.select.items():
        if column not in keys:
            raise UserError(
                f"{spec.name}: select.{column}: no such column (there are {list(keys)})"
            )
        text = keys[column]
        if isinstance(chosen, str):
            found[chosen] = _loaded(text)
        elif text in chosen:
            found |= chosen[text]
        else:
            raise UserError(f"{spec.name}: select.{column}: says nothing of {text!r}")
    found |= spec.overrides
    return {
        name: filled(spec, instead(settings, name, value), keys, name)
        for name, value in found.items()
    }


@cache
def _loaded(text: str) -> Any:
    """What a key's text is as a value; a few texts are asked for thousands of times."""
    return yaml.safe_load(text)


def parent_of(spec: ItemSpec, keys: Mapping[str, str]) -> Selection | None:
    """What makes of a cell's overrides those of the run that its run starts from, if there is
    one."""
    given = spec.parent
    if isinstance(given, ByKey):
        given = given.of(keys) if given.speaks_of(keys) else None
    return given and {name: filled(spec, value, keys, "parent") for name, value in given.items()}


def instead(settings: PresetSpec, name: str, value: Any) -> Any:
    """What the preset has instead of `value`: one value for all, or a table of them."""
    other = settings.instead.get(name, value)
    if isinstance(other, dict) and not isinstance(value, dict):
        if value not in other:
            raise UserError(f"instead.{name}: says nothing of {value!r} (only of {list(other)})")
        return other[value]
    return other


def metric_of(spec: ItemSpec, keys: Mapping[str, str]) -> str:
    return filled(spec, spec.metric, keys, "metric")


def filled(spec: ItemSpec, value: Any, keys: Mapping[str, str], where: str) -> Any:
    """A text with a cell's keys and words in their places, and a table whose texts are keys alone
    with their values; other values as they are."""
    if isinstance(value, dict):
        return {name: _value(inner, keys) for name, inner in value.items()}
    if not isinstance(value, str):
        return value
    try:
        chosen = {
            name: by_key(word, keys, f"{spec.name}: words.{name}").format(**keys)
            for name, word in spec.words.items()
        }
        return value.format(**{**keys, **chosen})
    except KeyError as error:
        raise UserError(f"{spec.name}: {where}: no column or word {error}") from None


def _value(text: Any, keys: Mapping[str, str]) -> Any:
    """The value of the key that stands alone in a text (`{n_shot}`); anything else as it is."""
    named = text[1:-1] if isinstance(text, str) and text[:1] + text[-1:] == "{}" else None
    return _loaded(keys[named]) if named in keys else text


def by_key(value: Any, keys: Mapping[str, str], where: str) -> Any:
    """What a cell gets of a value that may depend on one of its keys."""
    try:
        return value.of(keys) if isinstance(value, ByKey) else value
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None
