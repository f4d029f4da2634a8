"""The nodes of the run graph (training, evaluation, computation) and their identity.

A run's id is a hash of what changes its numbers: data and their content, split, backbone, head,
batches, optimiser, schedule, precision, seed, initial weights. Paper, item, preset, device,
threads, paths and logging stay out of it, so that papers and presets share what is equal.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Annotated, Any, Literal

import pydantic

from hypersphere.config.components import Component, check, check_values
from hypersphere.config.data import Data
from hypersphere.data.facts import DATASETS, Dataset
from hypersphere.data.listing import available
from hypersphere.data.splits import Split
from hypersphere.errors import UserError, did_you_mean

COMPONENTS = ("split", "batches", "backbone", "head", "optimizer", "schedule")

_STRICT = pydantic.ConfigDict(extra="forbid", strict=True)


class Settings(pydantic.BaseModel):
    """The plain values at the top of a training's configuration.

    seed: of initialisation and order of batches (and, where a recipe says so, of the split).
    precision: `bf16` trains under bfloat16 autocast with float32 weights and losses.
    initial: id of a finished run whose weights this one starts from (its parent), or None.
    new_classes: what the class vectors of classes start from that the parent was not trained on:
    `random`, as the head starts, or `imprinted`, from the images it is trained on.
    class_weights: `balanced` weighs the loss of an image by n / (K n_k), for n images of K classes,
    n_k of them of its own. select: the weights of the `last` epoch, or of the one with the
    `lowest_validation_loss` (needs data.validation), or with the `highest_test_accuracy`, which is
    chosen on the very images that it is then reported for, as some papers do.
    """

    model_config = _STRICT
    seed: Annotated[int, pydantic.Field(ge=0)]
    precision: Literal["fp32", "bf16"]
    initial: str | None = None
    new_classes: Literal["random", "imprinted"] = "random"
    class_weights: Literal["none", "balanced"] = "none"
    select: Literal["last", "lowest_validation_loss", "highest_test_accuracy"] = "last"


@dataclass(frozen=True)
class Training:
    """One checked training: everything that its numbers depend on.

    base: the run that `initial` names, where the planner knows it. words: the command line that
    asks for it (Hydra overrides), where the planner knows that; no part of what it is.
    """

    data: Data
    settings: Settings
    components: dict[str, Component]
    raw: dict[str, Any]
    base: Training | None = None
    words: tuple[str, ...] = field(default=(), compare=False, repr=False)

    def starting_from(self, base: Training | None) -> Training:
        """The same training, knowing the run it starts from."""
        return replace(self, base=base)

    def asked_for(self, words: Sequence[str]) -> Training:
        """The same training, knowing the command line that asks for it."""
        return replace(self, words=tuple(words))

    @property
    def dataset(self) -> Dataset:
        return DATASETS[self.data.name]

    @property
    def parent(self) -> str | None:
        return self.settings.initial

    @property
    def split_is_known(self) -> bool:
        """A split by counts can be told where the images are, which need not be where runs are
        planned; any other everywhere."""
        return not self._split_needs_counts or not available(self.data.name)

    @property
    def _split_needs_counts(self) -> bool:
        return getattr(self.components["split"].target, "needs_counts", False)

    def split(self) -> Split:
        """Seen and unseen classes. Raises UserError when they do not fit the dataset, or when they
        rest on its counts and it is not here."""
        if self._split_needs_counts:
            from hypersphere.data.load import class_counts  # brings torch, which plans do without

            classes: Any = class_counts(self.data.name)
        else:
            classes = self.dataset.num_classes
        try:
            return self.components["split"].build(classes)
        except ValueError as error:
            raise UserError(f"split ({self.data.name}): {error}") from None

    def identity(self) -> dict[str, Any]:
        """What the run's hash sees (see the module's docstring)."""
        data = _without_defaults(self.data)
        found = {
            "kind": "training",
            "data": {**data, "content": self.dataset.pinned},
            **_without_defaults(self.settings),
            **{name: component.identity() for name, component in self.components.items()},
        }
        if self.data.views is not None and getattr(self.components["batches"].target, "repeats", 0):
            # Once an image of a file that an epoch showed twice was cut alike both times.
            found["batches"]["revision"] += 1
        return found

    @cached_property
    def id(self) -> str:
        return digest(self.identity())


@dataclass(frozen=True)
class Evaluation:
    """A judgement of one finished training, by its saved embeddings or, where the component has
    `reads_images`, by its network on other images."""

    component: Component
    training: Training

    @property
    def parent(self) -> str:
        return self.training.id

    def identity(self) -> dict[str, Any]:
        return {
            "kind": "evaluation",
            "evaluation": self.component.identity(),
            "parent": self.parent,
        }

    @cached_property
    def id(self) -> str:
        return digest(self.identity())


@dataclass(frozen=True)
class Computation:
    """Numbers that need no training (a placement of prototypes, say): the component's own."""

    component: Component
    parent: None = None

    def identity(self) -> dict[str, Any]:
        return {"kind": "computation", "computation": self.component.identity()}

    @cached_property
    def id(self) -> str:
        return digest(self.identity())


