"""Where things lie: in a checkout beside `src/`, else (an installed wheel) the working directory.

The environment wins everywhere: HYPERSPHERE_DATA, HYPERSPHERE_RESULTS, HYPERSPHERE_RUNS.
"""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parents[1]


def in_checkout() -> bool:
    """Whether this package runs from a checkout (with `conf/` and `results/` at its top)."""
    return (_CHECKOUT / "conf" / "train.yaml").exists()


def root() -> Path:
    """The checkout, or the working directory of an installed package."""
    return _CHECKOUT if in_checkout() else Path.cwd()


def conf_dir() -> Path:
    """The Hydra configuration: the checkout's, else the copy inside the wheel."""
    return _CHECKOUT / "conf" if in_checkout() else _PACKAGE / "conf"


def published_dir() -> Path:
    """The papers' printed numbers, one folder per paper."""
    return _CHECKOUT / "results" / "published" if in_checkout() else _PACKAGE / "published"


def _from_environment(variable: str, default: str) -> Path:
    value = os.environ.get(variable)
    return Path(value).expanduser().resolve() if value else root() / default


def data_dir() -> Path:
    """Datasets, in the layouts torchvision uses (HYPERSPHERE_DATA)."""
    return _from_environment("HYPERSPHERE_DATA", "data")


def results_dir() -> Path:
    """Records, tables, figures and claims, one folder per preset (HYPERSPHERE_RESULTS)."""
    return _from_environment("HYPERSPHERE_RESULTS", "results")


def runs_dir() -> Path:
    """One folder per run: config, log, checkpoint, embeddings (HYPERSPHERE_RUNS)."""
    return _from_environment("HYPERSPHERE_RUNS", "runs")
