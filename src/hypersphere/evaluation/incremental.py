"""Inferred class vectors beside optimised ones: incremental learning with all else frozen
(arXiv 2102.03243, section 4.5 and appendix A.3)."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from hypersphere.data.splits import Split, support
from hypersphere.evaluation.embeddings import Embeddings
from hypersphere.evaluation.novel import Findings, JointTest
from hypersphere.heads import Head
from hypersphere.seeds import derive, generator

Positive = Annotated[int, Field(ge=1)]


@torch.enable_grad()
def incremental(
    head: Head,
    embeddings: Embeddings,
    split: Split,
    seed: int,
    *,
    shots: list[Positive],
    draws: Positive,
    steps: Positive,
    epochs: Annotated[int, Field(ge=0)],
    batch: Positive,
    lr: Annotated[float, Field(gt=0)],
) -> Findings:
    """New class vectors inferred (eq. 4, of unit length) or optimised (cross-entropy over seen and
    new classes on images of the new ones; everything else frozen, unit length kept).

    With `shots` images per new class: Adam for `steps` full-batch steps, one number per random
    draw (those of `novel_classes`). With all images: `epochs` epochs of batches, one number. Both
    start from random unit vectors. Keys are `<shots>/<kind>/<scenario>/<group>` (shots: a number
    or `all`; kind: `inferred` or `optimized`; see `novel_classes`), and

    * `<shots>/cosine`: mean cosine between the inferred and the optimised vector of a class;
    * `<shots>/loss`, `<shots>/loss_before`: cross-entropy at the end and 20 steps (or an epoch)
      earlier, which tells whether it had stalled;
    * `all/ratio@<epoch>/<scenario>/<group>`: the accuracy optimised for 1, 2, ... epochs divided by
      the one inferred; nan where the latter is 0.

    Raises ValueError when the split has no unseen class, the head no class vectors to compare with,
    or a class has too few images.
    """
    if not split.unseen:
        raise ValueError("there are no unseen classes: choose split=seen_unseen")
    if not head.classifies:
        raise ValueError("this head has no class vectors: choose a head that classifies")
    found: dict[str, float | list[float]] = {}
    task = _Task(head, embeddings, split)
    for n in shots:
        chosen = torch.stack(
            [
                torch.from_numpy(support(task.labels.numpy(), split.unseen, n, seed, draw))
                for draw in range(draws)
            ]
        )
        task.record(found, str(n), *task.few(chosen, seed, steps, lr))
    if epochs:
        task.record_all(found, *task.many(seed, epochs, batch, lr))
    return found  # type: ignore[return-value]


incremental.needs_unseen = True  # type: ignore[attr-defined]


class _Task:
    """Everything frozen: unit embeddings, trained vectors, and the test."""

    def __init__(self, head: Head, embeddings: Embeddings, split: Split) -> None:
        self.head, self.embeddings = head, embeddings
        self.labels = embeddings.train_labels
        self.seen, self.unseen = torch.tensor(split.seen), torch.tensor(split.unseen)
        self.trained = head.trained(embeddings.train, self.labels, self.seen, True)
        self.test = JointTest(embeddings, self.seen, self.unseen)
        self.seen_test = head.scores(embeddings.test, self.trained)

    def start(self, seed: int, draws: int) -> Tensor:
        """Random unit vectors (draws, new classes, dim), drawn per class."""
        rows = [
            generator("incremental", seed, draw, c).standard_normal(self.trained.shape[1])
            for draw in range(draws)
            for c in self.unseen.tolist()
        ]
        vectors = torch.from_numpy(np.stack(rows)).float().view(draws, len(self.unseen), -1)
        return F.normalize(vectors, dim=-1)

    def few(
        self, chosen: Tensor, seed: int, steps: int, lr: float
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Inferred and optimised vectors (draws, new, dim) of chosen (draws, n) positions, and the
        losses (draws,) at the end and 20 steps before.

        All draws at once: Adam treats every number by itself, so none depends on another draw.
        """
        z, labels = self.embeddings.train[chosen], self.labels[chosen]
        inferred = torch.stack(
            [self.head.infer(a, b, self.unseen, True) for a, b in zip(z, labels, strict=True)]
        )
        target = torch.searchsorted(self.unseen, labels) + len(self.seen)
        frozen = self.head.scores(z.flatten(0, 1), self.trained).view(*chosen.shape, -1)
        new = torch.func.vmap(self.head.scores)

        def losses(vectors: Tensor) -> Tensor:
            scores = torch.cat([frozen, new(z, vectors)], -1)
            each = F.cross_entropy(scores.flatten(0, 1), target.flatten(), reduction="none")
            return each.view(target.shape).mean(1)

        vectors = self.start(seed, len(chosen))
        watched = []
        optimizer = _Optimizer(vectors, lr)
        for step in range(steps):
            if step == max(steps - 20, 0):
                watched.append(losses(optimizer.unit()).detach())
            optimizer.step(losses(optimizer.unit()).sum())
        watched.append(losses(optimizer.unit()).detach())
        return inferred, optimizer.unit().detach(), watched[::-1]

    def many(
        self, seed: int, epochs: int, batch: int, lr: float
    ) -> tuple[Tensor, list[Tensor], list[float]]:
        """Inferred vectors (new, dim) from all images, the optimised ones after each epoch, and the
        mean loss of each epoch."""
        members = torch.isin(self.labels, self.unseen).nonzero().flatten()
        z, labels = self.embeddings.train[members], self.labels[members]
        inferred = self.head.infer(z, labels, self.unseen, True)
        target = torch.searchsorted(self.unseen, labels) + len(self.seen)
        frozen = self.head.scores(z, self.trained)
        optimizer = _Optimizer(self.start(seed, 1)[0], lr)
        order = torch.Generator().manual_seed(derive("incremental batches", seed) % 2**63)
        after, means = [], []
        for _ in range(epochs):
            total = 0.0
            for part in torch.randperm(len(z), generator=order).split(batch):
                new = self.head.scores(z[part], optimizer.unit())
                scores = torch.cat([frozen[part], new], 1)
                loss = F.cross_entropy(scores, target[part])
                optimizer.step(loss)
                total += loss.item() * len(part)
            after.append(optimizer.unit().detach())
            means.append(total / len(z))
        return inferred, after, means

    def accuracies(self, vectors: Tensor) -> dict[str, float]:
        scores = self.head.scores(self.embeddings.test, vectors)
        return self.test.accuracies(torch.cat([self.seen_test, scores], 1))

    def record(
        self,
        found: dict[str, float | list[float]],
        name: str,
        inferred: Tensor,
        optimized: Tensor,
        losses: list[Tensor],
    ) -> None:
        """One number per draw."""
        found[f"{name}/cosine"] = F.cosine_similarity(inferred, optimized, dim=-1).mean(1).tolist()
        found[f"{name}/loss"], found[f"{name}/loss_before"] = (each.tolist() for each in losses)
        for kind, drawn in (("inferred", inferred), ("optimized", optimized)):
            each = [self.accuracies(vectors) for vectors in drawn]
            for group in each[0]:
                found[f"{name}/{kind}/{group}"] = [accuracies[group] for accuracies in each]

    def record_all(
        self,
        found: dict[str, float | list[float]],
        inferred: Tensor,
        after: list[Tensor],
        losses: list[float],
    ) -> None:
        found["all/cosine"] = F.cosine_similarity(inferred, after[-1], dim=-1).mean().item()
        found["all/loss"], found["all/loss_before"] = losses[-1], losses[max(len(losses) - 2, 0)]
        before, curve = self.accuracies(inferred), [self.accuracies(v) for v in after]
        for group, value in before.items():
            found[f"all/inferred/{group}"] = value
            found[f"all/optimized/{group}"] = curve[-1][group]
            for epoch, accuracies in enumerate(curve, 1):
                # An accuracy of nothing right has no ratio; 0 / 0 neither.
                ratio = accuracies[group] / value if value else float("nan")
                found[f"all/ratio@{epoch}/{group}"] = ratio


class _Optimizer:
    """Adam on class vectors of unit length: the loss sees them normalised, and they are put back
    after every step.

    Without the former the gradient would have a part along the vector, which Adam, scaling each
    coordinate by itself, turns into a turn: its steps would not end at the minimum.
    """

    def __init__(self, vectors: Tensor, lr: float) -> None:
        self.vectors = vectors.clone().requires_grad_()
        # Keras' base optimiser, as in the trainings (eps 1e-7).
        self.adam = torch.optim.Adam([self.vectors], lr=lr, eps=1e-7)

    def unit(self) -> Tensor:
        return F.normalize(self.vectors, dim=-1)

    def step(self, loss: Tensor) -> None:
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        with torch.no_grad():
            self.vectors.copy_(F.normalize(self.vectors, dim=-1))
