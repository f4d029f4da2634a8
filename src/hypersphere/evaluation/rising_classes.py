"""Accuracy where the test images of the classes are as uneven as the training images."""

from __future__ import annotations

import torch

from hypersphere.data.splits import Split
from hypersphere.evaluation.embeddings import Embeddings
from hypersphere.evaluation.novel import Findings
from hypersphere.heads import Head


def rising_classes(head: Head, embeddings: Embeddings, split: Split, seed: int) -> Findings:
    """Test accuracy by the head's own logits, for test images that rise with the label (Mettes et
    al. 2019, table 4, "2 to 200", where the k-th of K classes has 2 k training images):

    * `accuracy`: expected where the k-th class has k test images: the mean over classes of their
      accuracies, weighted by k. No images are drawn: all of them give the same with less noise;
    * `balanced`: the mean over classes.

    Raises ValueError for a head that does not classify.
    """
    if not head.classifies:
        raise ValueError("evaluations.rising_classes needs a head that classifies")
    seen = torch.tensor(split.seen)
    tested = torch.isin(embeddings.test_labels, seen).nonzero().flatten()
    labels = torch.searchsorted(seen, embeddings.test_labels[tested])
    correct = (head.classify(embeddings.test[tested]) == labels).double()
    counts = labels.bincount(minlength=len(seen))
    accuracy = torch.zeros(len(seen), dtype=torch.double).index_add_(0, labels, correct) / counts
    weights = torch.arange(1, len(seen) + 1).double()
    return {
        "accuracy": ((weights * accuracy).sum() / weights.sum()).item(),
        "balanced": accuracy.mean().item(),
    }
