"""A composed configuration as plain values in which others are set, thousands of times a second.

OmegaConf takes milliseconds to copy, update and resolve a configuration; a plan asks for thousands
that differ in a few plain values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from omegaconf import DictConfig, OmegaConf

MISSING = "???"
_REFERENCE = re.compile(r"\$\{([A-Za-z_]\w*(?:\.\w+)*)\}")


class Plain:
    """The configuration `config` with its interpolations still open.

    `with_values` gives what `OmegaConf.update` and a resolution would, or None where only those
    can tell: a value missing, a table with keys of its own merged into a table, an interpolation of
    an unusual kind.
    """

    def __init__(self, config: DictConfig) -> None:
        container = OmegaConf.to_container(config, resolve=False)
        assert isinstance(container, dict)
        self._tree: dict[str, Any] = container
        leaves = dict(_leaves(container))
        self._missing = {path for path, value in leaves.items() if value == MISSING}
        texts = {path: v for path, v in leaves.items() if isinstance(v, str) and "${" in v}
        self._open = {path: (text, tuple(_REFERENCE.findall(text))) for path, text in texts.items()}
        self._usual = all(
            reads and not {_dotted(name) for name in reads} & texts.keys()
            for _, reads in self._open.values()
        )

    def with_values(self, values: Mapping[str, Any]) -> dict[str, Any] | None:
        """The resolved configuration with dotted `values` set."""
        if not self._usual or self._missing - {_dotted(name) for name in values}:
            return None
        tree = _copy(self._tree)
        for name, value in values.items():
            place, key = _place(tree, name)
            if "${" in str(value):
                return None
            if isinstance(value, Mapping) and isinstance(old := place[key], dict):
                # Merged: what the value does not speak of stays.
                known = all(k in old and not isinstance(old[k], dict) for k in value)
                if not known or any(".".join(path).startswith(f"{name}.") for path in self._open):
                    return None
                old |= _copy(value)
            else:
                place[key] = _copy(value)
        for path, (text, reads) in self._open.items():
            if ".".join(path) in values:
                continue
            place, key = _place(tree, path)
            found = []
            for name in reads:
                inner, last = _place(tree, name)
                if isinstance(inner[last], dict | list):
                    return None
                found.append((name, inner[last]))
            place[key] = _resolved(text, tuple(found))
        return tree


@lru_cache(maxsize=4096)
def _resolved(text: str, reads: tuple[tuple[str, Any], ...]) -> Any:
    """An interpolation, which depends on the values that it `reads` alone."""
    config = OmegaConf.create({})
    for name, value in reads:
        OmegaConf.update(config, name, value, force_add=True)
    OmegaConf.update(config, "text to resolve", text, force_add=True)
    return config["text to resolve"]


def _leaves(tree: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[Any, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*above, str(key)))
        else:
            yield (*above, str(key)), value


def _dotted(name: str) -> tuple[str, ...]:
    return tuple(name.split("."))


def _place(tree: dict[str, Any], name: str | tuple[str, ...]) -> tuple[dict[str, Any], str]:
    """The table that holds a dotted name, and the name's last part."""
    *above, key = name.split(".") if isinstance(name, str) else name
    for part in above:
        tree = tree[part]
    return tree, key


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list | tuple) else value
