"""Losses as pure functions of logits or embeddings and labels; no parameters live here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

WHOLE = 2**22  # logits of a batch that are held at once with all that their gradient needs
PART = 2**19  # of a part of the classes, where there are more


def cosine(embeddings: Tensor, class_vectors: Tensor) -> Tensor:
    """cos(z, w_k) for embeddings (n, dim) and class vectors (classes, dim): (n, classes), of half
    precision and under autocast in float32."""
    with full_precision(embeddings):
        z, w = lifted(embeddings), lifted(class_vectors)
        return F.normalize(z, dim=-1) @ F.normalize(w, dim=-1).T


def full_precision(embeddings: Tensor) -> torch.autocast:
    """No autocast: eight bits hold neither the distance of close points nor a scaled cosine."""
    return torch.autocast(embeddings.device.type, enabled=False)


def lifted(values: Tensor) -> Tensor:
    """Half precision as float32, all others as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def check_batch(embeddings: Tensor, **each: Tensor | None) -> None:
    """Raises ValueError unless labels, weights or values of the images are one per embedding: any
    other shape would broadcast to something that trains, to nonsense."""
    for name, given in each.items():
        if given is not None and given.shape != embeddings.shape[:1]:
            raise ValueError(
                f"{name}: needs shape ({len(embeddings)},), one per embedding, got"
                f" {tuple(given.shape)}"
            )


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean cross-entropy; with weights (n,) of the images the mean of weight times cross-entropy.

    As Keras has it: the weights are not divided by their sum, as torch would do.
    """
    check_batch(logits, labels=labels, weights=weights)
    if weights is None:
        return F.cross_entropy(logits, labels)
    return (weights * F.cross_entropy(logits, labels, reduction="none")).mean()


def classification(
    logits: Callable[..., Tensor],
    embeddings: Tensor,
    of_classes: Sequence[Tensor],
    labels: Tensor,
    weights: Tensor | None = None,
    less: Tensor | float | None = None,
) -> Tensor:
    """`cross_entropy` of many classes: of logits(embeddings, *of_classes), (n, classes).

    of_classes: tensors with a row per class (class vectors, biases); of some rows of each `logits`
    gives the columns of those classes. less: a number, or (n,), subtracted from the logit of the
    image's own class, as margins are.

    Beyond WHOLE logits the classes come in parts, one after the other and in the backward pass
    again, so that no (n, classes) is ever there: equal up to rounding, and about as fast, since a
    part stays in the cache. Labels outside 0 .. classes - 1 are refused, as by `cross_entropy`
    (whose -100, an image that is left out, is refused too where the classes come in parts).
    """
    check_batch(embeddings, labels=labels, weights=weights)
    n, classes = len(labels), len(of_classes[0])
    if n * classes <= WHOLE:
        return cross_entropy(
            _less_own(logits(embeddings, *of_classes), labels, less), labels, weights
        )

    def part(z: Tensor, first: int, *some: Tensor) -> tuple[Tensor, Tensor]:
        own = labels - first
        found = _less_own(logits(z, *some), own, less)
        of_own = found.gather(1, own.clamp(0, len(some[0]) - 1)[:, None])[:, 0]
        here = (own >= 0) & (own < len(some[0]))
        return found.logsumexp(1), torch.where(here, of_own, 0.0)

    # On the device: a wait for its answer would cost more than the loss.
    torch._assert_async(
        ((labels >= 0) & (labels < classes)).all(), f"labels must lie in 0 .. {classes - 1}"
    )
    size = max(PART // n, 1)
    parts = zip(*(each.split(size) for each in of_classes), strict=True)
    sums, own = zip(
        *(
            checkpoint(
                part, embeddings, i * size, *some, use_reentrant=False, preserve_rng_state=False
            )
            for i, some in enumerate(parts)
        ),
        strict=True,
    )
    each = torch.stack(sums).logsumexp(0) - torch.stack(own).sum(0)
    return (each if weights is None else weights * each).mean()


def _less_own(logits: Tensor, own: Tensor, less: Tensor | float | None) -> Tensor:
    """Logits (n, k) with `less` subtracted in the column `own` (n,), where there is such a one."""
    if less is None:
        return logits
    if isinstance(less, Tensor) and less.ndim:
        less = less[:, None]
    columns = torch.arange(logits.shape[1], device=logits.device)
    return torch.where(own[:, None] == columns, logits - less, logits)


def normalized_softmax(
    embeddings: Tensor,
    class_vectors: Tensor,
    labels: Tensor,
    scale: float | Tensor,
    weights: Tensor | None = None,
    margin: float = 0.0,
) -> Tensor:
    """Normalised softmax loss: mean cross-entropy of scale * cos(w_k, z), no bias; with a margin
    CosFace, scale * (cos(w_y, z) - margin) for the image's own class y.

    Eq. 2 of Hyperspherical embedding for novel class classification (arXiv 2102.03243); Wang et al.
    2018 (CosFace). embeddings: (n, dim); class_vectors: (classes, dim); labels: (n,) in
    0 .. classes - 1; scale: a number, or (classes,); weights: (n,) or None. Finite for every angle:
    the gradient passes through the cosine, never through an arc cosine. Raises ValueError for
    labels or weights of another shape, as all losses here.
    """
    check_batch(embeddings, labels=labels, weights=weights)
    cos = cosine(embeddings, class_vectors)
    if margin:
        cos = cos - margin * F.one_hot(labels, cos.shape[1])
    return cross_entropy(scale * cos, labels, weights)


def squared_error(
    embeddings: Tensor, points: Tensor, labels: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Mean over images of ||z - p_y||^2: regression to targets, and without its factor the center
    loss (arXiv 2408.01767, sections II-E and II-G). embeddings: (n, dim); points: (classes, dim);
    labels: (n,); weights: (n,) of the images or None."""
    check_batch(embeddings, labels=labels, weights=weights)
    error = (embeddings - points.index_select(0, labels)).square().sum(1)
    return (error if weights is None else weights * error).mean()


