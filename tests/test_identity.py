"""What a run's id hangs on, and what it does not; ids are frozen."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
import torch
from pydantic import Field

import hypersphere
from hypersphere.config import Component, compose, compose_values, digest, split_config
from hypersphere.config.components import check
from hypersphere.config.data import Imbalance, Shots, describe, describe_all
from hypersphere.errors import UserError
from tests.test_config import HEADS, VALUE_HEADS, training


def test_identity_ignores_the_order_of_keys():
    raw = compose(["paper=nsl"])

    def turned(node):
        return {k: turned(node[k]) for k in reversed(node)} if isinstance(node, dict) else node

    assert list(turned(raw)) != list(raw)
    assert split_config(turned(raw))[0].id == split_config(raw)[0].id
    assert digest({"a": 1, "b": {"c": 2, "d": 3}}) == digest({"b": {"d": 3, "c": 2}, "a": 1})


def test_whole_numbers_are_numbers():
    assert (
        training("head.scale=16").id
        == training("head.scale=16.0").id
        == training("head.scale=1.6e1").id
    )


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "precision=bf16",
        "initial=0123456789ab",
        "head.scale=8",
        "head=triplet",
        "batches.size=64",
        "batches=pairs",
        "split.num_unseen=3",
        "split.permutation=1",
        ["split=all_classes", "evaluations=none"],
        "data=mnist",
        "data.size=16",
        "data.normalize=true",
        "data.augmentation={crop_padding: 1, flip: true}",
        "backbone.dim=64",
        "backbone.filters=[16,8]",
        "optimizer.lr=1e-4",
        "optimizer=sgd",
        "schedule.epochs=5",
        "schedule=multistep",
    ],
)
def test_identity_changes_with(override):
    assert (
        training("paper=nsl", *([override] if isinstance(override, str) else override)).id
        != training("paper=nsl").id
    )


@pytest.mark.parametrize(
    "override",
    [
        "evaluations.novel_classes.shots=[2]",
        "evaluations.novel_classes.draws=3",
        "~evaluations",
        "hydra.job.chdir=true",
    ],
)
def test_identity_does_not_change_with(override):
    assert training("paper=nsl", override).id == training("paper=nsl").id


def test_presets_share_equal_runs():
    assert training("paper=nsl/small", "schedule.epochs=30").id == training("paper=nsl/paper").id
    assert training("paper=nsl").id == training("paper=nsl/quick").id == training().id


def test_all_parts_differ():
    grid = [
        split_config(compose_values(["paper=nsl", f"head={h}"], {"seed": s, "split.num_unseen": k}))[0].id
        for h in HEADS if h not in VALUE_HEADS for s in range(2) for k in (2, 3)
    ]  # fmt: skip
    assert len(set(grid)) == len(grid)


def test_identity_follows_content_name_and_revision(monkeypatch):
    from dataclasses import replace

    from hypersphere.data.facts import DATASETS
    from hypersphere.heads import NormalizedSoftmax

    before = training("paper=nsl").id
    with monkeypatch.context() as patch:
        patch.setitem(DATASETS.added, "digits", replace(DATASETS["digits"], content="00"))
        assert training("paper=nsl").id != before
    with monkeypatch.context() as patch:
        patch.setattr(NormalizedSoftmax, "revision", 2, raising=False)
        assert training("paper=nsl").id != before
    # Moving the class orphans nothing: the name counts, not the path.
    moved = "head._target_=hypersphere.heads.normalized_softmax.NormalizedSoftmax"
    assert training("paper=nsl", moved).id == before
    assert training("paper=nsl", "head.name=other").id != before


class First:
    def __init__(self, dim: int, *, scale: Annotated[float, Field(gt=0)]) -> None:
        self.dim, self.scale = dim, scale


class Later(First):
    """The same component with a parameter that came later and is neutral by default."""

    def __init__(
        self, dim: int, *, scale: Annotated[float, Field(gt=0)], margin: float = 0.0
    ) -> None:
        super().__init__(dim, scale=scale)
        self.margin = margin


def component(cls, **given):
    return check({"_target_": f"{__name__}.{cls.__name__}", "name": "head", **given}, "head")


def test_a_parameter_added_with_a_neutral_default_keeps_the_identity():
    first, later = component(First, scale=16.0), component(Later, scale=16.0)
    assert digest(first.identity()) == digest(later.identity())
    assert digest(component(Later, scale=16.0, margin=0).identity()) == digest(first.identity())
    assert digest(component(Later, scale=16.0, margin=0.5).identity()) != digest(first.identity())
    built = component(Later, scale=16, margin=0.5).build(3)
    assert (built.dim, built.scale, built.margin) == (3, 16.0, 0.5)
    assert isinstance(later, Component)


class FromFile:
    """A component whose hash tells all that its file's name could."""

    told_by = {"sha256": ("file",)}

    def __init__(self, *, file: str, sha256: str) -> None:
        self.file, self.sha256 = file, sha256


