"""Values as words of a command line: what Hydra's grammar of overrides reads them back from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# Texts that Hydra reads as themselves. Others are quoted: `1e5` would be a number, `a,b` a sweep.
_BARE = re.compile(r"[A-Za-z_][\w./-]*", re.ASCII)
_NOT_TEXTS = {"true", "false", "null", "nan", "inf"}


def override(name: str, value: Any) -> str:
    """`name=value` such that Hydra reads the value back: number, text, None, list or table."""
    return f"{name}={_value(value)}"


def _value(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{k}:{_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_value, value)) + "]"
    return _text(value) if isinstance(value, str) else repr(value)


def _text(text: str) -> str:
    if _BARE.fullmatch(text) and text.lower() not in _NOT_TEXTS:
        return text
    # Hydra takes a backslash as itself, unless a quote follows.
    return "'" + re.sub(r"(\\*)('|$)", _doubled, text) + "'"


def _doubled(found: re.Match[str]) -> str:
    slashes, quote = found.groups()
    return 2 * slashes + ("\\'" if quote else "")