Node = Training | Evaluation | Computation


def check_training(raw: Mapping[str, Any]) -> Training:
    """Check a composed and resolved configuration.

    Raises UserError for an unknown key, a wrong type, a value out of range, an unknown dataset,
    or a split that the dataset cannot give.
    """
    rest = {key: value for key, value in raw.items() if key not in COMPONENTS}
    given = rest.pop("data", {})
    # Plain values first: a bad seed shows as `seed`, not as what is derived from it.
    settings = Settings(**check_values(Settings, rest, ""))
    components = {name: check(raw.get(name), name) for name in COMPONENTS}
    data = Data(**check_values(Data, given, "data"))
    if data.name not in DATASETS:
        hint = did_you_mean(data.name, DATASETS)
        raise UserError(
            f"data.name={data.name}: no such dataset{hint} (known: {', '.join(DATASETS)})"
        )
    training = Training(data, settings, components, dict(raw))
    facts = training.dataset
    classifies = getattr(components["head"].target, "classifies", False)
    if settings.class_weights != "none" and not classifies:
        raise UserError(
            f"class_weights={settings.class_weights}: weighs a classification loss, which"
            f" head={components['head'].name} has not"
        )
    _check_watched(settings, components, data, classifies)
    learns = getattr(components["head"].target, "learns_value", False)
    if learns != (data.target is not None):
        head, known = components["head"].name, " or ".join(facts.targets)
        if learns:
            needs = f"data.target={known}" if known else "a dataset with such a number"
            raise UserError(f"head={head}: learns a number of each image: it needs {needs}")
        raise UserError(f"data.target={data.target}: head={head} learns classes alone")
    if why := data.misfit(facts):
        raise UserError(f"data.name={data.name}: {why}")
    size = data.input_size(facts)
    if settings.new_classes != "random" and settings.initial is None:
        raise UserError(
            "new_classes=imprinted: imprints into a trained network, initial names which"
        )
    if training.split_is_known and bool(training.split().few) != (data.shots is not None):
        name = components["split"].name
        if data.shots is None:
            raise UserError(f"split={name}: has classes of few images, data.shots says how many")
        raise UserError(
            f"data.shots: split={name} has no classes of few images (split.trained=all)"
        )
    expected = getattr(components["backbone"].target, "expected_inputs", lambda **_: "")
    if (inputs := expected(**components["backbone"].params)) not in ("", data.normalize):
        raise UserError(
            f"data.normalize={data.normalize}: the weights of backbone"
            f" {components['backbone'].params['architecture']} expect data.normalize={inputs}"
        )
    if why := _misfit(json.dumps(raw["backbone"], sort_keys=True), facts.channels, size):
        raise UserError(f"backbone ({data.name}, {size} pixels): {why}")
    return training


def _check_watched(
    settings: Settings, components: Mapping[str, Component], data: Data, classifies: bool
) -> None:
    """Whether there is what the choice of an epoch, or of the learning rate, looks at."""
    watch = components["schedule"].params.get("watch")
    held = {
        f"select={settings.select}": settings.select == "lowest_validation_loss",
        f"schedule.watch={watch}": watch == "validation_accuracy",
    }
    tested = {
        f"select={settings.select}": settings.select == "highest_test_accuracy",
        f"schedule.watch={watch}": watch == "test_accuracy",
    }
    for what, asked in held.items():
        if asked and not (classifies and data.validation):
            raise UserError(
                f"{what}: needs held-out images (data.validation.share=0.1) and a head that"
                " classifies"
            )
    for what, asked in tested.items():
        if asked and not classifies:
            raise UserError(
                f"{what}: needs a head that classifies, head={components['head'].name} does not"
            )


@cache
def _misfit(backbone: str, channels: int, size: int) -> str:
    """Why a backbone cannot be built for such images; built without memory, to find out."""
    import torch
    from torch.overrides import TorchFunctionMode

    class NoDraws(TorchFunctionMode):
        """Torch imports its compiler, for seconds, to draw numbers for tensors without memory."""

        def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if func in (torch.Tensor.normal_, torch.Tensor.uniform_):
                return args[0]
            return func(*args, **(kwargs or {}))

    try:
        with torch.device("meta"), NoDraws():
            check(json.loads(backbone), "backbone").build(channels, size)
    except ValueError as error:
        return str(error)
    return ""


def digest(identity: Mapping[str, Any]) -> str:
    """The 12-character id of an identity: the hash of its canonical JSON."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _without_defaults(model: pydantic.BaseModel) -> dict[str, Any]:
    """Values that differ from their neutral default (see components.py)."""
    return model.model_dump(exclude_defaults=True)
