"""Pictures of a run whose files are here: test embeddings, and cosines between class vectors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from hypersphere.config import Training

POINTS = 2000  # test embeddings in a scatter plot
INCHES = 4.5


def pictures(training: Training, folder: Path) -> Iterator[tuple[str, Figure]]:
    """(name, figure) of a training whose files lie in `folder`; nothing where they do not.

    `embeddings`: test images, in two or three dimensions as they are, else on their first two
    principal axes. `class_vectors`: cosines (classes, classes) of heads that have them.
    """
    from hypersphere.evaluation.embeddings import Embeddings
    from hypersphere.store import EMBEDDINGS, MODEL
    from hypersphere.training.train import load_network

    if not all((folder / name).exists() for name in (EMBEDDINGS, MODEL)):
        return
    embeddings = Embeddings.read(folder / EMBEDDINGS)
    step = max(len(embeddings.test) // POINTS, 1)
    yield (
        "embeddings",
        _scatter(embeddings.test[::step].numpy(), embeddings.test_labels[::step].numpy()),
    )
    vectors = getattr(load_network(training, folder).head, "class_vectors", None)
    if vectors is not None:
        yield "class_vectors", _cosines(vectors.detach().float().numpy())


def _scatter(points: np.ndarray, labels: np.ndarray) -> Figure:
    points = points.astype(np.float64)
    axes = "embedding"
    if points.shape[1] == 1:
        points = np.column_stack([points, np.zeros(len(points))])
    elif points.shape[1] > 3:
        centred = points - points.mean(axis=0)
        points = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
        axes = "principal axis"
    figure = Figure((INCHES, INCHES), layout="constrained")
    flat = points.shape[1] == 2
    axis = figure.add_subplot(projection=None if flat else "3d")
    axis.scatter(*points.T, c=labels, cmap="turbo", s=3)
    axis.set_xlabel(f"{axes} 1")
    axis.set_ylabel(f"{axes} 2")
    axis.set_title(f"{len(points)} test images, by class", fontsize=9)
    return figure


def _cosines(vectors: np.ndarray) -> Figure:
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    figure = Figure((INCHES, INCHES), layout="constrained")
    axis = figure.add_subplot()
    shown = axis.imshow(unit @ unit.T, vmin=-1, vmax=1, cmap="RdBu_r")
    axis.set_title("cosines between class vectors", fontsize=9)
    figure.colorbar(shown, shrink=0.8)
    return figure
