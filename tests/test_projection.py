"""Word vectors in fewer dimensions: PCA by hand, and the authors' files."""

import os
from pathlib import Path

import numpy as np
import pytest

from hypersphere.data.semantics import project, read_vectors

RNG = np.random.default_rng(0)


def cosine_distances(vectors) -> tuple[float, float, float]:
    """(min, mean, max) over all pairs, as in HPN's table 2."""
    unit = np.asarray(vectors, dtype=np.float64)
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    distances = 1 - (unit @ unit.T)[np.triu_indices(len(unit), 1)]
    return distances.min(), distances.mean(), distances.max()


def test_projection_is_onto_the_first_eigenvectors_of_the_covariance():
    x = RNG.normal(size=(12, 30)) + 5
    axes = np.linalg.eigh(np.cov(x.T))[1][:, ::-1]  # eigh sorts upwards
    for dim in (1, 3, 11):
        expected = (x - x.mean(axis=0)) @ axes[:, :dim]
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        ours = project(x, dim)
        assert ours.dtype == np.float32 and ours.shape == (12, dim)
        np.testing.assert_allclose(ours @ ours.T, expected @ expected.T, atol=2e-6)
        np.testing.assert_allclose(np.abs(ours), np.abs(expected), atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-6)


def test_projection_to_full_rank_keeps_the_angles_of_the_centred_vectors():
    x = RNG.normal(size=(10, 30))
    for dim in (9, 10):
        np.testing.assert_allclose(
            cosine_distances(project(x, dim)), cosine_distances(x - x.mean(0)), atol=1e-6
        )
    assert not project(x, 10)[:, 9].any()  # centring leaves 9 dimensions: exact zeros, no noise
    assert project(x, 9).all()


def test_signs_depend_neither_on_the_order_of_the_classes_nor_on_a_shift():
    x = RNG.normal(size=(10, 30))
    order = RNG.permutation(10)
    np.testing.assert_allclose(project(x[order], 5), project(x, 5)[order], atol=1e-5)
    np.testing.assert_allclose(project(x + 3, 5), project(x, 5), atol=1e-5)


@pytest.mark.parametrize("dim", [0, -1, 11])
def test_projection_to_too_many_dimensions(dim):
    with pytest.raises(ValueError, match=rf"\(10, 30\) vectors have 1 .. 10 dimensions, not {dim}"):
        project(RNG.normal(size=(10, 30)), dim)
    with pytest.raises(ValueError, match="1 .. 4 dimensions, not 5"):
        project(RNG.normal(size=(10, 4)), 5)


def test_a_class_at_the_mean_has_no_direction():
    x = RNG.normal(size=(4, 7))
    with pytest.raises(ValueError, match="class 4 lies at the mean of all in 2 dimensions"):
        project(np.vstack([x, x.mean(0)]), 2)
    with pytest.raises(ValueError, match="mean of all"):
        project(np.ones((4, 7)), 2)


# The released files


@pytest.fixture
def released() -> Path:
    folder = os.environ.get("HYPERSPHERE_HPN_PROTOTYPES")
    if not folder:
        pytest.skip("HYPERSPHERE_HPN_PROTOTYPES (the folder of HPN's released files) is not set")
    return Path(folder)


@pytest.mark.parametrize(
    "name, distances, norms",
    [
        ("sem/cifar100-100d-100c.npy", (0.2605, 1.0097, 1.3237), (11.6, 31.6)),
        ("sgd/prototypes-100d-100c.npy", (0.954, 1.0097, 1.3945), (1, 1)),
        ("simplex/prototypes-100d-100c.npy", (1, 1, 1), (1, 1)),
    ],
)
def test_released_files_have_the_distances_of_table_2(released, name, distances, norms):
    vectors = read_vectors(released / name, [f"class {i}" for i in range(100)]).vectors
    assert vectors.shape == (100, 100)
    assert cosine_distances(vectors) == pytest.approx(
        distances, abs=5e-4 if "sgd" in name else 5e-5
    )
    length = np.linalg.norm(vectors, axis=1)
    assert (length.min(), length.max()) == pytest.approx(norms, abs=0.05)


@pytest.mark.parametrize("dim", [10, 25, 50])
def test_released_word_vectors_are_centred_pca(released, dim):
    names = [f"class {i}" for i in range(100)]
    full = read_vectors(released / "sem/cifar100-100d-100c.npy", names).vectors
    theirs = read_vectors(released / f"sem/cifar100-{dim}d-100c.npy", names).vectors
    theirs = theirs / np.linalg.norm(theirs, axis=1, keepdims=True)
    np.testing.assert_allclose(np.abs(project(full, dim)), np.abs(theirs), atol=1e-5)
