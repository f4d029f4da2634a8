"""A made-up paper with a few items, in a copy of conf/ and of the published numbers."""

import shutil

import pytest
import yaml

from hypersphere import paths
from hypersphere.execute import run_nodes
from hypersphere.papers import nodes
from hypersphere.papers import spec as declarations

ABOUT = {
    "title": "A toy",
    "citation": "nobody 2026",
    "url": "https://example.org",
    "items": ["table1", "table2", "table3", "table4", "table9", "figure1"],
    "decisions": [],
    "deviations": [],
    "presets": {
        "quick": {"protocol": "substitute", "note": "digits", "seeds": [0, 1]},
        "small": {"protocol": "shortened", "note": "shorter", "seeds": [0]},
        "paper": {"protocol": "exact", "note": "whole", "seeds": [0, 1, 2]},
    },
    "scope": {"quick": "toy", "small": "toy", "paper": "toy"},
}
TABLE = {
    "rows": ["k"],
    "columns": [],
    "unit": "split",
    "margin": 0.02,
    "select": {"k": "split.num_unseen"},
}
ITEMS = {
    # base trainings, and the same ones again under another metric
    "table1": TABLE | {"title": "base", "metric": "novel_classes/all/raw/disjoint/unseen"},
    "table2": TABLE | {"title": "shared", "metric": "training/loss", "metric_label": "loss"},
    # a tuned run that starts from a base run of table1
    "table3": TABLE
    | {
        "title": "tuned",
        "metric": "training/loss",
        "overrides": {"optimizer.lr": 1e-4, "schedule.epochs": 1},
        "parent": {"optimizer.lr": 1e-3, "schedule.epochs": 2},
    },
    # draws given one base model
    "table4": TABLE
    | {
        "title": "draws",
        "unit": "draw",
        "scale": 100.0,
        "metric": "novel_classes/{shots}/raw/disjoint/unseen",
        "words": {"shots": "1"},
        "presets": {"quick": {"seeds": [0]}},
    },
    # numbers without training
    "table9": {
        "title": "computed",
        "rows": ["statistic"],
        "columns": [],
        "unit": "deterministic",
        "margin": 0.01,
        "metric": "toy/{statistic}",
        "computation": {"_target_": "tests.toy.computation", "name": "toy", "size": 3},
        "presets": {"quick": {"protocol": "exact", "note": "the same in every preset"}},
    },
}


def computation(*, size: int, seed: int = 0):
    """A made-up computation: what a placement of prototypes is."""
    return {"size": float(size), "half": size / 2 + seed}


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A checkout's conf/ and published/ with one more paper, `toy`; quick trains for 2 epochs."""
    conf, published = tmp_path / "conf", tmp_path / "published"
    shutil.copytree(paths.conf_dir(), conf)
    shutil.copytree(paths.published_dir(), published)
    folder = conf / "paper" / "toy"
    folder.mkdir()
    (folder / "about.yaml").write_text(yaml.safe_dump(ABOUT))
    (folder / "claims.yaml").write_text("[]")
    for name, item in ITEMS.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(item | {"items": {name: None}}))
    for preset in declarations.PRESETS:
        (folder / f"{preset}.yaml").write_text(
            "# @package _global_\nbackbone: {filters: [4], dim: 8}\nschedule: {epochs: 2}\n"
        )
    (published / "toy").mkdir()
    rows = "".join(f"toy,t,{k},accuracy,0.9,,\n" for k in (2, 3))
    for name in ITEMS:
        (published / "toy" / f"{name}.csv").write_text(
            "paper,table,k,metric,value,std,note\n" + rows
            if name != "table9"
            else "paper,table,statistic,metric,value,std,note\n"
            "toy,t,size,number,3.0,,\ntoy,t,half,number,1.4,,\n"
        )
    (published / "toy" / "figure_claims.csv").write_text("paper,item,claim,check\n")
    monkeypatch.setattr(paths, "conf_dir", lambda: conf)
    monkeypatch.setattr(paths, "published_dir", lambda: published)
    from hypersphere.config.compose import _compose

    caches = (declarations.paper, nodes._composed, _compose)
    for cache in caches:
        cache.cache_clear()
    yield folder
    for cache in caches:
        cache.cache_clear()


def declare(folder, name, item):
    """Put an item in the place of the one of that name."""
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(item | {"items": {name: None}}))
    declarations.paper.cache_clear()


def run_all(plan, store):
    outcomes = list(run_nodes(plan.missing(store), store, 1, lambda line: None))
    assert [outcome.error for outcome in outcomes] == [""] * len(outcomes)
    return outcomes