def test_where_a_file_lies_does_not_matter_once_its_hash_is_stated():
    here, there = (component(FromFile, file=name, sha256="ab") for name in ("a.npy", "b.npy"))
    assert here.identity() == there.identity()
    assert component(FromFile, file="a.npy", sha256="cd").identity() != here.identity()
    unknown = [component(FromFile, file=name, sha256="").identity() for name in ("a", "b")]
    assert unknown[0] != unknown[1]
    assert here.build().file == "a.npy"


def test_the_checksum_of_a_listed_file_needs_no_stating():
    """As the authors' prototypes are listed, `head.file=` is enough on the command line."""
    file = "hpn-prototypes/sgd/prototypes-3d-100c.npy"
    chosen = ["head=prototypes", "head.placement=file", "backbone.dim=3"]
    listed = compose([*chosen, f"head.file={file}"])["head"]["sha256"]
    assert listed.startswith("bb3a184dd7880a2d") and len(listed) == 64
    assert compose_values(chosen, {"head.file": file})["head"]["sha256"] == listed
    assert compose([*chosen, "head.file=mine.npy"])["head"]["sha256"] == ""
    stated = compose([*chosen, "head.file=mine.npy", "head.sha256=ab"])["head"]["sha256"]
    assert stated == "ab"


def test_positional_parameters_are_no_configuration():
    with pytest.raises(UserError, match=r"head\.dim: no such key"):
        component(First, scale=1.0, dim=3)
    with pytest.raises(UserError, match=r"head\.scale: must be stated in the configuration"):
        component(First)


def test_compose_values_equals_compose():
    for head, seed, k, lr in itertools.product(HEADS, (0, 3), (5,), (1e-3, 0.5)):
        values = {
            "seed": seed,
            "split.num_unseen": k,
            "optimizer.lr": lr,
            "backbone.filters": [4, k],
        }
        words = [f"{key}={value}" for key, value in values.items()]
        options = ["paper=nsl", f"head={head}"]
        assert compose_values(options, values) == compose([*options, *words])


def test_compose_values_leaves_the_remembered_configuration_alone():
    before = compose(["paper=nsl"])
    compose_values(["paper=nsl"], {"seed": 9})
    changed = compose(["paper=nsl"])
    changed["head"]["scale"] = -1
    assert compose(["paper=nsl"]) == before


def test_compose_values_names_a_misspelt_key():
    with pytest.raises(
        UserError, match=r"^split\.num_unsen: no such key; did you mean 'split\.num_unseen'\?$"
    ):
        compose_values(["paper=nsl"], {"split.num_unsen": 3})


def test_composing_and_checking_leave_the_global_random_state_alone():
    state = torch.get_rng_state()
    training("paper=nsl", "backbone.dim=77")  # not checked before in this process
    assert torch.equal(torch.get_rng_state(), state)


# Records are kept under these ids (checked against real records of commit 249b809): an id may
# only change together with a raised revision.
GOLDEN = {
    ("quick", "nsl"): "6cada50792e5",
    ("small", "nsl"): "7b380c466052",
    ("paper", "nsl"): "bd1102dc6712",
    ("quick", "triplet"): "37e49f4642e4",
    ("small", "triplet"): "a86814c507c4",
    ("paper", "triplet"): "b439215cd8d9",
    ("quick", "contrastive"): "2648b701a41f",
    ("small", "contrastive"): "a1cf18e2894f",
    ("paper", "contrastive"): "f3dd76c4bc98",
}


def words(preset, head):
    return [f"paper=nsl/{preset}", f"head={head}", "seed=0", "split.num_unseen=2"]


@pytest.mark.parametrize(("preset", "head"), GOLDEN)
def test_golden_ids(preset, head):
    assert training(*words(preset, head)).id == GOLDEN[preset, head]


@pytest.mark.slow
def test_ids_are_the_same_in_another_process():
    code = """
import json, sys
from hypersphere.config import compose, split_config
print(json.dumps([split_config(compose(words))[0].id for words in json.loads(sys.argv[1])]))
"""
    asked = [words(*key) for key in GOLDEN]
    source = Path(hypersphere.__file__).parents[1]
    environment = {**os.environ, "PYTHONHASHSEED": "4242", "PYTHONPATH": str(source)}
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(asked)],
        capture_output=True, text=True, env=environment, cwd="/",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == list(GOLDEN.values())


def test_images_that_differ_in_their_shots_alone_are_one_line(small):
    data, facts = small().data, small().dataset
    few = [
        data.model_copy(update={"shots": Shots(number=n, draw=d)})
        for n in (1, 20, 5)
        for d in (1, 0)
    ]
    rare = [
        data.model_copy(update={"imbalance": Imbalance(smallest=2, largest=9, draw=d)})
        for d in (0, 2)
    ]
    lines = describe_all((each, facts) for each in (*few, data, *rare, data))
    assert len(lines) == 3 and lines == sorted(lines)
    assert describe(data, facts) in lines
    assert sum("1, 5, 20 per novel class (draws 0, 1)" in line for line in lines) == 1
    assert sum("trained on 2 to 9 per class (draws 0, 2)" in line for line in lines) == 1
    assert "20 per novel class (draw 1)" in describe(few[2], facts)
