"""Other test images than a network's own: a second test set, or the own one corrupted."""

from __future__ import annotations

import torch

from hypersphere import losses
from hypersphere.data.facts import DATASETS
from hypersphere.data.splits import Split
from hypersphere.data.testsets import Corruption, evaluation_images
from hypersphere.evaluation.novel import Findings
from hypersphere.training.trained import TrainedNetwork


def test_images(
    trained: TrainedNetwork,
    split: Split,
    seed: int,
    *,
    data: str = "",
    corruption: Corruption | None = None,
) -> Findings:
    """`accuracy` and `cosine/predicted` (mean cosine with the vector of the predicted class) of a
    trained network on the test images of the trained classes of another dataset.

    data: its name, "" for the network's own; classes are matched by their names. corruption: of
    these images. Raises ValueError when classes or sizes do not fit, DataError when the images are
    not here.
    """
    name = data or trained.dataset_name
    facts, own = DATASETS[name], trained.dataset
    if not trained.head.classifies:
        raise ValueError("evaluations.test_images judges a head that classifies")
    places = _places(facts.classes, own.classes, facts.num_classes, name)
    if facts.size != own.size or facts.channels != own.channels:
        raise ValueError(
            f"the images of {name} are {facts.size} x {facts.size} with {facts.channels} channels,"
            f" the network's {own.size} x {own.size} with {own.channels}: bring them to that size"
        )
    chosen = None if corruption is None else Corruption.model_validate(corruption)
    images, labels = evaluation_images(name, chosen)
    labels = torch.tensor(places)[labels]
    seen = torch.tensor(split.seen)
    tested = torch.isin(labels, seen)
    z = trained.embed(images[tested])
    labels = torch.searchsorted(seen, labels[tested])
    predicted = trained.head.classify(z)
    vectors = trained.head.trained(z, labels, torch.arange(len(seen)), True)
    closeness = losses.cosine(z.double(), vectors.double()).gather(1, predicted[:, None])
    return {
        "accuracy": (predicted == labels).double().mean().item(),
        "cosine/predicted": closeness.mean().item(),
    }


test_images.reads_images = True  # type: ignore[attr-defined]
test_images.__test__ = False  # type: ignore[attr-defined]  # no test, whatever its name begins with


def _places(
    theirs: tuple[str, ...] | None, own: tuple[str, ...] | None, number: int, name: str
) -> list[int]:
    """For each label of the other dataset, the network's label of the class of that name."""
    if theirs is None or own is None or theirs == own:
        if own is not None and len(own) != number:
            raise ValueError(f"{name} has {number} classes, the network was trained on {len(own)}")
        return list(range(number))
    if strange := sorted(set(theirs) - set(own)):
        raise ValueError(f"{name} has classes that the network does not know: {strange[:5]}")
    return [own.index(each) for each in theirs]
