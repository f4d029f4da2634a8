"""Novel classes by inferred class vectors, disjoint and joint (arXiv 2102.03243, eqs. 4-6)."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from hypersphere.data.splits import Split, support
from hypersphere.evaluation.embeddings import Embeddings
from hypersphere.heads import Head

Findings = dict[str, float | list[float] | dict[str, np.ndarray]]


def novel_classes(
    head: Head,
    embeddings: Embeddings,
    split: Split,
    seed: int,
    *,
    shots: list[Annotated[int, Field(ge=1)]],
    draws: Annotated[int, Field(ge=1)],
) -> Findings:
    """Accuracy on seen and unseen classes with class vectors inferred for the unseen ones.

    Keys are `<shots>/<weights>/<scenario>/<group>`:

    * shots: `all` training images of each unseen class (one number), or that many of them (one
      number per random draw; draws are nested, 1 shot inside 5, and the same for every method);
    * weights: of the unseen classes `renormalized` to unit length, or the `raw` mean of eq. 4,
      beside the trained weights of the seen classes; or `inferred`: the seen classes' weights too
      are renormalised means of their training images (the class prototypes of appendix A.2);
    * scenario `disjoint` (eq. 6): test images of the unseen classes against the unseen classes;
      `joint` (eq. 5): all test images against all classes, group `seen`, `unseen` or `all`.

    Accuracies are fractions of test images. `trained/cosine_to_mean` is the mean cosine between
    the trained vector of a seen class and the mean of its unit training embeddings. The artifact
    `joint_confusion` holds, for each kind of weights inferred from all images, how many test
    images of class i (rows, by class id) were taken for class j. Raises ValueError when the split
    has no unseen class or a class too few images.
    """
    if not split.unseen:
        raise ValueError("there are no unseen classes: choose split=seen_unseen")
    train, labels = embeddings.train, embeddings.train_labels
    seen, unseen = torch.tensor(split.seen), torch.tensor(split.unseen)
    test = JointTest(embeddings, seen, unseen)
    supports = {"all": [torch.isin(labels, unseen)]}
    for n in shots:
        supports[str(n)] = [
            torch.from_numpy(support(labels.numpy(), split.unseen, n, seed, draw))
            for draw in range(draws)
        ]
    found: dict[str, list[float]] = {}
    confusion: dict[str, np.ndarray] = {}
    for weights in ("renormalized", "raw", "inferred"):
        renormalize = weights != "raw"
        of_seen = head.infer if weights == "inferred" else head.trained
        seen_scores = head.scores(embeddings.test, of_seen(train, labels, seen, renormalize))
        for name, drawn in supports.items():
            for chosen in drawn:
                vectors = head.infer(train[chosen], labels[chosen], unseen, renormalize)
                scores = torch.cat([seen_scores, head.scores(embeddings.test, vectors)], 1)
                groups = test.accuracies(scores)
                if name == "all":
                    confusion[weights] = test.confusion(scores)
                for group, value in groups.items():
                    found.setdefault(f"{name}/{weights}/{group}", []).append(value)
    # All images of a class are no draw: one number.
    numbers = {key: v[0] if key.startswith("all/") else v for key, v in found.items()}
    numbers["trained/cosine_to_mean"] = _alignment(head, train, labels, seen)
    return {**numbers, "joint_confusion": confusion}


novel_classes.revision = 2  # type: ignore[attr-defined]  # 2: inferred seen classes, confusion
novel_classes.needs_unseen = True  # type: ignore[attr-defined]


def _alignment(head: Head, train: Tensor, labels: Tensor, seen: Tensor) -> float:
    vectors = head.trained(train, labels, seen, True).double()
    means = head.infer(train, labels, seen, True).double()
    return torch.nn.functional.cosine_similarity(vectors, means).mean().item()


class JointTest:
    """Test labels as positions in joint order: the seen classes, then the unseen ones."""

    def __init__(self, embeddings: Embeddings, seen: Tensor, unseen: Tensor) -> None:
        self.classes = torch.cat([seen, unseen])
        position = torch.full((int(self.classes.max()) + 1,), -1)
        position[self.classes] = torch.arange(len(self.classes))
        self.target = position[embeddings.test_labels]
        self.num_seen = len(seen)
        self.is_unseen = self.target >= self.num_seen

    def accuracies(self, scores: Tensor) -> dict[str, float]:
        """scores: (test images, classes) in joint order."""
        disjoint = scores[:, self.num_seen :].argmax(1) + self.num_seen == self.target
        joint = scores.argmax(1) == self.target
        return {
            "disjoint/unseen": _mean(disjoint[self.is_unseen]),
            "joint/seen": _mean(joint[~self.is_unseen]),
            "joint/unseen": _mean(joint[self.is_unseen]),
            "joint/all": _mean(joint),
        }

    def confusion(self, scores: Tensor) -> np.ndarray:
        """(classes, classes) int64 by class id: true class in rows, predicted in columns."""
        size = int(self.classes.max()) + 1
        true, predicted = self.classes[self.target], self.classes[scores.argmax(1)]
        return torch.bincount(true * size + predicted, minlength=size**2).view(size, size).numpy()


def _mean(correct: Tensor) -> float:
    return correct.double().mean().item()
