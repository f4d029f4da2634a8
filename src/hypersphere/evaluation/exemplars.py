"""What one example of a new class is worth: the examples, how well each serves its class, and test
images that are recognised by them or mistaken (Qi et al. 2018, figure 5)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hypersphere.data.load import class_names
from hypersphere.data.splits import Split
from hypersphere.evaluation.fewshot import evaluate
from hypersphere.evaluation.imprinting import Positive, beside_trained
from hypersphere.evaluation.novel import Findings
from hypersphere.heads import class_means
from hypersphere.seeds import generator
from hypersphere.store import thumbnails
from hypersphere.training.trained import TrainedNetwork


def exemplars(
    trained: TrainedNetwork,
    split: Split,
    seed: int,
    *,
    draws: Positive,
    classes: Positive = 16,
    cases: Positive = 8,
    pixels: Positive = 120,
) -> Findings:
    """Recall@1 of each unseen class imprinted from one example, among all classes.

    Numbers, each a list over the draws: `recall/<class name>`, the share of a class's test images
    that are recognised, and of these `recall/lowest`, `recall/median`, `recall/highest`. The
    examples are the first shots of `imprinting` with the same draws.

    Artifact `exemplars`, of the first draw: `names` of the unseen classes with the `recalls` of
    `classes` random ones, highest first (`shown`, by number), and `images` as small as `pixels`
    (store/thumbnails.py) of their examples; `right` and `wrong`, up to `cases` random test images
    of unseen classes that were recognised, or taken for another unseen class: their image, their
    class, the class predicted and its example's image (rows of four numbers). `counts`: test images
    of unseen classes, those recognised, those taken for a seen class, and number of all classes.
    Images are shown as the network sees them when it is tested.

    Raises ValueError when the split has no unseen class, or the images do not fit the artifact.
    """
    given = beside_trained(trained.head, trained.embeddings, split)
    few = evaluate(**given, shots=(1,), draws=draws, seed=seed)
    first = len(split.seen)
    examples = torch.from_numpy(few.examples[0, :, 0])
    tested, own, predicted = _predictions(given, examples)
    recalls = few.recalls["joint"][0][:, first:].copy()  # (draws, unseen classes)
    # What is shown and what is counted are one computation: two may round a near tie either way.
    classes_of = first + np.arange(recalls.shape[1])
    recalls[0] = [(predicted[own == c] == c).mean() for c in classes_of]
    every = class_names(trained.dataset_name)
    names = [every[c] for c in split.unseen]
    found: Findings = {
        f"recall/{name}": each.tolist() for name, each in zip(names, recalls.T, strict=True)
    }
    for name, of in (("lowest", np.min), ("median", np.median), ("highest", np.max)):
        found[f"recall/{name}"] = of(recalls, axis=1).tolist()

    draw = generator("exemplars", seed)
    shown = draw.permutation(len(names))[:classes]
    shown = shown[np.argsort(-recalls[0, shown], kind="stable")]
    right, wrong = (
        draw.permutation(np.flatnonzero(chosen))[:cases]
        for chosen in (predicted == own, (predicted != own) & (predicted >= first))
    )
    some = np.concatenate([right, wrong])
    # every example once, whoever shows it
    used = np.unique(np.concatenate([shown, predicted[some] - first]))
    pictures = [
        *trained.as_seen("train", examples[used]),
        *trained.as_seen("test", tested[some]),
    ]
    place = {c: i for i, c in enumerate(used)}
    rows = [
        (len(used) + i, own[j] - first, predicted[j] - first, place[predicted[j] - first])
        for i, j in enumerate(some)
    ]
    table = np.array(rows, dtype=np.int64).reshape(-1, 4)
    found["exemplars"] = {
        **thumbnails.pack([_pixels(image) for image in pictures], pixels),
        "names": np.array(names),
        "shown": shown,
        "images": np.array([place[c] for c in shown]),
        "recalls": recalls[0, shown],
        "right": table[: len(right)],
        "wrong": table[len(right) :],
        "counts": np.array(
            [len(own), (predicted == own).sum(), (predicted < first).sum(), first + len(names)]
        ),
    }
    return found


exemplars.needs_unseen = True  # type: ignore[attr-defined]
exemplars.reads_images = True  # type: ignore[attr-defined]


def _predictions(given: dict[str, Any], examples: Tensor) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Of the test images of unseen classes: their positions, their classes and the classes of the
    nearest vector, both by number among seen and unseen classes."""
    base, novel = torch.tensor(given["base"]), torch.tensor(given["novel"])
    if (vectors := given["base_vectors"]) is None:
        vectors = class_means(F.normalize(given["embeddings"], dim=1), given["labels"], base)
    vectors = F.normalize(torch.cat([vectors, given["embeddings"][examples]]), dim=1)
    tested = torch.isin(given["test_labels"], novel).nonzero().flatten()
    scores = F.normalize(given["test"][tested], dim=1) @ vectors.T
    own = len(base) + torch.searchsorted(novel, given["test_labels"][tested])
    return tested, own.numpy(), scores.argmax(1).numpy()


def _pixels(image: Tensor) -> np.ndarray:
    """(c, h, w) -> (h, w) or (h, w, 3)."""
    return image.permute(1, 2, 0).numpy() if len(image) == 3 else image[0].numpy()
