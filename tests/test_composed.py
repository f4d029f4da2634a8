"""Compositions kept on disk are what Hydra would compose now, or are not used."""

import json
import shutil
import subprocess
import sys

import pytest

from hypersphere import paths
from hypersphere.config import compose as compose_now
from hypersphere.config import composed, split_config
from hypersphere.config.compose import _compose, resolve

OPTIONS = ("paper=nsl/quick", "head=triplet", "seed=3", "head.margin=0.2")

# Composes in a process of its own: says whether Hydra was asked, and what came of it.
COMPOSES = """
import json, sys
from hypersphere.config import compose
composing = sys.modules['hypersphere.config.compose']
asked = []
real = composing.hydra_compose
composing.hydra_compose = lambda *a: asked.append(a) or real(*a)
found = compose(sys.argv[1:])
print(json.dumps([len(asked), found]))
"""


def in_a_process(*overrides):
    done = subprocess.run(
        [sys.executable, "-c", COMPOSES, *overrides], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.fixture
def fresh():
    """Nothing remembered in this process."""
    _compose.cache_clear()
    composed._digest.cache_clear()
    yield
    _compose.cache_clear()
    composed._digest.cache_clear()


def test_a_second_process_does_not_ask_hydra_and_gets_the_same(fresh):
    asked, first = in_a_process(*OPTIONS)
    again, second = in_a_process(*OPTIONS)
    assert (asked, again) == (1, 0)
    assert first == second == compose_now(OPTIONS)
    assert split_config(first)[0].id == split_config(compose_now(OPTIONS))[0].id


def test_what_is_recalled_refuses_unknown_keys_as_hydra_does(fresh):
    config, keys = _compose(OPTIONS)
    recalled = composed.recall(OPTIONS)
    assert recalled == config
    assert resolve(recalled) == resolve(config)
    with pytest.raises(Exception, match="not in struct"):
        recalled.head.no_such_key = 1
    with pytest.raises(Exception, match="not in struct"):
        config.head.no_such_key = 1
    assert "head.margin" in keys


def test_an_edited_configuration_is_composed_again(fresh, tmp_path, monkeypatch):
    folder = tmp_path / "conf"
    shutil.copytree(paths.conf_dir(), folder)
    monkeypatch.setattr(paths, "conf_dir", lambda: folder)
    before = compose_now(["head=nsl"])
    assert composed.recall(["head=nsl"]) is not None
    file = folder / "optimizer" / f"{before['optimizer']['name']}.yaml"
    file.write_text(file.read_text() + "\n# another comment\n")
    composed._digest.cache_clear()  # a process reads the configuration once
    assert composed.recall(["head=nsl"]) is None


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b"\xff\xfe", b"7"])
def test_a_damaged_file_is_composed_again(fresh, damage):
    before = compose_now(OPTIONS)
    composed._file(OPTIONS).write_bytes(damage)
    _compose.cache_clear()
    assert compose_now(OPTIONS) == before
    assert composed.recall(OPTIONS) is not None


def test_what_json_cannot_hold_is_not_kept(fresh):
    from omegaconf import OmegaConf

    composed.keep(["numbers as keys"], OmegaConf.create({"a": {1: "one"}}))
    assert composed.recall(["numbers as keys"]) is None


def test_runs_that_cannot_be_written_cost_the_time_alone(fresh, tmp_path, monkeypatch):
    blocked = tmp_path / "a file"
    blocked.write_text("")
    monkeypatch.setenv("HYPERSPHERE_RUNS", str(blocked / "runs"))
    assert compose_now(OPTIONS)["seed"] == 3
