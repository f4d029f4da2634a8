"""Novel classes against a slow float64 re-implementation, and its corner cases."""

import math

import numpy as np
import pytest
import torch

from hypersphere.data.splits import Split
from hypersphere.evaluation import novel_classes
from hypersphere.evaluation.embeddings import Embeddings
from hypersphere.heads import Contrastive, NormalizedSoftmax, Triplet
from hypersphere.seeds import generator

DIM, SPLIT, SEED = 6, Split((0, 2, 3, 5), (1, 4)), 7
SHOTS, DRAWS = [1, 3], 4
HEADS = {
    "nsl": lambda: NormalizedSoftmax(DIM, 4, scale=16.0),
    "triplet": lambda: Triplet(DIM, 4, margin=1.0, squared=False, mining="semihard"),
    "contrastive": lambda: Contrastive(DIM, 4, margin=1.0, pairs="all"),
}


def random_embeddings(seed=0, signal=1.2, n=96, classes=6):
    g = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, DIM, generator=g)
    train_y, test_y = torch.arange(n) % classes, torch.arange(n // 2) % classes
    train = centres[train_y] * signal + torch.randn(n, DIM, generator=g)
    test = centres[test_y] * signal + torch.randn(n // 2, DIM, generator=g)
    return Embeddings(train * 3, train_y, test * 5, test_y)


def judge(head, embeddings, split=SPLIT, seed=SEED, shots=SHOTS, draws=DRAWS):
    with torch.inference_mode():
        return novel_classes(head, embeddings, split, seed, shots=shots, draws=draws)


def numbers(found):
    return {key: value for key, value in found.items() if not isinstance(value, dict)}


def slow(head, e, split, seed, shots, draws):
    """Every number by Python loops over float64 lists; class vectors, scores and shots restated."""

    def unit(v):
        length = math.sqrt(math.fsum(x * x for x in v))
        return [x / length for x in v]

    train = [unit(z) for z in e.train.double().tolist()]
    test = [unit(z) for z in e.test.double().tolist()]
    train_y, test_y = e.train_labels.tolist(), e.test_labels.tolist()

    def mean(indices, renormalize):
        rows = [train[i] for i in indices]
        average = [math.fsum(column) / len(indices) for column in zip(*rows, strict=True)]
        return unit(average) if renormalize else average

    def members(c):
        return [i for i, y in enumerate(train_y) if y == c]

    def score(z, v):
        if head.classifies:
            return math.fsum(a * b for a, b in zip(z, v, strict=True))
        return -math.fsum((a - b) ** 2 for a, b in zip(z, v, strict=True))

    def share(hits):
        return sum(hits) / len(hits)

    def accuracies(chosen, weights, matrix=None):
        renormalize = weights != "raw"
        if weights == "inferred" or not head.classifies:
            vectors = {c: mean(members(c), renormalize) for c in split.seen}
        else:
            trained = head.class_vectors.double().tolist()
            vectors = {c: unit(w) for c, w in zip(split.seen, trained, strict=True)}
        novel = {c: mean(chosen[c], renormalize) for c in split.unseen}
        every = {**vectors, **novel}
        disjoint, joint = [], {"seen": [], "unseen": [], "all": []}
        for z, y in zip(test, test_y, strict=True):
            guess = max(every, key=lambda c: score(z, every[c]))
            if matrix is not None:
                matrix[y][guess] += 1
            joint["all"].append(guess == y)
            joint["unseen" if y in novel else "seen"].append(guess == y)
            if y in novel:
                disjoint.append(max(novel, key=lambda c: score(z, novel[c])) == y)
        shares = {f"joint/{group}": share(hits) for group, hits in joint.items()}
        return {"disjoint/unseen": share(disjoint), **shares}

    def draw(n, i):
        chosen = {}
        for c in split.unseen:
            order = generator("shots", seed, i, c).permutation(len(members(c)))
            chosen[c] = [members(c)[j] for j in order[:n]]
        return chosen

    result, confusion = {}, {}
    for weights in ("renormalized", "raw", "inferred"):
        matrix = confusion[weights] = [[0] * 6 for _ in range(6)]
        every_image = {c: members(c) for c in split.unseen}
        for key, value in accuracies(every_image, weights, matrix).items():
            result[f"all/{weights}/{key}"] = value
        for n in shots:
            runs = [accuracies(draw(n, i), weights) for i in range(draws)]
            for key in runs[0]:
                result[f"{n}/{weights}/{key}"] = [run[key] for run in runs]
    result["trained/cosine_to_mean"] = share(
        [
            math.fsum(a * b for a, b in zip(unit(w), mean(members(c), True), strict=True))
            if head.classifies
            else 1.0
            for c, w in zip(
                split.seen,
                head.class_vectors.double().tolist() if head.classifies else split.seen,
                strict=True,
            )
        ]
    )
    return result, confusion


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("data_seed", [0, 1])
def test_against_loops(name, data_seed):
    torch.manual_seed(5)
    head, embeddings = HEADS[name](), random_embeddings(data_seed)
    found = judge(head, embeddings)
    expected, confusion = slow(head, embeddings, SPLIT, SEED, SHOTS, DRAWS)
    got = numbers(found)
    assert got.keys() == expected.keys()
    assert len(got) == 1 + 3 * 3 * 4  # shots (all, 1, 3) x weights x groups
    assert {k: v.tolist() for k, v in found["joint_confusion"].items()} == confusion
    for key, value in expected.items():
        # Accuracies are counts and agree exactly; a cosine is float32.
        within = 1e-6 if key == "trained/cosine_to_mean" else 1e-12
        assert got[key] == pytest.approx(value, abs=within), key
    assert all(len(v) == DRAWS for k, v in got.items() if k[0].isdigit())
    # A test that could not fail would be one where everything is right or wrong.
    assert 0 < got["all/renormalized/joint/all"] < 1


@pytest.mark.parametrize("name", HEADS)
def test_perfect_separation_gives_one(name):
    head = HEADS[name]()
    y = torch.arange(60) % 6
    z = torch.eye(6)[y] * torch.linspace(0.5, 20, 60)[:, None]
    if head.classifies:
        with torch.no_grad():
            head.class_vectors.copy_(torch.eye(6)[list(SPLIT.seen)])
    found = judge(head, Embeddings(z, y, z[:30], y[:30]))
    assert numbers(found).pop("trained/cosine_to_mean") == pytest.approx(1.0, abs=1e-6)
    accuracies = [v for k, v in numbers(found).items() if not k.startswith("trained/")]
    assert all(np.all(np.array(value) == 1.0) for value in accuracies)
    for matrix in found["joint_confusion"].values():
        assert np.array_equal(matrix, 5 * np.eye(6))


def test_swapped_classes_give_zero():
    head = HEADS["nsl"]()
    with torch.no_grad():
        head.class_vectors.copy_(torch.eye(6)[[2, 0, 5, 3]])  # not the order of SPLIT.seen
    y = torch.arange(60) % 6
    metrics = judge(head, Embeddings(torch.eye(6)[y], y, torch.eye(6)[y], y))
    assert metrics["all/raw/joint/seen"] == 0.0
    assert metrics["all/raw/joint/unseen"] == 1.0


def test_raw_and_renormalized_differ_in_joint():
    # Raw means of spread-out embeddings are short, so unseen classes lose in joint scenarios of
    # the cosine classifier whose own vectors are unit length.
    head, embeddings = HEADS["nsl"](), random_embeddings(3, signal=0.6)
    with torch.no_grad():
        for row, c in enumerate(SPLIT.seen):
            head.class_vectors[row] = embeddings.train[embeddings.train_labels == c].mean(0)
    metrics = judge(head, embeddings)
    assert metrics["all/raw/joint/unseen"] < metrics["all/renormalized/joint/unseen"]
    assert metrics["all/raw/joint/seen"] > metrics["all/renormalized/joint/seen"]


def test_shots_come_from_the_seed_and_not_the_head():
    embeddings = random_embeddings()
    first, again, other = (
        numbers(judge(HEADS["triplet"](), embeddings, seed=s)) for s in (1, 1, 2)
    )
    assert first == again
    assert first["1/raw/joint/all"] != other["1/raw/joint/all"]
    assert first["all/raw/joint/all"] == other["all/raw/joint/all"]


def test_fewer_draws_are_the_first_of_more():
    embeddings = random_embeddings()
    few, many = (judge(HEADS["triplet"](), embeddings, draws=n) for n in (2, 5))
    assert many["3/renormalized/joint/all"][:2] == few["3/renormalized/joint/all"]


def test_more_shots_than_images():
    with pytest.raises(ValueError, match="class 1 has 16 training images, 17 shots asked"):
        judge(HEADS["nsl"](), random_embeddings(), shots=[1, 17])


def test_a_class_without_training_images():
    e = random_embeddings()
    keep = e.train_labels != 4
    lacking = Embeddings(e.train[keep], e.train_labels[keep], e.test, e.test_labels)
    with pytest.raises(ValueError, match=r"no example of class \[4\]"):
        judge(HEADS["nsl"](), lacking, shots=[])


def test_a_split_without_unseen_classes_is_refused():
    head = NormalizedSoftmax(DIM, 6, scale=16.0)
    with pytest.raises(ValueError, match="unseen"):
        judge(head, random_embeddings(), Split(tuple(range(6)), ()))


def test_embeddings_survive_their_file(tmp_path):
    e = random_embeddings()
    e.save(tmp_path / "e.safetensors")
    again = Embeddings.read(tmp_path / "e.safetensors")
    for name in ("train", "train_labels", "test", "test_labels"):
        assert torch.equal(getattr(again, name), getattr(e, name))
