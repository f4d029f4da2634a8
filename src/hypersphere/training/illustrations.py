"""What a head makes of its output space, and where its loss sends outputs: worked out on the head
itself, without a network or images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from hypersphere.config.components import check
from hypersphere.heads import NormalizedSoftmax, Poles, Prototypes, RandomVectors
from hypersphere.losses import cosine
from hypersphere.seeds import generator

Found = dict[str, float | dict[str, np.ndarray]]
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]


def discretized(*, head: dict[str, Any], num_classes: Count, outputs: Count) -> Found:
    """The cells of the sphere around prototypes (Mettes et al. 2019, figure 1a): `outputs` random
    ones, and the class that `head` predicts of each (eq. 3).

    Numbers: `least` and `most`, shares of a class in per cent; `angle`, between the closest
    prototypes in degrees. Artifact `scatter`: embeddings (outputs, 3), labels, and the prototypes
    as targets. Raises ValueError for a head without fixed prototypes.
    """
    made = _prototypes(head, num_classes)
    z = _outputs(outputs)
    labels = made.logits(z).argmax(1)
    shares = 100 * labels.bincount(minlength=num_classes) / outputs
    return {
        "least": shares.min().item(),
        "most": shares.max().item(),
        "angle": _closest(made.class_vectors),
        "scatter": _scatter(z, labels, made.class_vectors),
    }


def interpolated(*, head: dict[str, Any], outputs: Count) -> Found:
    """The way from one pole to the other (Mettes et al. 2019, figure 1b): `outputs` random ones,
    and the number that `head` predicts of each.

    Numbers: `least` and `most`, of the predictions, in the unit of the head's bounds; `angle`,
    between the poles in degrees. Artifact `scatter` as of `discretized`, with the predictions as
    values and the poles as targets. Raises ValueError for a head without poles.
    """
    made = _poles(head)
    z = _outputs(outputs)
    predicted = made.predict(z)
    return {
        "least": predicted.min().item(),
        "most": predicted.max().item(),
        "angle": _closest(made.poles),
        "scatter": _scatter(z, torch.zeros(outputs), made.poles, predicted),
    }


def to_prototypes(
    *,
    head: dict[str, Any],
    num_classes: Count,
    outputs: Count,
    steps: Count,
    lr: Rate,
) -> Found:
    """Random outputs, one of each class in turn, under gradient descent on the loss of `head`
    (Mettes et al. 2019, figure 2). The outputs themselves move: no network stands between.

    Numbers: `start` and `end`, the largest angle to the own prototype in degrees before and after;
    `closest`, the largest difference between autograd's gradient at the start and eq. 2;
    `absolute`, the same where the loss has the absolute value of the cosine that eq. 1 prints.
    Artifact `scatter`: the paths as embeddings, the classes as labels, the angle to the own
    prototype (degrees) as values. Raises ValueError for a head without fixed prototypes.
    """
    made = _prototypes(head, num_classes)
    labels = torch.arange(outputs) % num_classes
    own = made.class_vectors[labels]
    path = _descend(_outputs(outputs), lambda z: made.loss(z, labels), steps, lr)
    angles = F.cosine_similarity(path, own, dim=-1).clamp(-1, 1).acos().rad2deg()
    z = path[0]
    printed = gradient_of_squared_cosine(z, own)
    absolute = _gradient(lambda x: (1 - F.cosine_similarity(x, own).abs()).square().sum(), z)
    return {
        "start": angles[0].max().item(),
        "end": angles[-1].max().item(),
        "closest": (_gradient(lambda x: made.loss(x, labels), z) - printed).abs().max().item(),
        "absolute": (absolute - printed).abs().max().item(),
        "scatter": _scatter(
            path.flatten(0, 1), labels.repeat(len(path)), made.class_vectors, angles.flatten()
        ),
    }


def to_number(
    *, head: dict[str, Any], number: float, outputs: Count, steps: Count, lr: Rate
) -> Found:
    """Random outputs under gradient descent on the loss of `head` towards the same `number` (Mettes
    et al. 2019, figure 3): all end on one circle, each where its way meets it.

    Numbers: `start` and `end`, the largest distance of the prediction from `number`, in its unit,
    before and after; `turn`, the largest turn about the axis of the poles in degrees. Artifact
    `scatter`: the paths as embeddings, the predictions as values, the poles as targets. Raises
    ValueError for a head without poles.
    """
    made = _poles(head)
    labels, numbers = (
        torch.zeros(outputs, dtype=torch.long),
        torch.full((outputs,), number).double(),
    )
    path = _descend(_outputs(outputs), lambda z: made.loss(z, labels, values=numbers), steps, lr)
    predicted = torch.stack([made.predict(z) for z in path])
    # beside the poles: what is left of an output without its part along their axis
    beside = path - (path @ made.poles[0])[..., None] * made.poles[0]
    turns = F.cosine_similarity(beside[0], beside[-1]).clamp(-1, 1).acos().rad2deg()
    return {
        "start": (predicted[0] - number).abs().max().item(),
        "end": (predicted[-1] - number).abs().max().item(),
        "turn": turns.max().item(),
        "scatter": _scatter(
            path.flatten(0, 1), labels.repeat(len(path)), made.poles, predicted.flatten()
        ),
    }


def decision_regions(
    *,
    head: dict[str, Any],
    angles: list[float],
    example: float,
    imprinted: bool,
    outputs: Count,
    steps: Count,
    lr: Rate,
) -> Found:
    """The regions of a classifier of directions in the plane, before and after a new class is
    imprinted from one example (Qi et al. 2018, figure 2).

    `head` is trained by gradient descent on 50 embeddings of each class, whose directions spread
    with 10 degrees around `angles`; the example points to `example` (all in degrees). `imprinted`:
    whether the example is imprinted.

    Numbers: `new`, share of the points that fall to the new class, in per cent; `kept`, share of
    the other points that are classified as before, in per cent; `angle`, between the example and
    the nearest class vector in degrees. Artifact `scatter`: `outputs` random points of the unit
    disc, the class predicted of each as labels, the class vectors as targets. Raises ValueError for
    a head that cannot be imprinted.
    """
    made = check(head, "head").build(2, len(angles))
    if why := made.not_imprintable:
        raise ValueError(f"{type(made).__name__} cannot be imprinted: it {why}")
    draws = generator("decision regions", len(angles))
    labels = torch.arange(len(angles)).repeat_interleave(50)
    spread = torch.from_numpy(draws.normal(0, 10, len(labels)))
    z = _directions(torch.tensor(angles, dtype=torch.double)[labels] + spread).float()
    # the random start belongs to the picture, not to the global state
    start = torch.from_numpy(draws.normal(size=(len(angles), 2))).float()
    with torch.enable_grad():
        if learned := list(made.parameters()):
            made.class_vectors.data = start
            optimizer = torch.optim.SGD(learned, lr=lr)
            for _ in range(steps):
                optimizer.zero_grad()
                made.loss(z, labels).backward()
                optimizer.step()
    points = torch.from_numpy(draws.uniform(-1, 1, (4 * outputs, 2))).float()
    points = points[points.norm(dim=1) <= 1][:outputs]
    one = _directions(torch.tensor([example], dtype=torch.double)).float()
    with torch.no_grad():
        before = made.logits(points).argmax(1)
        if imprinted:
            made.imprint(one, torch.tensor([len(angles)]))
        after = made.logits(points).argmax(1)
        vectors = F.normalize(made.class_vectors, dim=1)
    old = after < len(angles)
    return {
        "new": 100 * (~old).double().mean().item(),
        "kept": 100 * (before == after)[old].double().mean().item(),
        "angle": _closest_to(one, vectors),
        "scatter": _scatter(points, after, vectors),
    }


def _closest_to(one: Tensor, points: Tensor) -> float:
    """Degrees between a point (1, dim) and the nearest of points (n, dim)."""
    return cosine(one.double(), points.double()).max().clamp(-1, 1).acos().rad2deg().item()


def _directions(degrees: Tensor) -> Tensor:
    """Unit vectors (n, 2) of angles (n,)."""
    return torch.stack([degrees.deg2rad().cos(), degrees.deg2rad().sin()], 1)


def gradient_of_squared_cosine(embeddings: Tensor, prototypes: Tensor) -> Tensor:
    """Eq. 2 of Mettes et al. 2019 as printed, (n, dim): the gradient of (1 - cos(z, p))^2 with
    respect to the embeddings z (n, dim), for a prototype p (n, dim) each."""
    cos = F.cosine_similarity(embeddings, prototypes)[:, None]
    length, of_prototype = (x.norm(dim=1, keepdim=True) for x in (embeddings, prototypes))
    return 2 * (1 - cos) * (cos * embeddings / length**2 - prototypes / (length * of_prototype))


def _descend(z: Tensor, loss: Callable[[Tensor], Tensor], steps: int, lr: float) -> Tensor:
    """The way (steps + 1, n, dim) of outputs (n, dim). The loss must sum over them: then none
    feels the others."""
    path = [z]
    for _ in range(steps):
        path.append(path[-1] - lr * _gradient(loss, path[-1]))
    return torch.stack(path)


def _gradient(loss: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    z = z.detach().requires_grad_()
    return torch.autograd.grad(loss(z), z)[0]


def _outputs(number: int) -> Tensor:
    """Random directions in three dimensions, (number, 3), of unit length."""
    draw = generator("illustration", number).normal(size=(number, 3))
    return F.normalize(torch.from_numpy(draw), dim=1)


def _prototypes(head: dict[str, Any], num_classes: int) -> Prototypes:
    made = check(head, "head").build(3, num_classes).double()  # small differences count
    if not isinstance(made, Prototypes):
        raise ValueError(f"{type(made).__name__} has no fixed prototypes to show")
    return made


def _poles(head: dict[str, Any]) -> Poles:
    made = check(head, "head").build(3, 2).double()  # of no classes, whatever their number
    if not isinstance(made, Poles):
        raise ValueError(f"{type(made).__name__} has no poles to show")
    return made


def _closest(points: Tensor) -> float:
    """Degrees between the closest two of points (n, dim)."""
    cos = cosine(points, points).fill_diagonal_(-1)
    return cos.max().clamp(-1, 1).acos().rad2deg().item()


def _scatter(
    z: Tensor, labels: Tensor, targets: Tensor, values: Tensor | None = None
) -> dict[str, np.ndarray]:
    arrays = {
        "embeddings": z.numpy().astype(np.float16),
        "labels": labels.numpy().astype(np.int8),
        "targets": targets.float().numpy(),
    }
    return arrays if values is None else {**arrays, "values": values.numpy().astype(np.float32)}


def highest_probability(*, head: dict[str, Any], num_classes: Count) -> Found:
    """`probability` that `head` gives an image at best: its features along the vector of its class,
    all other class vectors opposite (arXiv 2011.08704, eqs. 4 and 5; Qi et al. 2018, section 4.1).
    Raises ValueError for a head without cosines."""
    made = check(head, "head").build(2, num_classes)
    if not isinstance(made, RandomVectors | NormalizedSoftmax):
        raise ValueError("the bound is that of cosines with class vectors of unit length")
    with torch.no_grad():
        made.class_vectors.copy_(torch.tensor([-1.0, 0.0]).expand(num_classes, 2))
        made.class_vectors[0] = torch.tensor([1.0, 0.0])
        logits = made.logits(torch.tensor([[1.0, 0.0]])).double()
    return {"probability": logits.softmax(1)[0, 0].item()}
