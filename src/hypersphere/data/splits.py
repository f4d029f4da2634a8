"""Splits and draws: pure functions of labels or counts and a number, the same for every method.

Class splits say which classes a network is trained on; `support`, `holdout` and `imbalanced`
choose images. None depends on the method or on global random state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from hypersphere.seeds import generator


@dataclass(frozen=True)
class Split:
    """Class ids the network is trained on (`seen`) and those it never sees (`unseen`), sorted.

    few: those of the seen ones that it is trained on with a few images each (data.shots).
    """

    seen: tuple[int, ...]
    unseen: tuple[int, ...]
    few: tuple[int, ...] = ()


Trained = Literal["base", "all", "novel"]


def _trained_on(base: tuple[int, ...], novel: tuple[int, ...], trained: Trained) -> Split:
    """The split of a base training, of tuning on all classes, or on the novel ones alone."""
    if trained == "base":
        return Split(base, novel)
    if trained == "novel":
        return Split(novel, base, novel)
    return Split(tuple(sorted(base + novel)), (), novel)


# Class splits (components: conf/split)


def seen_unseen(
    num_classes: int,
    *,
    num_unseen: Annotated[int, Field(ge=1)],
    permutation: Annotated[int, Field(ge=0)],
) -> Split:
    """Nested random splits: unseen are the first `num_unseen` classes of permutation number
    `permutation`, so the unseen classes of a smaller K* are among those of a larger one.

    Raises ValueError when fewer than two classes would be left to train on.
    """
    if num_unseen > num_classes - 2:
        raise ValueError(
            f"num_unseen={num_unseen} leaves fewer than two of {num_classes} classes to train on"
            f" (at most {num_classes - 2})"
        )
    order = generator("class permutation", permutation).permutation(num_classes).tolist()
    return Split(tuple(sorted(order[num_unseen:])), tuple(sorted(order[:num_unseen])))


def all_classes(num_classes: int) -> Split:
    """Closed set: every class is trained on."""
    return Split(tuple(range(num_classes)), ())


def base_novel(
    num_classes: int, *, num_base: Annotated[int, Field(ge=2)], trained: Trained = "base"
) -> Split:
    """The first `num_base` classes are the base, the rest is novel (CUB: 100 and 100; Qi et al.
    2018, section 4.1).

    trained: on the `base` classes; on `all`, novel ones with a few images each; or on the `novel`
    ones alone (their transfer setting). Raises ValueError when no novel class is left.
    """
    if num_base >= num_classes:
        raise ValueError(f"num_base={num_base} leaves no novel class of {num_classes}")
    base, novel = tuple(range(num_base)), tuple(range(num_base, num_classes))
    return _trained_on(base, novel, trained)


def by_count(
    counts: Sequence[int], *, at_least: Annotated[int, Field(ge=1)], trained: Trained = "base"
) -> Split:
    """Classes with at least so many training images are trained on, the others are unseen.

    iNaturalist 2017 at 100: 1,240 and 3,849 classes (Qi et al. 2018); Pl@ntNet at 200, 100, 50, 25
    (arXiv 2102.03243, section 4.3). trained: as in `base_novel`. Raises ValueError when fewer than
    two classes have so many.
    """
    enough = np.asarray(counts) >= at_least
    if enough.sum() < 2:
        raise ValueError(
            f"at_least={at_least}: {int(enough.sum())} of {len(enough)} classes have so many"
            f" training images (the largest has {max(counts)})"
        )
    base, novel = (tuple(np.flatnonzero(chosen).tolist()) for chosen in (enough, ~enough))
    return _trained_on(base, novel, trained)


by_count.needs_counts = True  # type: ignore[attr-defined]  # training images per class, not K


def choose_by_count(
    counts: np.ndarray, *, total: int, at_least: Mapping[int, int], draw: int = 0
) -> list[int]:
    """`total` random classes of which given numbers have at least so many images.

    at_least: {200: 10, 100: 16, ...}: 10 classes with 200 images or more, 16 with 100 or more (the
    10 among them), and so on; what is left of `total` has fewer than the smallest threshold.
    Raises ValueError naming the threshold that too few classes reach.
    """
    chosen: list[int] = []
    above = np.inf
    steps = [*sorted(at_least.items(), reverse=True), (1, total)]
    for threshold, cumulative in steps:
        wanted = cumulative - len(chosen)
        within = np.flatnonzero((counts >= threshold) & (counts < above))
        if wanted < 0 or len(within) < wanted:
            raise ValueError(
                f"has {len(within)} classes with {threshold} or more (and fewer than {above:g})"
                f" training images, {wanted} are needed"
            )
        order = generator("classes by count", draw, threshold).permutation(len(within))
        chosen += within[order[:wanted]].tolist()
        above = threshold
    return sorted(chosen)


# Draws of images


def support(
    labels: np.ndarray,
    classes: Sequence[int],
    shots: int,
    seed: int,
    draw: int,
    *,
    or_fewer: bool = False,
) -> np.ndarray:
    """Positions (classes * shots,) of the labelled examples of a few-shot draw.

    Nested: the draw's first n images of a class do not depend on `shots`. or_fewer: take all of a
    class that has fewer (iNaturalist has classes of 2 images). Raises ValueError naming the class
    that has fewer than `shots` images (with or_fewer: none).
    """
    chosen = []
    for c in classes:
        members = np.flatnonzero(labels == c)
        if len(members) < (min(shots, 1) if or_fewer else shots):
            raise ValueError(f"class {c} has {len(members)} training images, {shots} shots asked")
        chosen.append(first_shots(members, c, shots, seed, draw))
    return np.concatenate(chosen)


def first_shots(members: np.ndarray, c: int | str, shots: int, seed: int, draw: int) -> np.ndarray:
    """The first `shots` of `members`, positions of class `c`, in the random order of a draw."""
    return members[generator("shots", seed, draw, _key(c)).permutation(len(members))[:shots]]


def _key(c: int | str) -> int | str:
    return c if isinstance(c, str) else int(c)


def holdout(labels: np.ndarray, share: float, draw: int) -> np.ndarray:
    """True (n,) for a stratified validation part: `share` of each class, at least one image and
    never all. Raises ValueError naming a class of a single image."""
    held = np.zeros(len(labels), bool)
    for c in np.unique(labels):
        members = np.flatnonzero(labels == c)
        if len(members) < 2:
            raise ValueError(f"class {c} has a single image: none can be held out")
        number = min(max(round(share * len(members)), 1), len(members) - 1)
        order = generator("holdout", draw, _key(c)).permutation(len(members))
        held[members[order[:number]]] = True
    return held


def imbalanced_counts(num_classes: int, smallest: int, largest: int) -> np.ndarray:
    """Images per class, rising evenly from `smallest` to `largest` (CIFAR-100, 2 to 200: 2k for
    class k = 1 .. 100; Mettes et al. 2019, table 4)."""
    return np.linspace(smallest, largest, num_classes).round().astype(np.int64)


def imbalanced(labels: np.ndarray, counts: Sequence[int], draw: int) -> np.ndarray:
    """Sorted positions of counts[c] random images of each class c; nested in the counts.

    Raises ValueError naming the class that has too few.
    """
    chosen = []
    for c, wanted in enumerate(counts):
        members = np.flatnonzero(labels == c)
        if len(members) < wanted:
            raise ValueError(f"class {c} has {len(members)} images, {wanted} are asked")
        order = generator("imbalance", draw, c).permutation(len(members))
        chosen.append(members[order[:wanted]])
    return np.sort(np.concatenate(chosen))
