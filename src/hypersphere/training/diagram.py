"""Schematics worked out on the objects they show: a network, and how class vectors of new classes
are inferred."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import nn

from hypersphere.config import Training, compose, split_config
from hypersphere.seeds import generator
from hypersphere.training.network import Network


def weight_inference(
    *, overrides: list[str], shots: Annotated[int, Field(ge=1)]
) -> dict[str, float | dict[str, np.ndarray]]:
    """Build the network that `overrides` configure, infer the vectors of its unseen classes from
    `shots` random images each (arXiv 2102.03243, eq. 4), and say what happened.

    Numbers: `length`, of an inferred vector (mean); `old_logits`, the largest change of the trained
    classes' logits by the new ones beside them. Artifact `diagram`: boxes with the shapes of those
    very tensors (labels, details, x, y, roles) and arrows between them (sources, targets, notes).
    """
    training, _ = split_config(compose(overrides))
    split = training.split()
    network = Network(training).eval()
    head = network.head
    with torch.no_grad():
        labels = torch.tensor(split.unseen).repeat_interleave(shots)
        shown, queries = _images(training, len(labels), 4)
        embeddings, asked = network(shown), network(queries)
        seen, unseen = torch.tensor(split.seen), torch.tensor(split.unseen)
        trained = head.trained(embeddings, labels, seen, True)
        inferred = head.infer(embeddings, labels, unseen, True)
        joint = head.scores(asked, torch.cat([trained, inferred]))
        changed = (joint[:, : len(seen)] - head.logits(asked)).abs().max().item()
    boxes = _Boxes()
    query = boxes.add("image", _shape(queries[:1].shape), 0, 1, "data")
    few = boxes.add(
        f"{shots} labelled images\nof each new class", _shape(shown.shape), 0, 0, "data"
    )
    net = boxes.add(f"{type(network.backbone).__name__}, frozen", f"to {network.backbone.dim}"
                    " dimensions", 1, 1, "frozen")  # fmt: skip
    same = boxes.add("the same network", f"{_shape(embeddings.shape)} embeddings", 1, 0, "frozen")
    unit = boxes.add(
        "unit length", f"{_shape(asked[:1].shape)} times S = {head.scale:g}", 2, 1, "frozen"
    )
    mean = boxes.add("mean unit embedding\nof each new class", "and back to unit length",
                     2, 0, "new")  # fmt: skip
    old = boxes.add("trained class vectors", f"{_shape(trained.shape)}, by cosine", 3, 1, "frozen")
    new = boxes.add("new class vectors", f"{_shape(inferred.shape)}, by cosine", 3, 0, "new")
    out = boxes.add(f"{joint.shape[1]} classes", f"{len(seen)} seen, {len(unseen)} new", 4, 0.5,
                    "data")  # fmt: skip
    for source, target, note in (
        (query, net, ""), (net, unit, ""), (unit, old, ""), (unit, new, ""), (old, out, ""),
        (new, out, ""), (few, same, ""), (same, mean, ""), (mean, new, "eq. 4"),
    ):  # fmt: skip
        boxes.join(source, target, note)
    return {
        "length": inferred.norm(dim=1).mean().item(),
        "old_logits": changed,
        "diagram": boxes.arrays(),
    }


def imprinting(
    *, overrides: list[str], shots: Annotated[int, Field(ge=1)]
) -> dict[str, float | dict[str, np.ndarray]]:
    """Build the network that `overrides` configure, imprint its unseen classes from `shots` random
    images each (Qi et al. 2018, figure 1), and say what happened.

    Numbers: `length`, of an imprinted class vector (mean); `old_logits`, the largest change of the
    trained classes' logits by it; `classes`, of the extended classifier. Artifact `diagram` as of
    `weight_inference`: the training of the base classifier above, the imprinting below.
    """
    training, _ = split_config(compose(overrides))
    split = training.split()
    network = Network(training).eval()
    head, base = network.head, len(split.seen)
    labels = base + torch.arange(len(split.unseen)).repeat_interleave(shots)
    with torch.no_grad():
        shown, queries = _images(training, len(labels), 4)
        embeddings, asked = network(shown), network(queries)
        before = head.logits(asked)
        trained = head.class_vectors.shape
        head.imprint(embeddings, labels)
        after = head.logits(asked)
    extractor = getattr(network.backbone, "architecture", type(network.backbone).__name__)
    boxes = _Boxes()
    image = boxes.add(
        "training images\nof base classes", _shape(queries[:1].shape[1:]), 0, 1, "data"
    )
    net = boxes.add(f"embedding extractor\n{extractor}",
                    f"to {network.backbone.dim} dimensions", 1, 1, "frozen")  # fmt: skip
    unit = boxes.add("L2 normalisation", "unit length", 2, 1, "frozen")
    old = boxes.add(
        "base classifier\nunit weights", f"{_shape(trained)}, s times cosine", 3, 1, "frozen"
    )
    loss = boxes.add("softmax,\ncross-entropy", f"{before.shape[1]} base classes", 4, 1, "data")
    few = boxes.add("low-shot examples\nof new classes",
                    f"{shots} of each of {len(split.unseen)}", 0, 0, "data")  # fmt: skip
    same = boxes.add("the same extractor", f"{_shape(embeddings.shape)} embeddings", 1, 0, "frozen")
    mean = boxes.add("L2 normalisation,\nmean of each class", "back to unit length", 2, 0, "frozen")
    new = boxes.add("imprinted beside\ntrained weights",
                    f"{_shape(head.class_vectors.shape)}, s times cosine", 3, 0, "new")  # fmt: skip
    out = boxes.add("extended classifier", f"{after.shape[1]} classes", 4, 0, "data")
    for source, target, note in (
        (image, net, ""), (net, unit, ""), (unit, old, ""), (old, loss, ""), (few, same, ""),
        (same, mean, ""), (mean, new, ""), (old, new, ""), (new, out, ""),
    ):  # fmt: skip
        boxes.join(source, target, note)
    return {
        "length": head.class_vectors[base:].norm(dim=1).mean().item(),
        "old_logits": (after[:, :base] - before).abs().max().item(),
        "classes": float(after.shape[1]),
        "diagram": boxes.arrays(),
    }


def network(*, overrides: list[str]) -> dict[str, float | dict[str, np.ndarray]]:
    """Build the network that `overrides` configure, pass an image through it, and say which layers
    it met (arXiv 2408.01767, figure 1).

    Numbers: `dim`, of the embedded space; `extractor` and `classifier`, trained parameters up to it
    and behind it. Artifact `diagram` as of `weight_inference`: a box per layer with the shape that
    left it, features above, classification below.
    """
    training, _ = split_config(compose(overrides))
    facts = training.dataset
    net = Network(training).eval()
    size = training.data.input_size(facts)
    met: list[tuple[nn.Module, torch.Size]] = []
    for module in net.backbone.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda m, _, out: met.append((m, out.shape)))
    with torch.no_grad():
        embedding = net(torch.zeros(1, facts.channels, size, size, dtype=torch.uint8))
    head = net.head
    layers: list[list[str]] = []  # label and shape
    for module, shape in met:
        if name := _layer(module):
            layers.append([name, _shape(shape[1:])])
        elif isinstance(module, nn.MaxPool2d):
            layers[-1] = [f"{layers[-1][0]}\nmax-pooling {module.kernel_size}", _shape(shape[1:])]
        elif isinstance(module, nn.ReLU):
            layers[-1][0] += ", ReLU"
    boxes = _Boxes()
    convolutions = [layer for layer in layers if layer[0].startswith("conv")]
    image = (facts.channels, size, size)
    last = boxes.add(training.data.name, _shape(image), 0, 1, "data")
    for x, (label, detail) in enumerate(convolutions, 1):
        last = _next(boxes, last, label, detail, x, 1, "frozen")
    # below, from right to left: the path turns back under itself
    x = len(convolutions)
    for label, detail in layers[len(convolutions) : -1]:
        last = _next(boxes, last, label, detail, x, 0, "frozen")
        x -= 1
    label = f"{layers[-1][0]}\nembedded space"
    last = _next(boxes, last, label, f"{embedding.shape[1]} dimensions", x, 0, "space")
    label = f"{type(head).__name__}\nclassifier"
    last = _next(boxes, last, label, f"{head.num_classes} class scores", x - 1, 0, "frozen")
    return {
        "dim": float(embedding.shape[1]),
        "extractor": float(_parameters(net.backbone)),
        "classifier": float(_parameters(head)),
        "diagram": boxes.arrays(),
    }


def classification_layer(
    *, overrides: list[str], classes: Annotated[int, Field(ge=2)]
) -> dict[str, float | dict[str, np.ndarray]]:
    """Build the network that `overrides` configure with its class vectors learned and with them
    fixed, and say what differs (arXiv 2011.08704, figure 1).

    Numbers: `encoder`, trained parameters up to the features; `learned` and `fixed`, of the
    classification layer in either case. Artifact `diagram` as of `weight_inference`: an image, its
    features, the first `classes` class vectors, and their scores.
    """
    networks = {}
    for name, learned in (("learned", "true"), ("fixed", "false")):
        training, _ = split_config(compose([*overrides, f"head.learned={learned}"]))
        networks[name] = Network(training).eval()
    net, facts = networks["fixed"], training.dataset
    size = training.data.input_size(facts)
    with torch.no_grad():
        shape = (1, facts.channels, size, size)
        features = net(torch.zeros(shape, dtype=torch.uint8))
        scores = net.head.logits(features)
    boxes = _Boxes()
    middle = (classes - 1) / 2
    image = boxes.add("image", _shape(shape[1:]), 0, middle, "data")
    encoder = boxes.add(f"image encoder\n{type(net.backbone).__name__}", "learned", 1, middle,
                        "frozen")  # fmt: skip
    z = boxes.add("image representation\nvector f(x)", f"{features.shape[1]} dimensions", 2, middle,
                  "space")  # fmt: skip
    out = boxes.add("softmax,\ncross-entropy", f"{scores.shape[1]} classes", 5, middle, "data")
    boxes.join(image, encoder, "")
    boxes.join(encoder, z, "")
    for k in range(classes):
        vector = boxes.add(f"class vector w{k + 1}", "learned, or drawn\nat random and fixed", 3,
                           classes - 1 - k, "new")  # fmt: skip
        score = boxes.add(f"score of class {k + 1}", "dot product or cosine", 4, classes - 1 - k,
                          "frozen")  # fmt: skip
        boxes.join(z, vector, "")
        boxes.join(vector, score, "")
        boxes.join(score, out, "")
    return {
        "encoder": float(_parameters(net.backbone)),
        **{name: float(_parameters(each.head)) for name, each in networks.items()},
        "diagram": boxes.arrays(),
    }


def _images(training: Training, *numbers: int) -> list[torch.Tensor]:
    """Random images of the size that a network sees, so many each time."""
    size, channels = training.data.input_size(training.dataset), training.dataset.channels
    draws = generator("diagram", training.settings.seed)
    return [
        torch.from_numpy(draws.integers(0, 256, (number, channels, size, size), np.uint8))
        for number in numbers
    ]


def _layer(module: nn.Module) -> str:
    """What a box says of a layer with weights, "" of any other."""
    if isinstance(module, nn.Conv2d):
        return f"convolution {module.out_channels}\n{_shape(module.kernel_size)}"
    if isinstance(module, nn.Linear):
        return f"fully connected\n{module.out_features}"
    return ""


def _next(
    boxes: _Boxes, before: int, label: str, detail: str, x: float, y: float, role: str
) -> int:
    box = boxes.add(label, detail, x, y, role)
    boxes.join(before, box, "")
    return box


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


class _Boxes:
    """Boxes and arrows as arrays, in the order they were added."""

    def __init__(self) -> None:
        self.boxes: list[tuple[str, str, float, float, str]] = []
        self.arrows: list[tuple[int, int, str]] = []

    def add(self, label: str, detail: str, x: float, y: float, role: str) -> int:
        self.boxes.append((label, detail, x, y, role))
        return len(self.boxes) - 1

    def join(self, source: int, target: int, note: str) -> None:
        self.arrows.append((source, target, note))

    def arrays(self) -> dict[str, Any]:
        names = ("labels", "details", "x", "y", "roles"), ("sources", "targets", "notes")
        columns = [*zip(*self.boxes, strict=True), *zip(*self.arrows, strict=True)]
        return {
            name: np.array(column) for name, column in zip(sum(names, ()), columns, strict=True)
        }


def _shape(sizes: Iterable[int]) -> str:
    return " x ".join(map(str, sizes))
