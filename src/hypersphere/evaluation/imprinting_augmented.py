"""Class vectors imprinted from randomly augmented versions of the examples (Qi et al. 2018)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch.nn import functional as F

from hypersphere.config.data import Augmentation
from hypersphere.data.splits import Split, first_shots
from hypersphere.evaluation.fewshot.few_shot import accuracies_of, check_examples
from hypersphere.evaluation.imprinting import Positive, beside_trained
from hypersphere.evaluation.novel import Findings
from hypersphere.training.trained import TrainedNetwork


def imprinting_augmented(
    trained: TrainedNetwork,
    split: Split,
    seed: int,
    *,
    shots: list[Positive],
    draws: Positive,
    versions: Annotated[int, Field(ge=1)] = 5,
    or_fewer: bool = False,
    augmentation: Augmentation | None = None,
) -> Findings:
    """Test accuracy of `imprinting`'s rule `mean` where each example is embedded in `versions`
    random crops and flips instead of as it is: unit embeddings, averaged over the versions and the
    examples, scaled to unit length (Imprinting+Aug, sections 4.2 and 6.1.2).

    The examples are those of `imprinting` with the same shots and draws, so that rows can be
    paired; test embeddings are the saved ones, and only examples are embedded anew. Crops and flips
    are those of the network's own training; `augmentation` states them for images in memory that
    were not augmented. Each draw has its own; fewer shots are the first of more, in the same
    versions.

    Keys are `mean/<shots>/<name>`, each a list over the draws, with the names of `FewShot`. Raises
    ValueError when the split has no unseen class, a class too few images, or when nothing about
    the images is random.
    """
    given = beside_trained(trained.head, trained.embeddings, split)
    labels = trained.embeddings.train_labels
    members = [(labels == c).nonzero().flatten().numpy() for c in split.unseen]
    if not or_fewer:
        check_examples(members, split.unseen, max(shots))
    stated = None if augmentation is None else Augmentation.model_validate(augmentation)
    shots, sets = sorted(shots), []
    for draw in range(draws):
        chosen = [
            torch.from_numpy(first_shots(own, c, shots[-1], seed, draw))
            for c, own in zip(split.unseen, members, strict=True)
        ]
        seeds = ("augmented shots", seed, draw)
        z = trained.embed_augmented(torch.cat(chosen), versions, seeds, stated)
        units = F.normalize(z.double(), dim=2).sum(0)
        each = units.split([len(own) for own in chosen])
        sets += [torch.stack([own[:n].sum(0) for own in each]) for n in shots]
    values = accuracies_of(torch.stack(sets).float(), **given)
    return {
        f"mean/{n}/{name}": found[i :: len(shots)].tolist()
        for i, n in enumerate(shots)
        for name, found in values.items()
    }


imprinting_augmented.needs_unseen = True  # type: ignore[attr-defined]
imprinting_augmented.reads_images = True  # type: ignore[attr-defined]
