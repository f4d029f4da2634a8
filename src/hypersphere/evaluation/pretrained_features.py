"""New classes by the features of a pretrained network, before any training of ours."""

from __future__ import annotations

from hypersphere.data.splits import Split
from hypersphere.evaluation.fewshot import evaluate
from hypersphere.evaluation.imprinting import Positive
from hypersphere.evaluation.novel import Findings
from hypersphere.training.trained import TrainedNetwork


def pretrained_features(
    trained: TrainedNetwork,
    split: Split,
    seed: int,
    *,
    shots: list[Positive],
    draws: Positive,
    or_fewer: bool = False,
) -> Findings:
    """Test accuracy of `imprinting`'s rule `mean` in the features that the run's backbone started
    from: its pretrained weights without the linear layer on top, nothing trained. What base
    training and tuning are worth shows beside it; not in the paper.

    Seen classes are judged by the unit means of all their training features, unseen ones by those
    of the examples of `imprinting` with the same shots and draws. Images are shown as the network
    sees them when it is tested.

    Keys are `mean/<shots>/<name>`, each a list over the draws, with the names of `FewShot`. Raises
    ValueError when the backbone started from no pretrained weights or the split has no unseen
    class, UserError when the weights are not here.
    """
    if not split.unseen:
        raise ValueError("there are no unseen classes: choose split=base_novel")
    features = trained.pretrained_features()
    few = evaluate(
        features.train, features.train_labels, test=features.test, test_labels=features.test_labels,
        base=split.seen, novel=split.unseen, shots=sorted(shots), draws=draws, seed=seed,
        or_fewer=or_fewer,
    )  # fmt: skip
    return {
        f"mean/{n}/{name}": values[i].tolist()
        for i, n in enumerate(few.shots)
        for name, values in few.values.items()
    }


pretrained_features.needs_unseen = True  # type: ignore[attr-defined]
pretrained_features.reads_images = True  # type: ignore[attr-defined]
