"""Models that were handed on: what `hypersphere store export` writes, read back anywhere.

A folder holds the weights (`model.safetensors`), what builds the network (`config.json`) and a
model card (`README.md`). Reading it needs neither the data nor the run store, and executes nothing
of the folder: no pickle, and no import of a module that is not of this package. A model that was
imprinted or trained further since is kept by `ExportedModel.save`.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from hypersphere.config.components import Component, check
from hypersphere.data.transforms import ToInput
from hypersphere.errors import UserError
from hypersphere.files import write_atomically, write_text
from hypersphere.heads import Head
from hypersphere.precision import autocast

FORMAT = 1  # of config.json; raised when a reader of older folders would misread a newer one
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"


class ExportedModel(nn.Module):
    """A trained network with its head: images in, logits out.

    head: owns the class vectors (`hypersphere.heads`); `imprint` adds new classes.
    backbone: pixels as floats -> embeddings. labels: the label that each logit stands for, as the
    training data number their classes. classes: the same as names. config: `config.json` as it is.
    Parameters keep their gradients, so that it can be trained further like any `nn.Module`.
    """

    def __init__(
        self, to_input: ToInput, backbone: nn.Module, head: Head, config: dict[str, Any]
    ) -> None:
        super().__init__()
        self.to_input, self.backbone, self.head, self.config = to_input, backbone, head, config
        self.labels: tuple[int, ...] = tuple(config["labels"])
        self.classes: tuple[str, ...] = tuple(config["classes"])
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """images: (n, channels, size, size) uint8 -> logits (n, classes) float32.

        Raises ValueError for images of another shape or type, and for a head that learns distances
        or a number alone and so has no logits (use `embed`, and `head.predict` of the latter).
        """
        if not self.head.classifies:
            raise ValueError(
                f"{type(self.head).__name__} has no logits: use embed(images), and compare"
                " embeddings with each other"
            )
        embeddings = self.embed(images)
        with torch.autocast(embeddings.device.type, enabled=False):
            return self.head.logits(embeddings)

    def embed(self, images: Tensor) -> Tensor:
        """images: (n, channels, size, size) uint8 -> embeddings (n, dim) float32, of any length.

        Pixels are scaled and normalised here, as in training, and the precision is the training's.
        Raises ValueError for images of another shape or type.
        """
        expected = self.config["input"]
        channels, size = expected["channels"], expected["size"]
        fits = images.ndim == 4 and images.shape[1] == channels
        fits = fits and (expected["enlarged_to"] or tuple(images.shape[2:]) == (size, size))
        if not fits or images.dtype != torch.uint8:
            raise ValueError(
                f"expects images (n, {channels}, {size}, {size}) uint8, got"
                f" {tuple(images.shape)} {str(images.dtype).removeprefix('torch.')}"
            )
        with autocast(images.device.type, self.config["precision"]):
            return self.backbone(self.to_input(images)).float()

    def imprint(self, images: Tensor, names: Sequence[str]) -> None:
        """Add classes by a few images of each (`Head.imprint`), in place.

        images: (n, channels, size, size) uint8; names: (n,), of their classes. New names become
        classes in the order in which they come, at the end of `classes` and, numbered on, of
        `labels`; those of imprinted classes add examples. Raises ValueError for images of another
        shape or type, a head that cannot be imprinted, and the name of a trained class.
        """
        if len(names) != len(images):
            raise ValueError(f"{len(names)} names for {len(images)} images")
        classes = [*self.classes, *(n for n in dict.fromkeys(names) if n not in self.classes)]
        with torch.no_grad():
            self.head.imprint(self.embed(images), torch.tensor([classes.index(n) for n in names]))
        first, new = max(self.labels, default=-1) + 1, len(classes) - len(self.classes)
        self.labels = (*self.labels, *range(first, first + new))
        self.classes = tuple(classes)

    def save(self, folder: str | Path) -> Path:
        """Keep the model as it is now, with the classes that were imprinted, in a new folder that
        `load_model` reads; returns it.

        Its `config.json` still names the run that the model comes from, and that run's numbers.
        Raises UserError for a folder that holds something, or cannot be written.
        """
        folder = Path(folder).expanduser()
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{folder}: is there already; name a new folder, or remove it")
        weights = save({name: each.contiguous() for name, each in self.state_dict().items()})
        config = self.config | {
            "sha256": hashlib.sha256(weights).hexdigest(),
            "labels": list(self.labels),
            "classes": list(self.classes),
        }
        imprinted = ", ".join(self.classes[config["num_classes"] :]) or "none"
        card = f"# Run {config['run_id']}, changed since\n\nClasses imprinted: {imprinted}.\n"
        write_atomically(folder / WEIGHTS, lambda path: path.write_bytes(weights))
        write_text(folder / CARD, card)
        write_text(folder / CONFIG, json.dumps(config, indent=1) + "\n")
        return folder


def load_model(folder: str | Path) -> ExportedModel:
    """The model in a folder that `hypersphere store export` wrote, on the CPU, in evaluation mode.

    Its logits are those of the trained run, bit for bit on the same versions, processor and number
    of images at once. Raises UserError for a folder without a model, weights that are not those
    that `config.json` names, a model of a newer hypersphere or one whose component has been changed
    since, and a component of another package that is not imported yet.
    """
    folder = Path(folder).expanduser()
    config = _config(folder / CONFIG)
    weights = _weights(folder / WEIGHTS, config["sha256"])
    backbone, head = (_component(config, name) for name in ("backbone", "head"))
    # Whatever surrounds the call: every draw is overwritten, and parameters can learn.
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        body = backbone.build(config["input"]["channels"], config["input"]["network_size"])
        params = head.target.without_placing(head.params)
        top = head.target(body.dim, config["num_classes"], **params)
    expected = config["input"]
    to_input = ToInput(expected["enlarged_to"], _floats(expected["mean"]), _floats(expected["std"]))
    model = ExportedModel(to_input, body, top, config)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{folder}: its weights do not fit its {CONFIG} ({error})") from None
    return model.eval()


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path.parent}: holds no exported model (no {CONFIG}); `hypersphere store export RUN`"
            " makes such a folder"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); copy or export it again") from None
    if not isinstance(config, dict) or not isinstance(config.get("format"), int):
        raise UserError(f"{path}: was not written by `hypersphere store export`")
    if config["format"] > FORMAT:
        raise UserError(
            f"{path}: written by a newer hypersphere (format {config['format']} > {FORMAT});"
            " upgrade it"
        )
    return config


def _weights(path: Path, sha256: str) -> dict[str, Tensor]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise UserError(
            f"{path}: its sha256 is {found[:12]}..., not the {sha256[:12]}... of its {CONFIG}:"
            " damaged or exchanged; copy or export it again"
        )
    return load(content)


def _component(config: dict[str, Any], name: str) -> Component:
    node = config["training"][name]
    module = str(node["_target_"]).rpartition(".")[0]
    # A folder from elsewhere must not choose what is imported.
    if module.partition(".")[0] != "hypersphere" and module not in sys.modules:
        raise UserError(
            f"its {name} is {node['_target_']}, which is no part of hypersphere: `import {module}`"
            " before load_model, if you trust it"
        )
    component = check(node, name)
    kind = Head if name == "head" else nn.Module
    if not (inspect.isclass(component.target) and issubclass(component.target, kind)):
        raise UserError(f"{name}._target_={node['_target_']}: is no {kind.__name__}")
    stated, here = config["revisions"][name], component.identity()["revision"]
    if stated != here:
        raise UserError(
            f"its {name} {component.name} has revision {stated}, this version's has {here}, which"
            f" computes something else: use commit {config['commit']}, or train and export it again"
        )
    return component


def _floats(values: list[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(values)
