"""Every preset composes with every head; a mistake is one readable line; identities are frozen."""

# ruff: noqa: E501 (the expected messages, whole)

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
from hypersphere import paths
from hypersphere.config import Component, compose, compose_values, digest, split_config
from hypersphere.config.components import check
from hypersphere.config.data import Imbalance, Shots, describe, describe_all
from hypersphere.data.load import load
from hypersphere.errors import UserError
from hypersphere.training.images import EpochBatches, values_of
from hypersphere.training.learner import Learner

HEADS = sorted(file.stem for file in (paths.conf_dir() / "head").glob("*.yaml"))
PRESETS = [
    f"{file.parent.name}/{file.stem}"
    for file in sorted((paths.conf_dir() / "paper").glob("*/*.yaml"))
    if file.stem in ("quick", "small", "paper")
]


def training(*overrides):
    return split_config(compose(overrides))[0]


# Presets


def test_presets_are_found():
    assert {"nsl/quick", "nsl/small", "nsl/paper"} <= set(PRESETS)
    assert {"contrastive", "nsl", "triplet"} <= set(HEADS)


# Heads that learn a number of each image, and the recipes whose images have one
VALUE_HEADS = ("clamped", "joint", "multi_task", "poles")
VALUE_PRESETS = {"hpn/art": VALUE_HEADS, "hpn/rotation": ("joint",)}
# Heads without logits, and the paper whose schedule watches an accuracy
NO_LOGITS = ("contrastive", "lifted_structured", "regression", "triplet")
WATCHING = "fixed-vectors"


def _go_together(preset, head):
    learned = VALUE_PRESETS.get(preset.rpartition("/")[0])
    if preset.startswith(WATCHING) and head in NO_LOGITS:
        return False
    return head not in VALUE_HEADS if learned is None else head in learned


@pytest.mark.parametrize(
    ("preset", "head"), [p for p in itertools.product(PRESETS, HEADS) if _go_together(*p)]
)
def test_every_preset_with_every_head(preset, head):
    words = [f"paper={preset}", f"head={head}"]
    if head == "lifted_structured":  # recipes state a size, which its class-balanced batches lack
        words.append("batches=shuffled")
    checked, evaluations = split_config(compose(words))
    assert len(checked.id) == 12
    # those recipes' tables take the training's own accuracy
    own = preset.startswith(("hpn/", WATCHING)) and preset.rpartition("/")[0] not in VALUE_PRESETS
    assert bool(evaluations) != own
    for component in checked.components.values():
        assert component.name and component.params is not None
    if preset.endswith("/quick"):
        assert checked.dataset.layout == "digits"  # nothing to download
        learner = Learner(checked)
        data, seen = load(checked.data.name), torch.tensor(checked.split().seen)
        keep = torch.isin(data.train_labels, seen)
        labels = torch.searchsorted(seen, data.train_labels[keep])
        values = values_of(checked, data.train_targets)
        batches = EpochBatches(checked, data.train_images[keep], labels, 0, values)
        loss = learner.loss(*next(iter(batches)))
        loss.backward()
        assert torch.isfinite(loss)
        gradients = [p.grad for p in learner.network.parameters()]
        assert all(g is not None and torch.isfinite(g).all() for g in gradients)


def test_recipe_of_tables_1_to_4():
    # spec/papers.md 1.2, against the composed values (not against the YAML files).
    checked = training("paper=nsl/paper")
    assert checked.components["backbone"].params == {"filters": [32, 64], "dim": 128}
    adam = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-7, "weight_decay": 0.0}
    assert checked.components["optimizer"].params == adam
    assert checked.components["schedule"].params == {"epochs": 30}
    assert stated(checked, "head") == {"scale": 16.0}
    assert checked.components["batches"].identity()["size"] == 32
    assert (
        checked.data.augmentation is None
        and not checked.data.normalize
        and checked.data.size is None
    )
    triplet = training("paper=nsl/paper", "head=triplet")
    assert stated(triplet, "head") == {"margin": 1.0, "squared": False, "mining": "semihard"}
    contrastive = training("paper=nsl/paper", "head=contrastive")
    assert stated(contrastive, "head") == {"margin": 1.0, "pairs": "consecutive"}
    batches = contrastive.components["batches"]
    assert (batches.name, batches.params) == ("pairs", {"size": 64})


def stated(checked, component):
    """The parameters that are not neutral."""
    identity = checked.components[component].identity()
    return {key: value for key, value in identity.items() if key not in ("name", "revision")}


def test_the_split_follows_the_seed():
    assert training("paper=nsl", "seed=3").components["split"].params["permutation"] == 3


# Mistakes


