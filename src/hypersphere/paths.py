"""Where things lie: in a checkout beside `src/`, else (an installed wheel) the working directory.

The environment wins everywhere: HYPERSPHERE_DATA, HYPERSPHERE_RESULTS, HYPERSPHERE_RUNS. A user's
own configuration (HYPERSPHERE_CONF) stands beside ours.
"""

from __future__ import annotations

import os
from pathlib import Path

from hypersphere.errors import UserError

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


def own_conf_dir() -> Path | None:
    """The user's own configuration, if there is one (HYPERSPHERE_CONF): groups as `conf/` has them,
    and `published/`. What it holds takes the place of ours of the same name. Raises UserError for a
    folder that is not there."""
    if not (value := os.environ.get("HYPERSPHERE_CONF")):
        return None
    folder = Path(value).expanduser().resolve()
    if not folder.is_dir():
        raise UserError(f"HYPERSPHERE_CONF={value}: is no folder; make it, or unset the variable")
    return folder


def conf_dirs() -> list[Path]:
    """The user's own configuration, then ours."""
    return [*filter(None, [own_conf_dir()]), conf_dir()]


def published_dirs() -> list[Path]:
    """Printed numbers of the user's own papers, then those of ours."""
    own = own_conf_dir()
    return [*([own / "published"] if own else []), published_dir()]


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
