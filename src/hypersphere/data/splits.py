"""Class splits: pure functions of (number of classes, parameters), the same for every method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from hypersphere.seeds import generator


@dataclass(frozen=True)
class Split:
    """Class ids the network is trained on (`seen`) and those it never sees (`unseen`), sorted."""

    seen: tuple[int, ...]
    unseen: tuple[int, ...]


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
