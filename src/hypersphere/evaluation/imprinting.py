"""Imprinted class vectors, nearest neighbours and random class vectors beside the trained ones (Qi
et al. 2018), for every number of shots and every draw in one call."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from hypersphere.data.splits import Split
from hypersphere.evaluation.embeddings import Embeddings
from hypersphere.evaluation.fewshot import evaluate
from hypersphere.evaluation.fewshot.few_shot import accuracies_of
from hypersphere.evaluation.novel import Findings
from hypersphere.heads import Head
from hypersphere.seeds import generator

Positive = Annotated[int, Field(ge=1)]


def imprinting(
    head: Head,
    embeddings: Embeddings,
    split: Split,
    seed: int,
    *,
    shots: list[Positive],
    draws: Positive,
    rules: list[Literal["mean", "nearest", "random"]],
    or_fewer: bool = False,
) -> Findings:
    """Test accuracy with the trained class vectors of the seen classes, and for the unseen ones

    * `mean`: imprinted weights, the unit mean of `shots` unit embeddings (section 4.2);
    * `nearest`: the nearest of them instead of their mean (section 6.2, figure 6);
    * `random`: Xavier uniform class vectors, one set per draw and no examples: the start of
      `Rand-noFT`.

    Scores are cosines. A head whose class vectors are not of unit length, or that has none, is
    judged by the unit means of its training embeddings; scales per class play no part.

    Keys are `<rule>/<shots>/<name>`, each a list over the draws, and of `random` `random/<name>`;
    the names are those of `FewShot` (`joint/all`, `joint/novel`, ..., `disjoint/novel`). The
    artifact `one_shot`, where `mean` is asked with one shot, holds for each draw the position of
    the example among the training images and the recall of its class on the test images, `examples`
    and `recall_joint`, `recall_disjoint` (draws, unseen classes), and the `classes`.

    Raises ValueError when the split has no unseen class or a class too few images.
    """
    given = beside_trained(head, embeddings, split)
    found: Findings = {}
    for rule in rules:
        if rule == "random":
            drawn = torch.stack([_xavier(split, head.dim, seed, draw) for draw in range(draws)])
            values = accuracies_of(drawn, **given)
            found |= {f"random/{name}": each.tolist() for name, each in values.items()}
            continue
        few = evaluate(
            **given, shots=sorted(shots), draws=draws, seed=seed, rule=rule, or_fewer=or_fewer
        )
        for i, n in enumerate(few.shots):
            found |= {f"{rule}/{n}/{name}": v[i].tolist() for name, v in few.values.items()}
        if rule == "mean" and few.shots[0] == 1:
            found["one_shot"] = {
                "classes": np.array(split.unseen),
                "examples": few.examples[:, :, 0],
                **{f"recall_{k}": v[0][:, len(split.seen) :] for k, v in few.recalls.items()},
            }
    return found


imprinting.needs_unseen = True  # type: ignore[attr-defined]


def beside_trained(head: Head, embeddings: Embeddings, split: Split) -> dict[str, Any]:
    """What `fewshot.evaluate` is given to judge unseen classes beside a head's trained ones.

    Raises ValueError when there are none.
    """
    if not split.unseen:
        raise ValueError("there are no unseen classes: choose split=base_novel")
    vectors = None
    if not head.not_imprintable:
        seen = torch.tensor(split.seen)
        vectors = head.trained(embeddings.train, embeddings.train_labels, seen, True)
    return {
        "embeddings": embeddings.train, "labels": embeddings.train_labels,
        "test": embeddings.test, "test_labels": embeddings.test_labels,
        "base": split.seen, "novel": split.unseen, "base_vectors": vectors,
    }  # fmt: skip


def _xavier(split: Split, dim: int, seed: int, draw: int) -> Tensor:
    """(unseen, dim): rows of a classifier of all classes that starts Xavier uniform. Their length
    plays no part, their directions are those of a cube."""
    draws = generator("random class vectors", seed, draw)
    return torch.from_numpy(draws.uniform(-1, 1, (len(split.unseen), dim))).float()
