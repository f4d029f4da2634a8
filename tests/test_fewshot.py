"""Few-shot accuracies of embeddings against plain loops, and of a run."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from hypersphere.data.splits import Split
from hypersphere.evaluation import imprinting, novel_classes
from hypersphere.evaluation.embeddings import Embeddings
from hypersphere.evaluation.fewshot import evaluate
from hypersphere.evaluation.fewshot.queries import first_best
from hypersphere.heads import NormalizedSoftmax, Triplet
from hypersphere.seeds import generator
from tests.points import BASE, DIM, NOVEL, clusters, module, points, unit

SHOTS, DRAWS = [1, 3, 5], 4


@pytest.fixture
def data():
    return points()


def loop(data, base, novel, shots, draws, seed=0, rule="mean"):
    """One query, one setting at a time, in float64."""
    train, test = [[unit(v) for v in data[k].astype(np.float64)] for k in ("embeddings", "test")]
    y, test_y = data["labels"], data["test_labels"]
    names = ("all", "base", "novel", "harmonic", "balanced")
    found = {f"joint/{n}": np.zeros((len(shots), draws)) for n in names}
    found |= {f"disjoint/{n}": np.zeros((len(shots), draws)) for n in ("base", "novel", "balanced")}
    means = {c: [unit(sum(z for z, k in zip(train, y) if k == c))] for c in base}
    for i, n in enumerate(shots):
        for draw in range(draws):
            vectors = dict(means)
            for c in novel:
                members = [z for z, k in zip(train, y) if k == c]
                order = generator("shots", seed, draw, c).permutation(len(members))[:n]
                chosen = [members[j] for j in order]
                vectors[c] = [unit(sum(chosen))] if rule == "mean" else chosen

            def predict(z, classes, vectors=vectors):
                fit = {k: max(float(z @ v) for v in vectors[k]) for k in classes}
                return max(fit, key=fit.get)

            joint, disjoint = {}, {}
            for c in [*base, *novel]:
                own = [z for z, k in zip(test, test_y) if k == c]
                group = base if c in base else novel
                joint[c] = [predict(z, [*base, *novel]) == c for z in own]
                disjoint[c] = [predict(z, group) == c for z in own]

            def share(hits, classes):
                return np.mean([hit for c in classes for hit in hits[c]])

            b, v = share(joint, base), share(joint, novel)
            found["joint/all"][i, draw] = share(joint, [*base, *novel])
            found["joint/base"][i, draw], found["joint/novel"][i, draw] = b, v
            found["joint/harmonic"][i, draw] = 2 * b * v / (b + v)
            found["joint/balanced"][i, draw] = np.mean([np.mean(h) for h in joint.values()])
            found["disjoint/base"][i, draw] = share(disjoint, base)
            found["disjoint/novel"][i, draw] = share(disjoint, novel)
            found["disjoint/balanced"][i, draw] = np.mean([np.mean(disjoint[c]) for c in novel])
    return found


@pytest.mark.parametrize("rule", ["mean", "nearest"])
def test_every_number_is_that_of_a_plain_loop(data, rule):
    found = evaluate(**data, base=BASE, novel=NOVEL, shots=SHOTS, draws=DRAWS, rule=rule)
    slow = loop(data, BASE, NOVEL, SHOTS, DRAWS, rule=rule)
    assert found.values.keys() == slow.keys()
    for name, values in slow.items():
        np.testing.assert_allclose(found.values[name], values, atol=1e-12, err_msg=name)
        assert 0.2 < values.mean() < 0.999  # neither hopeless nor saturated: it could differ
    np.testing.assert_allclose(found.mean("joint/all"), slow["joint/all"].mean(1))
    np.testing.assert_allclose(found.std("joint/all"), slow["joint/all"].std(1, ddof=1))


@pytest.fixture
def adding(monkeypatch):
    """Means by adding up cosines, however little that saves."""
    monkeypatch.setattr(module("scores"), "ADDING", 0)


def test_added_cosines_are_those_with_the_mean(adding, data, monkeypatch):
    draws = 12  # so many that their examples repeat
    found = evaluate(**data, base=BASE, novel=NOVEL, shots=SHOTS, draws=draws)
    for name, values in loop(data, BASE, NOVEL, SHOTS, draws).items():
        np.testing.assert_allclose(found.values[name], values, atol=1e-12, err_msg=name)
    g = torch.Generator().manual_seed(0)
    points = torch.nn.functional.normalize(torch.randn(40, DIM, generator=g), dim=1)
    chosen = torch.stack([torch.randperm(40, generator=g)[:15].view(3, 5) for _ in range(draws)])
    chosen[:, 1, 2:] = -1  # a class of two examples
    chosen[:, 2, 4] = -1
    added = module("scores").by_mean(points, chosen, SHOTS)
    monkeypatch.setattr(module("scores"), "ADDING", 10**6)
    vectors = module("scores").by_mean(points, chosen, SHOTS)
    table = added.prepare(points)
    assert table.shape == (40 + 1, 40) and vectors.prepare(points) is points
    for one, other in zip(added.scores, vectors.scores, strict=True):
        torch.testing.assert_close(one(table), other(points), rtol=0, atol=1e-6)
        assert one(table).shape == (len(SHOTS), 3, 40)


def test_draws_go_in_parts(data, monkeypatch):
    whole = evaluate(**data, base=BASE, novel=NOVEL, shots=SHOTS, draws=5)
    monkeypatch.setattr(module("few_shot"), "VECTORS", 3 * DIM * 2 * len(SHOTS) * 2)
    parts = evaluate(**data, base=BASE, novel=NOVEL, shots=SHOTS, draws=5)
    for name in whole.values:
        np.testing.assert_array_equal(parts.values[name], whole.values[name])
    np.testing.assert_array_equal(parts.examples, whole.examples)


def test_many_queries_go_in_parts(data, monkeypatch):
    whole = evaluate(**data, base=BASE, novel=NOVEL, shots=SHOTS, draws=2)
    for name, size in (("BLOCK", 7), ("SCORES", 20 * len(NOVEL) * len(SHOTS))):
        monkeypatch.setattr(module("queries"), name, size)
        parts = evaluate(**data, base=BASE, novel=NOVEL, shots=SHOTS, draws=2)
        for values in whole.values:
            np.testing.assert_array_equal(parts.values[values], whole.values[values])
        monkeypatch.undo()


def test_the_draws_and_accuracies_are_those_of_the_papers_evaluation(data):
    head = NormalizedSoftmax(DIM, len(BASE), scale=16.0).requires_grad_(False)
    as_tensors = {k: torch.from_numpy(v) for k, v in data.items()}
    e = Embeddings(
        as_tensors["embeddings"].float(), as_tensors["labels"],
        as_tensors["test"].float(), as_tensors["test_labels"],
    )  # fmt: skip
    theirs = novel_classes(head, e, Split(tuple(BASE), tuple(NOVEL)), 5, shots=SHOTS, draws=DRAWS)
    ours = evaluate(
        **as_tensors, base=BASE, novel=NOVEL, shots=SHOTS, draws=DRAWS, seed=5,
        base_vectors=head.class_vectors,
    )  # fmt: skip
    for i, n in enumerate(SHOTS):
        for name, key in (
            ("joint/all", "joint/all"), ("joint/base", "joint/seen"),
            ("joint/novel", "joint/unseen"), ("disjoint/novel", "disjoint/unseen"),
        ):  # fmt: skip
            assert ours.values[name][i].tolist() == theirs[f"{n}/renormalized/{key}"]


def test_draws_are_nested_and_do_not_depend_on_what_else_is_asked(data):
    alone = evaluate(**data, base=BASE, novel=NOVEL, shots=[3], draws=2)
    fewer = evaluate(**data, base=BASE[:2], novel=NOVEL, shots=SHOTS, draws=DRAWS)
    many = evaluate(**data, base=BASE, novel=NOVEL, shots=SHOTS, draws=DRAWS)
    assert many.values["joint/all"][1, :2].tolist() == alone.values["joint/all"][0].tolist()
    name = "disjoint/novel"
    assert fewer.values[name].tolist() == many.values[name].tolist()


def test_without_base_classes_there_is_the_disjoint_setting_alone(data):
    found = evaluate(**data, base=[], novel=NOVEL, shots=SHOTS, draws=DRAWS)
    both = evaluate(**data, base=BASE, novel=NOVEL, shots=SHOTS, draws=DRAWS)
    assert found.values.keys() == {"disjoint/novel", "disjoint/balanced"}
    np.testing.assert_array_equal(found.values["disjoint/novel"], both.values["disjoint/novel"])


def test_labels_may_be_texts_and_other_classes_are_left_out(data):
    texts = {
        k: np.array([f"class {y}" for y in v]) if "labels" in k else v for k, v in data.items()
    }
    found = evaluate(**texts, base=["class 0", "class 3"], novel=["class 5", "class 1"], shots=[2])
    assert found.values["joint/all"].shape == (1, 5)
    few = np.isin(data["labels"], [0, 3, 5, 1])
    some = data | {"embeddings": data["embeddings"][few], "labels": data["labels"][few]}
    kept = evaluate(**some, base=[0, 3], novel=[5, 1], shots=[2])
    whole = evaluate(**data, base=[0, 3], novel=[5, 1], shots=[2])
    assert kept.values["joint/all"].tolist() == whole.values["joint/all"].tolist()


def test_a_share_of_each_class_is_held_out_where_no_test_set_is_given():
    z, y = clusters(3)
    found = evaluate(z, y, BASE, NOVEL, shots=[1, 2], draws=3, test_share=0.4)
    again = evaluate(z, y, BASE, NOVEL, shots=[1, 2], draws=3, test_share=0.4)
    assert found.values["joint/all"].tolist() == again.values["joint/all"].tolist()
    # An image that were both example and query would be recognised with certainty.
    noise = np.random.default_rng(0).standard_normal(z.shape)
    chance = evaluate(noise, y, BASE, NOVEL, shots=[1, 2], draws=20)
    assert chance.mean("joint/all").max() < 0.3


def test_a_collapsed_network_is_right_for_one_class_alone():
    """All scores are equal: `own >= best` would call everything right."""
    y = np.arange(70) % 7
    found = evaluate(np.ones((70, 4)), y, BASE, NOVEL, shots=[1, 2], draws=2)
    for name, expected in {
        "joint/all": 1 / 7, "joint/base": 1 / 4, "joint/novel": 0, "joint/harmonic": 0,
        "joint/balanced": 1 / 7, "disjoint/novel": 1 / 3, "disjoint/base": 1 / 4,
    }.items():  # fmt: skip
        np.testing.assert_allclose(found.values[name], expected, err_msg=name)


def test_ties_go_to_the_first_class_as_in_argmax():
    g = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 3, (4, 6, 50), generator=g).float()
    own = torch.randint(0, 6, (50,), generator=g)
    expected = scores.argmax(1) == own
    hit, mine = first_best(scores.clone(), own)
    assert torch.equal(hit, expected) and 0 < expected.float().mean() < 1
    assert torch.equal(mine, scores[:, own, torch.arange(50)])


def test_classes_of_few_images_give_all_they_have(data):
    keep = np.concatenate(
        [np.flatnonzero(data["labels"] != 5), np.flatnonzero(data["labels"] == 5)[:2]]
    )
    few = data | {"embeddings": data["embeddings"][keep], "labels": data["labels"][keep]}
    with pytest.raises(ValueError, match="novel class 5 has 2 examples, 5 shots are asked"):
        evaluate(**few, base=BASE, novel=NOVEL, shots=[5])
    for rule in ("mean", "nearest"):
        five, two = (
            evaluate(**few, base=[], novel=[5, 2], shots=[n], or_fewer=True, rule=rule)
            for n in (5, 2)
        )
        assert np.isfinite(five.values["disjoint/novel"]).all()
        # Were class 5 empty or full of zeros, no query of it would be right.
        assert five.mean("disjoint/balanced")[0] > 0.5 < two.mean("disjoint/balanced")[0]


def bad(change):
    (train, train_y), (test, test_y) = clusters(1), clusters(2, 90)
    given = {"embeddings": train, "labels": train_y, "test": test, "test_labels": test_y,
             "base": BASE, "novel": NOVEL, "shots": [1], "draws": 1}  # fmt: skip
    return given | change


def with_row(value):
    z = clusters(1)[0]
    z[17] = value
    return z


@pytest.mark.parametrize(
    "change, message",
    [
        ({"embeddings": np.zeros(5)}, r"embeddings: needs shape \(n, dim\), got \(5,\)"),
        ({"embeddings": np.array([["a"]])}, "embeddings: needs numbers"),
        ({"embeddings": with_row(np.nan)}, "embeddings: row 17 is not finite"),
        ({"embeddings": with_row(0)}, "embeddings: row 17 is all 0"),
        ({"labels": np.arange(3)}, "labels: 3 of them for 140 embeddings"),
        ({"labels": np.zeros(140)}, "labels: needs one integer or text per embedding, got float64"),
        ({"test": None}, "test and test_labels: both or neither"),
        ({"test": np.ones((90, 3))}, "test: 3 dimensions, the embeddings have 8"),
        ({"novel": []}, "novel: names no class"),
        ({"novel": [1, 77]}, "no embedding of class 77"),
        ({"novel": [0, 1]}, "a class is named twice"),
        ({"base": ["a"], "novel": ["b"]}, "base and novel: classes are <U1, the labels int64"),
        ({"shots": [5, 1]}, r"shots=\[5, 1\]: needs rising numbers"),
        ({"shots": [0]}, "needs rising numbers from 1 up"),
        ({"shots": [500]}, "novel class 1 has .* examples, 500 shots are asked"),
        ({"draws": 0}, "draws=0: needs at least 1"),
        ({"rule": "best"}, "rule='best': mean or nearest"),
        ({"base_vectors": np.ones((3, 8))}, r"base_vectors: needs shape \(4, 8\), got \(3, 8\)"),
        ({"test": None, "test_labels": None, "test_share": 1.5}, "test_share=1.5"),
    ],
)
def test_bad_input_gets_one_message(change, message):
    with pytest.raises(ValueError, match=message) as raised:
        evaluate(**bad(change))
    assert "\n" not in str(raised.value)


def test_lengths_of_embeddings_do_not_matter(data):
    scaled = data | {
        "embeddings": data["embeddings"] * np.geomspace(1e-30, 1e30, 140)[:, None],
        "test": data["test"] * 1e-25,
    }
    found, same = (
        evaluate(**d, base=BASE, novel=NOVEL, shots=SHOTS, draws=2) for d in (scaled, data)
    )
    for name in same.values:
        np.testing.assert_array_equal(found.values[name], same.values[name])


def test_the_package_itself_does_not_bring_torch():
    code = (
        "import sys, hypersphere; assert 'torch' not in sys.modules;"
        "from hypersphere import episodes, evaluate, open_set, retrieval;"
        "assert 'torch' in sys.modules and callable(evaluate)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# The evaluation of a run


def of_run(data, head, **asked):
    e = Embeddings(
        *(torch.from_numpy(data[k]) for k in ("embeddings", "labels", "test", "test_labels"))
    )
    with torch.no_grad():
        return imprinting(head, e, Split(tuple(BASE), tuple(NOVEL)), 5, **asked)


def test_imprinting_of_a_run(data):
    head = NormalizedSoftmax(DIM, len(BASE), scale=16.0)
    found = of_run(data, head, shots=[5, 1], draws=3, rules=["mean", "nearest", "random"])
    given = {**data, "base": BASE, "novel": NOVEL, "base_vectors": head.class_vectors}
    for rule in ("mean", "nearest"):
        few = evaluate(**given, shots=[1, 5], draws=3, seed=5, rule=rule)
        for i, n in enumerate((1, 5)):
            for name, values in few.values.items():
                assert found[f"{rule}/{n}/{name}"] == values[i].tolist()
    assert found["mean/1/joint/all"] == found["nearest/1/joint/all"]
    assert found["mean/5/joint/all"] != found["nearest/5/joint/all"]
    one = found["one_shot"]
    assert one["classes"].tolist() == NOVEL and one["examples"].shape == (3, 3)
    assert (data["labels"][one["examples"]] == np.array(NOVEL)).all()
    for draw in range(3):
        for scenario, among in (("joint", BASE + NOVEL), ("disjoint", NOVEL)):
            vectors = {c: unit(head.class_vectors[i].detach().numpy()) for i, c in enumerate(BASE)}
            vectors |= {
                c: unit(data["embeddings"][i]) for c, i in zip(NOVEL, one["examples"][draw])
            }
            for j, c in enumerate(NOVEL):
                own = data["test"][data["test_labels"] == c]
                right = [among[np.argmax([z @ vectors[k] for k in among])] == c for z in own]
                assert one[f"recall_{scenario}"][draw, j] == pytest.approx(np.mean(right))


def test_random_class_vectors_differ_by_draw_and_attract_few(data):
    """Base classes by their means: trained ones of an untrained head would be random as well."""
    head = Triplet(DIM, len(BASE), margin=1.0, squared=False, mining="all")
    found = of_run(data, head, shots=[1], draws=6, rules=["random", "mean"])
    assert len(set(found["random/joint/novel"])) > 1 and "random/1/joint/novel" not in found
    assert np.mean(found["random/joint/base"]) > 0.4
    assert np.mean(found["random/disjoint/novel"]) < 0.6 < np.mean(found["mean/1/disjoint/novel"])
    assert found["mean/1/disjoint/base"] == found["random/disjoint/base"][:6]