def say(text, *overrides, marks=()):
    return pytest.param(overrides, text, id=" ".join(overrides), marks=marks)


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        # misspelt keys
        say("sede: no such key; did you mean 'seed'?", "sede=1"),
        say("head.scal: no such key; did you mean 'head.scale'?", "head.scal=3"),
        say("heads: no such key; did you mean 'head'?", "heads=nsl"),
        say("optimiser: no such key; did you mean 'optimizer'?", "optimiser=sgd"),
        say("backbone.fliters: no such key; did you mean 'backbone.filters'?", "backbone.fliters=[8]"),
        say(
            "evaluations.novel_classes.shot: no such key; did you mean 'evaluations.novel_classes.shots'?",
            "evaluations.novel_classes.shot=[1]",
        ),
        say("foo: no such key", "+foo=1"),
        say("head.scala: no such key; did you mean 'scale'?", "+head.scala=1"),
        say(
            "data.augmentation.fliip: no such key",
            "data.augmentation={crop_padding:4,flip:true,fliip:true}",
        ),
        say(
            "data.augmentation.fliip: no such key; did you mean 'flip'?",
            "data.augmentation={crop_padding:4,flip:true,fliip:true}"
        ),
        # misspelt options, papers, presets
        say(
            "head=triplets: no such option; did you mean 'triplet'? (options: center, clamped,",
            "head=triplets",
        ),
        say("paper=nls: no such option; did you mean 'nsl'?", "paper=nls"),
        say("data=minst: no such option; did you mean 'mnist'?", "data=minst"),
        say("schedule=cosine: no such option (options: constant, exponential, multistep, plateau)", "schedule=cosine"),
        say(
            "paper=nsl/smal: no such option; did you mean 'nsl/small'?",
            "paper=nsl/smal"
        ),
        # a key of another option of the group
        say(
            "head.scale: no such key",
            "head=triplet",
            "head.scale=3",
        ),
        say(
            "head.scale: no such key (with head=triplet)",
            "head=triplet",
            "head.scale=3"
        ),
        # wrong type
        say("head.scale='abc': input should be a valid number", "head.scale=abc"),
        say("optimizer.lr='fast': input should be a valid number", "optimizer.lr=fast"),
        say("split.num_unseen=2.0: input should be a valid integer", "split.num_unseen=2.0"),
        say("backbone.filters.1='x': input should be a valid integer", "backbone.filters=[8,x]"),
        say("data.normalize=2: input should be False, True, 'imagenet' or 'symmetric'", "data.normalize=2"),
        say("initial=5: input should be a valid string", "initial=5"),
        say("seed=1.5: input should be a valid integer", "seed=1.5", "split.permutation=0"),
        say(
            "seed=1.5: input should be a valid integer",
            "seed=1.5"
        ),
        # out of range
        say("head.scale=-1: input should be greater than 0", "head.scale=-1"),
        say("head.scale=nan: input should be a finite number", "head.scale=nan"),
        say("split.num_unseen=0: input should be greater than or equal to 1", "split.num_unseen=0"),
        say("optimizer.beta1=1.0: input should be less than 1", "optimizer.beta1=1.0"),
        say("schedule.epochs=0: input should be greater than 0", "schedule.epochs=0"),
        say("batches.size=5: input should be a multiple of 2", "batches=pairs", "batches.size=5"),
        say("head.mining='hard': input should be 'semihard' or 'all'", "head=triplet", "head.mining=hard"),
        say("precision='fp16': input should be 'fp32' or 'bf16'", "precision=fp16"),
        say("backbone.filters=[]: list should have at least 1 item", "backbone.filters=[]"),
        say(
            "data.augmentation.crop_padding=-1: input should be greater than or equal to 0",
            "data.augmentation={crop_padding:-1,flip:true}",
        ),
        say(
            "evaluations.novel_classes.shots.0=0: input should be greater than or equal to 1",
            "evaluations.novel_classes.shots=[0]",
        ),
        say(
            "head.scale=inf: input should be a finite number",
            "head.scale=inf"
        ),
        # incomplete
        say(
            "data.augmentation.flip: must be stated in the configuration",
            "data.augmentation={crop_padding:4}",
        ),
        say("head: needs the keys _target_ and name", "~head"),
        say(
            "head.name",
            "head.name=null"
        ),
        say(
            "seed",
            "seed=???",
        ),
        say(
            "optimizer",
            "optimizer=sgd",
            "optimizer.nesterov=true",
            "optimizer.momentum=0.0",
        ),
        # unknown dataset, impossible split, network that does not fit
        say("data.name=cifar: no such dataset; did you mean 'cifar10'? (known: ", "data.name=cifar"),
        say(
            "split (digits): num_unseen=9 leaves fewer than two of 10 classes to train on (at most 8)",
            "split.num_unseen=9",
        ),
        say(
            "backbone",
            "backbone.filters=[8,8,8,8]"
        ),
        # what cannot be imported or parsed
        say("head._target_=hypersphere.heads.Nope: ", "head._target_=hypersphere.heads.Nope"),
        say("head.scale=[1: ", "head.scale=[1"),
        say("=3: ", "=3"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(overrides, text):
    with pytest.raises(UserError) as error:
        assert split_config(compose(overrides))[0].id
    assert str(error.value).startswith(text)
    assert "\n" not in str(error.value)


# Identity


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