def squared_cosine(
    embeddings: Tensor, prototypes: Tensor, labels: Tensor, absolute: bool = False
) -> Tensor:
    """(1 - cos(z, p_y))^2 of each image, (n,), for embeddings (n, dim) and unit prototypes
    (classes, dim): eq. 1 of Hyperspherical Prototype Networks (arXiv 1901.10514).

    absolute: with |cos|, as the paper prints it. Its released code has no absolute value: with it,
    pointing away from the prototype costs nothing while eq. 3 misclassifies.
    """
    check_batch(embeddings, labels=labels)
    # index_select, unlike [], takes no negative label for a class from the end
    cosines = (F.normalize(embeddings, dim=-1) * prototypes.index_select(0, labels)).sum(1)
    return (1 - (cosines.abs() if absolute else cosines)).square()


def distances(a: Tensor, b: Tensor, squared: bool = False) -> Tensor:
    """Euclidean distances (n, m) between the rows of a (n, dim) and b (m, dim), of half precision
    and under autocast in float32.

    The gradient of a zero distance is zero, not NaN: coincident points are left alone.
    """
    with full_precision(a):
        a, b = lifted(a), lifted(b)
        square = (a.square().sum(1)[:, None] + b.square().sum(1)[None] - 2 * a @ b.T).clamp_min(0)
    if squared:
        return square
    zero = square <= 0
    return torch.where(zero, 1.0, square).sqrt().masked_fill(zero, 0.0)


