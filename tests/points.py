"""Made-up embeddings of classes, and what tests of few-shot measures share."""

import importlib

import numpy as np

DIM, BASE, NOVEL = 8, [0, 3, 4, 6], [1, 2, 5]


def clusters(seed, n=140, classes=7, noise=1.0):
    """Overlapping classes of unequal sizes."""
    g = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((classes, DIM))
    labels = np.concatenate([np.arange(classes).repeat(8), g.integers(0, classes, n - 8 * classes)])
    return (centres[labels] + noise * g.standard_normal((n, DIM))) * 5, labels


def points():
    """Two draws of them, as `evaluate` and `open_set` take them."""
    (train, train_y), (test, test_y) = clusters(1), clusters(2, 90)
    return {"embeddings": train, "labels": train_y, "test": test, "test_labels": test_y}


def module(name):
    """The functions of the package hide the modules of the same name."""
    return importlib.import_module(f"hypersphere.evaluation.fewshot.{name}")


def unit(v):
    return v / np.sqrt((v**2).sum())
