"""Every preset composes with every head; a mistake is one readable line."""

# ruff: noqa: E501 (the expected messages, whole)

import itertools

import pytest
import torch

from hypersphere import paths
from hypersphere.config import compose, split_config
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
