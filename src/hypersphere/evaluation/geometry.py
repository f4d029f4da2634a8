"""The shape of an embedding in numbers: what pictures of embedded spaces show
(arXiv 2408.01767, which prints none)."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from hypersphere import losses
from hypersphere.data.splits import Split
from hypersphere.evaluation.embeddings import Embeddings, compact
from hypersphere.evaluation.novel import Findings
from hypersphere.heads import Head, class_means
from hypersphere.seeds import generator


def geometry(
    head: Head,
    embeddings: Embeddings,
    split: Split,
    seed: int,
    *,
    points: Annotated[int, Field(ge=1)],
) -> Findings:
    """Measures of how the test images z of the trained classes lie, Euclidean as they are:

    * `accuracy/nearest_mean`: the nearest mean embedding of a class's training images is its own;
      `accuracy/own`: by the head's own logits (of a head without, by its own class means);
    * `scatter/within_over_between`: mean squared distance to the class mean over the mean squared
      distance of class means to their centre;
    * `silhouette` (Rousseeuw 1987), of `points` random images;
    * `angle/within`: root mean square angle between z and the mean direction of its class, in
      degrees, mean over classes; `angle/gaps`: standard deviation over classes of the angle from
      one class mean to the next around the origin (two dimensions) or to the nearest other one
      (more), in degrees; 0 is perfectly regular;
    * `norms/spread`: standard deviation over classes of the length of class means, divided by its
      mean;
    * `range/lowest`, `range/highest`: of all coordinates;
    * where the head has targets, `target/points`: mean distance of z to its target, and
      `target/means`: largest distance of a class mean to its target, both in units of half the
      smallest distance between targets, so that below 1 no other target is nearer.

    A network that sends every image to one point has no ratios (nan). Angles are seen from the
    origin. Standard deviations divide by the number of classes. For
    embeddings in two or three dimensions the artifact `scatter` holds the `points` random images:
    `embeddings` (n, dim) float16, `labels` (n,), the trained `class_vectors` (classes, dim), and
    `targets` where the head has some.
    """
    # Here and not above: scikit-learn takes a second to load, and who plans runs needs none of it.
    from sklearn.metrics import silhouette_score

    seen = torch.tensor(split.seen)
    tested = torch.isin(embeddings.test_labels, seen).nonzero().flatten()
    z = embeddings.test[tested].double()
    labels = torch.searchsorted(seen, embeddings.test_labels[tested])
    train, train_labels = embeddings.train, embeddings.train_labels
    prototypes = class_means(train, train_labels, seen).double()
    trained = head.trained(train, train_labels, seen, True)
    own = head.logits(z.float()) if head.classifies else head.scores(z.float(), trained)
    means = class_means(z, labels, torch.arange(len(seen)))
    some = torch.from_numpy(generator("scatter", seed).permutation(len(z))[:points])
    found: Findings = {
        "accuracy/nearest_mean": _share(losses.distances(z, prototypes, True).argmin(1), labels),
        "accuracy/own": _share(own.argmax(1), labels),
        "scatter/within_over_between": _scatter(z, labels, means),
        "silhouette": float(silhouette_score(z[some].numpy(), labels[some].numpy())),
        "angle/within": _angle_within(z, labels, len(seen)),
        "angle/gaps": _gaps(means).std(correction=0).item(),
        "norms/spread": _relative_spread(means.norm(dim=1)),
        "range/lowest": z.min().item(),
        "range/highest": z.max().item(),
    }
    if head.targets is not None:
        targets = head.targets.double()
        between = losses.distances(targets, targets).fill_diagonal_(math.inf)
        unit = between.min() / 2
        found["target/points"] = ((z - targets[labels]).norm(dim=1).mean() / unit).item()
        found["target/means"] = ((means - targets).norm(dim=1).max() / unit).item()
    if z.shape[1] in (2, 3):
        arrays = compact(z[some], labels[some]) | {"class_vectors": trained.float().numpy()}
        if head.targets is not None:
            arrays["targets"] = head.targets.numpy()
        found["scatter"] = arrays
    return found


def _share(predicted: Tensor, labels: Tensor) -> float:
    return (predicted == labels).double().mean().item()


def _scatter(z: Tensor, labels: Tensor, means: Tensor) -> float:
    within = (z - means[labels]).square().sum(1).mean()
    weights = labels.bincount(minlength=len(means)) / len(labels)
    centre = z.mean(0)
    return (within / (weights * (means - centre).square().sum(1)).sum()).item()


def _angle_within(z: Tensor, labels: Tensor, classes: int) -> float:
    unit = F.normalize(z, dim=1)
    direction = F.normalize(class_means(unit, labels, torch.arange(classes)), dim=1)
    angle = (unit * direction[labels]).sum(1).clamp(-1, 1).acos().rad2deg()
    squares = torch.zeros(classes, dtype=torch.double).index_add_(0, labels, angle.square())
    return (squares / labels.bincount(minlength=classes)).sqrt().mean().item()


def _gaps(means: Tensor) -> Tensor:
    """(classes,) degrees from each class mean to the next, see `geometry`."""
    if means.shape[1] == 2:
        angles = torch.atan2(means[:, 1], means[:, 0]).rad2deg().sort().values
        return torch.cat([angles[1:], angles[:1] + 360]) - angles
    cosines = losses.cosine(means, means).fill_diagonal_(-1.0)
    return cosines.max(1).values.clamp(-1, 1).acos().rad2deg()


def _relative_spread(lengths: Tensor) -> float:
    return (lengths.std(correction=0) / lengths.mean()).item()
