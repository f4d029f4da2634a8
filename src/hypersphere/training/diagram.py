"""How class vectors of new classes are inferred, as a drawing of the objects that do it."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from hypersphere.config import compose, split_config
from hypersphere.seeds import generator
from hypersphere.training.module import Network


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
    split, facts = training.split(), training.dataset
    network = Network(training).eval()
    head, size = network.head, training.data.input_size(facts)
    draws = generator("diagram", training.settings.seed)

    def images(number: int) -> torch.Tensor:
        shape = (number, facts.channels, size, size)
        return torch.from_numpy(draws.integers(0, 256, shape, np.uint8))

    with torch.no_grad():
        labels = torch.tensor(split.unseen).repeat_interleave(shots)
        shown, queries = images(len(labels)), images(4)
        embeddings, asked = network(shown), network(queries)
        seen, unseen = torch.tensor(split.seen), torch.tensor(split.unseen)
        trained = head.trained(embeddings, labels, seen, True)
        inferred = head.infer(embeddings, labels, unseen, True)
        joint = head.scores(asked, torch.cat([trained, inferred]))
        changed = (joint[:, : len(seen)] - head.logits(asked)).abs().max().item()
    boxes = _Boxes()
    query = boxes.add("image", _shape(queries[:1]), 0, 1, "data")
    few = boxes.add(f"{shots} labelled images\nof each new class", _shape(shown), 0, 0, "data")
    net = boxes.add(f"{type(network.backbone).__name__}, frozen", f"to {network.backbone.dim}"
                    " dimensions", 1, 1, "frozen")  # fmt: skip
    same = boxes.add("the same network", f"{_shape(embeddings)} embeddings", 1, 0, "frozen")
    unit = boxes.add("unit length", f"{_shape(asked[:1])} times S = {head.scale:g}", 2, 1, "frozen")
    mean = boxes.add("mean unit embedding\nof each new class", "and back to unit length",
                     2, 0, "new")  # fmt: skip
    old = boxes.add("trained class vectors", f"{_shape(trained)}, by cosine", 3, 1, "frozen")
    new = boxes.add("new class vectors", f"{_shape(inferred)}, by cosine", 3, 0, "new")
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


def _shape(tensor: torch.Tensor) -> str:
    return " x ".join(map(str, tensor.shape))