def triplet(
    embeddings: Tensor,
    labels: Tensor,
    margin: float,
    squared: bool = False,
    mining: str = "semihard",
) -> Tensor:
    """Triplet loss (Schroff et al. 2015) over the triplets of a batch.

    `semihard`: for every ordered positive pair (a, p) the nearest negative farther than p, else
    the farthest negative of all, as TensorFlow Addons' `TripletSemiHardLoss` does; mean over the
    positive pairs. `all`: every triplet, mean over those with a loss above zero, as
    pytorch-metric-learning does by default.

    embeddings: (n, dim), expected unit length for the usual margins; labels: (n,). Distances are
    Euclidean, or squared Euclidean with `squared`. A batch without a triplet gives 0.
    """
    if mining not in ("semihard", "all"):
        raise ValueError(f"mining={mining!r}: semihard or all")
    check_batch(embeddings, labels=labels)
    d = distances(embeddings, embeddings, squared)
    same = labels[:, None] == labels[None]
    negative = ~same
    positive = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    if not (positive.any() and negative.any()):
        return embeddings.sum() * 0.0
    anchor, other = positive.nonzero(as_tuple=True)
    if mining == "all":
        # A row per positive pair, not n of them per anchor; what is no negative is infinitely far.
        away = d.masked_fill(same, torch.inf).index_select(0, anchor)
        terms = ((margin + d[anchor, other])[:, None] - away).clamp_min(0)
        return terms.sum() / (terms > 0).sum().clamp_min(1)
    keep = negative[anchor].any(1)
    anchor, other = anchor[keep], other[keep]
    to_positive = d[anchor, other]
    to_negative = d[anchor]
    farther = negative[anchor] & (to_negative > to_positive[:, None])
    nearest_farther = to_negative.masked_fill(~farther, float("inf")).min(1).values
    farthest = to_negative.masked_fill(~negative[anchor], float("-inf")).max(1).values
    chosen = torch.where(farther.any(1), nearest_farther, farthest)
    return (margin + to_positive - chosen).clamp_min(0).mean()


def lifted_structured(embeddings: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Lifted structured loss (Song et al. 2016, eq. 4): half the mean over positive pairs (i, j) of
    max(0, J_ij)^2, with J_ij = d_ij + log(sum_k exp(margin - d_ik) + sum_k exp(margin - d_jk)) over
    the negatives k.

    embeddings: (n, dim), of any length; labels: (n,). d is Euclidean. A batch without a positive or
    without a negative pair gives 0.
    """
    check_batch(embeddings, labels=labels)
    d = distances(embeddings, embeddings)
    same = labels[:, None] == labels[None]
    above = torch.triu(same, 1)
    if not above.any() or same.all():
        return embeddings.sum() * 0.0
    negatives = (margin - d).masked_fill(same, -torch.inf).logsumexp(1)
    i, j = above.nonzero(as_tuple=True)
    each = d[i, j] + torch.logaddexp(negatives[i], negatives[j])
    return each.clamp_min(0).square().mean() / 2


def contrastive(
    embeddings: Tensor, labels: Tensor, margin: float, pairs: str = "consecutive"
) -> Tensor:
    """Contrastive loss (Hadsell et al. 2006) without its factor 1/2, mean over pairs:
    d^2 for a pair of one class, max(0, margin - d)^2 for a pair of two classes.

    `consecutive`: the pairs are rows (0, 1), (2, 3), ...; `all`: every pair of the batch.
    embeddings: (n, dim); labels: (n,). d is Euclidean. A batch without a pair gives 0. Raises
    ValueError when consecutive pairs are asked of an odd batch.
    """
    if pairs not in ("consecutive", "all"):
        raise ValueError(f"pairs={pairs!r}: consecutive or all")
    check_batch(embeddings, labels=labels)
    if len(labels) < 2 and pairs == "all":
        return embeddings.sum() * 0.0
    if pairs == "consecutive":
        if len(labels) % 2:
            raise ValueError(f"consecutive pairs need an even batch, got {len(labels)} images")
        difference = embeddings[0::2] - embeddings[1::2]
        square = difference.square().sum(1)
        same = labels[0::2] == labels[1::2]
    else:
        above = torch.triu_indices(len(labels), len(labels), 1, device=labels.device)
        square = distances(embeddings, embeddings, squared=True)[above[0], above[1]]
        same = (labels[:, None] == labels[None])[above[0], above[1]]
    zero = square <= 0
    d = torch.where(zero, 1.0, square).sqrt().masked_fill(zero, 0.0)
    return torch.where(same, square, (margin - d).clamp_min(0).square()).mean()
