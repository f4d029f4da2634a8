"""Random draws of novel classes: every number of classes and every draw in one call
(arXiv 2102.03243, section 4.4)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from hypersphere.data.splits import Split
from hypersphere.evaluation.embeddings import Embeddings
from hypersphere.evaluation.novel import Findings
from hypersphere.heads import Head
from hypersphere.seeds import generator

Positive = Annotated[int, Field(ge=1)]


def random_classes(
    head: Head,
    embeddings: Embeddings,
    split: Split,
    seed: int,
    *,
    sizes: list[Positive],
    totals: list[Positive],
    draws: Positive,
) -> Findings:
    """Balanced accuracy (mean recall of the classes) with randomly drawn sets of novel classes,
    whose vectors are inferred from all their training images (eq. 4, of unit length).

    Keys, each a list over the draws: `<size>/disjoint/unseen`, test images of the drawn classes
    against those alone; `<size>/joint/<group>`, against the seen classes as well, over `all` of
    them, the `seen` or the `unseen` ones. `total@<n>/<scenario>/<group>` is the same for the size
    that gives n classes in all, seen and drawn. A draw's smaller sets lie inside its larger ones.
    What would take more unseen classes than there are, or none, is left out. `seen/balanced` and
    `seen/accuracy`: the trained classes by themselves. Classes without a test image have no recall
    and do not count.

    Raises ValueError when the split has no unseen class, or all sizes are too large.
    """
    named = {str(size): size for size in sizes}
    named |= {f"total@{total}": total - len(split.seen) for total in totals}
    named = {name: size for name, size in named.items() if 0 < size <= len(split.unseen)}
    if not named:
        raise ValueError(
            f"{len(split.unseen)} unseen classes: none of sizes={sizes}, totals={totals} can be"
            " drawn"
        )
    possible = sorted(set(named.values()))
    chosen = _chosen(split, possible, draws, seed)
    classes = torch.tensor([*split.seen, *split.unseen])
    is_seen = torch.arange(len(classes)) < len(split.seen)
    train, labels = embeddings.train, embeddings.train_labels
    seen, unseen = torch.tensor(split.seen), torch.tensor(split.unseen)
    vectors = [head.trained(train, labels, seen, True), head.infer(train, labels, unseen, True)]
    scores = head.scores(embeddings.test, torch.cat(vectors))
    own = (embeddings.test_labels[:, None] == classes[None]).float().argmax(1)
    present = torch.bincount(own, minlength=len(classes))
    found: dict[str, float | list[float]] = {}

    def recalls(competing: Tensor) -> Tensor:
        """(classes, settings): share of each class's test images that none of the `competing`
        classes (settings, classes) beats; nan without test images."""
        correct = unbeaten(scores, own, competing)
        summed = torch.zeros(len(classes), correct.shape[1]).index_add_(0, own, correct.float())
        return summed / present[:, None]

    among_seen = recalls(is_seen[None].float())[:, 0]
    found["seen/balanced"] = among_seen[is_seen].nanmean().item()
    hits = (among_seen * present)[is_seen].nansum() / present[is_seen].sum()
    found["seen/accuracy"] = hits.item()
    joint = recalls((chosen | is_seen).float())
    for scenario, group, recall, counted in (
        ("disjoint", "unseen", recalls(chosen.float()), chosen),
        ("joint", "all", joint, chosen | is_seen),
        ("joint", "seen", joint, is_seen.expand_as(chosen)),
        ("joint", "unseen", joint, chosen),
    ):
        means = recall.masked_fill(~counted.T, float("nan")).nanmean(0)
        by_size = dict(zip(possible, means.split(draws), strict=True))
        found |= {f"{name}/{scenario}/{group}": by_size[k].tolist() for name, k in named.items()}
    return found  # type: ignore[return-value]


random_classes.needs_unseen = True  # type: ignore[attr-defined]


def unbeaten(scores: Tensor, own: Tensor, competing: Tensor) -> Tensor:
    """Whether an image's own class is the best of the competing ones, for many sets at once.

    scores: (n, classes); own: (n,) position of each image's class; competing: (settings, classes)
    0 or 1 in float. Returns (n, settings) bool, what argmax over each set would say of images whose
    class is in it: of equal scores the first class wins. One matrix product counts, for each image
    and set, the competitors that beat its class; float32 counts up to 2^24 exactly.
    """
    mine = scores.gather(1, own[:, None])
    first = torch.arange(scores.shape[1]) < own[:, None]
    beats = (scores > mine) | ((scores == mine) & first)
    return beats.float() @ competing.T == 0


def _chosen(split: Split, sizes: list[int], draws: int, seed: int) -> Tensor:
    """(sizes * draws, classes) bool over seen then unseen classes: the drawn unseen ones."""
    offset, total = len(split.seen), len(split.seen) + len(split.unseen)
    chosen = torch.zeros(len(sizes), draws, total, dtype=torch.bool)
    for draw in range(draws):
        order = generator("novel classes", seed, draw).permutation(len(split.unseen))
        for number, size in enumerate(sizes):
            chosen[number, draw, offset + torch.from_numpy(order[:size].copy())] = True
    return chosen.flatten(0, 1)
