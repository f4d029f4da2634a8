"""Compositions kept on disk: Hydra takes most of a second for one of ours, and a plan needs fifty.

They lie beside the runs, by a digest of everything that they are made of, as JSON: whoever edits a
YAML composes again, and the same plan a second time asks Hydra nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from hypersphere import paths
from hypersphere.data.facts import DATASETS
from hypersphere.errors import UserError
from hypersphere.files import write_text

FOLDER = ".composed"
_KEPT_FOR = 7 * 24 * 3600.0  # seconds since it was made, for what an older configuration composed


def recall(overrides: Sequence[str]) -> DictConfig | None:
    """What was composed of `overrides` from the configuration as it is now, if it was kept."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        container = json.loads(_file(overrides).read_text(encoding="utf-8"))
        config = OmegaConf.create(container)
        if isinstance(config, DictConfig):
            OmegaConf.set_struct(config, True)  # as Hydra leaves it: a key not there is refused
            return config
    return None


def keep(overrides: Sequence[str], config: DictConfig) -> None:
    """Keep a composition. A folder that takes nothing costs the time saved, no more."""
    container = OmegaConf.to_container(config, resolve=False)
    with contextlib.suppress(UserError, TypeError, OSError):  # TypeError: a value without JSON
        text = json.dumps(container)
        if json.loads(text) != container:  # JSON knows no numbers as keys
            return
        file = _file(overrides)
        if not file.parent.exists():
            _forget_old(file.parent.parent)
        write_text(file, text)


def _file(overrides: Sequence[str]) -> Path:
    name = hashlib.sha256("\n".join(overrides).encode()).hexdigest()[:16]
    return paths.runs_dir() / FOLDER / _digest(*paths.conf_dirs()) / f"{name}.json"


@cache
def _digest(*folders: Path) -> str:
    """Of what compositions depend on: the configuration's files, the datasets, and Hydra."""
    found = hashlib.sha256(f"{version('hydra-core')} {version('omegaconf')}".encode())
    for folder in folders:
        for file in sorted(folder.rglob("*.yaml")):
            found.update(f"\n{file.relative_to(folder)}\n".encode())
            found.update(file.read_bytes())
    for name in DATASETS:
        found.update(f"\n{name} {in_memory(name)}".encode())
    return found.hexdigest()[:16]


def in_memory(name: str) -> bool:
    """Whether a dataset's images are kept in memory, which is what composing asks of it."""
    try:
        return DATASETS[name].in_memory
    except UserError:  # a damaged description: what is wrong is said when it is asked for
        return True


def _forget_old(folder: Path) -> None:
    for made in folder.glob("*"):
        if time.time() - made.stat().st_mtime > _KEPT_FOR:
            shutil.rmtree(made, ignore_errors=True)
