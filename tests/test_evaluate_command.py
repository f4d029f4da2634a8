"""`hypersphere evaluate` on files: the functions' numbers, and one line for each mistake."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hypersphere.cli import main
from hypersphere.evaluation.embeddings import Embeddings
from hypersphere.evaluation.fewshot import episodes, evaluate, open_set, retrieval


@pytest.fixture
def folder(tmp_path, monkeypatch):
    g = np.random.default_rng(0)
    centres = g.standard_normal((6, 5))
    for name in ("", "test_"):
        y = np.arange(90) % 6
        np.save(tmp_path / f"{name}z.npy", centres[y] + g.standard_normal((90, 5)))
        np.save(tmp_path / f"{name}y.npy", y)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def arrays(test=False):
    given = {"embeddings": np.load("z.npy"), "labels": np.load("y.npy")}
    return given | (
        {"test": np.load("test_z.npy"), "test_labels": np.load("test_y.npy")} if test else {}
    )


def run(capsys, words):
    assert main(["evaluate", *words.split()]) == 0
    return capsys.readouterr().out


def test_json_holds_what_the_functions_give(folder, capsys):
    words = "z.npy --labels y.npy --test test_z.npy --test-labels test_y.npy --base 0-2,5"
    found = json.loads(run(capsys, f"{words} --draws 3 --seed 4 --ways 2 --queries 3 --json"))
    chosen = {"base": [0, 1, 2, 5], "novel": [3, 4], "seed": 4}
    assert (found["base"], found["novel"]) == (chosen["base"], chosen["novel"])
    few = evaluate(**arrays(test=True), **chosen, shots=[1, 5], draws=3)
    assert found["few_shot"] == json.loads(json.dumps(few.summary()))
    assert found["open_set"] == pytest.approx(open_set(**arrays(test=True), **chosen))
    z, y = np.load("test_z.npy"), np.load("test_y.npy")
    assert found["retrieval"] == retrieval(z[np.isin(y, [3, 4])], y[np.isin(y, [3, 4])])
    played = episodes(z, y, [3, 4], ways=2, shots=5, queries=3, seed=4)
    assert found["episodes"]["5"] == {"ways": 2, "mean": played.mean, "interval": played.interval}


def test_a_table_for_people(folder, capsys):
    text = run(
        capsys, "z.npy --labels y.npy --base 0-3 --shots 1,2,5 --ways 2 --queries 3 --episodes 20"
    )
    few = evaluate(**arrays(), base=range(4), novel=[4, 5], shots=[1, 2, 5])
    assert f"{few.mean('joint/all')[2]:.4f} ± {few.std('joint/all')[2]:.4f}" in text
    for word in (
        "4 base and 2 new classes",
        "mean and deviation of 5 draws",
        "2-way 5-shot",
        "oscr",
        "map@r",
    ):
        assert word in text
    alone = run(capsys, "z.npy --labels y.npy --draws 1 --shots 2")
    assert (
        "0 base and 6 new" in alone
        and "joint/all" not in alone
        and "auroc" not in alone
        and "±" not in alone
    )


def test_safetensors_also_as_a_run_leaves_them_and_in_half_precision(folder, capsys):
    given = {k: torch.from_numpy(v) for k, v in arrays(test=True).items()}
    save_file(
        given | {"embeddings": given["embeddings"].bfloat16(), "other": torch.ones(1)},
        "all.safetensors",
    )
    Embeddings(
        given["embeddings"].bfloat16().float(),
        given["labels"],
        given["test"].float(),
        given["test_labels"],
    ).save(folder / "embeddings.safetensors")
    one, other = (
        json.loads(run(capsys, f"{name} --base 0-3 --json"))
        for name in ("all.safetensors", "embeddings.safetensors")
    )
    assert one == other and one["few_shot"]["joint/all"]["1"]["mean"] > 0.3


def test_classes_by_name(folder, capsys):
    np.save("names.npy", np.array(list("abcdef"))[np.load("y.npy")])
    queries = "--test z.npy --test-labels"  # without them draws go by the labels, text or number
    named = f"z.npy --labels names.npy {queries} names.npy --base a,b,c --json"
    numbered = f"z.npy --labels y.npy {queries} y.npy --base 0-2 --json"
    named, numbered = (json.loads(run(capsys, each)) for each in (named, numbered))
    assert named["novel"] == ["d", "e", "f"]
    assert named["open_set"] == numbered["open_set"]


def test_one_impossible_measure_does_not_lose_the_others(folder, capsys):
    """One test image of each class: there is nothing to retrieve, and everything else stands."""
    y = np.load("test_y.npy")
    first = np.unique(y, return_index=True)[1]
    np.save("one_z.npy", np.load("test_z.npy")[first])
    np.save("one_y.npy", y[first])
    words = "z.npy --labels y.npy --base 0-2 --test one_z.npy --test-labels one_y.npy"
    why = "no query has an image of its class in the gallery"
    assert f"none: {why}" in run(capsys, words)
    found = json.loads(run(capsys, f"{words} --json"))
    assert found["retrieval"] is None and found["no_retrieval"] == why
    assert found["few_shot"]["joint/all"]["1"]["mean"] >= 0 and found["open_set"]["auroc"] >= 0


@pytest.mark.parametrize(
    "words, message",
    [
        ("missing.npy --labels y.npy", "missing.npy: there is no such file"),
        ("z.npy", "z.npy: its classes are missing: --labels LABELS.npy"),
        ("z.npy --labels z.npy", "labels: needs one integer or text per embedding"),
        ("z.npy --labels text.txt", "text.txt: needs a .npy file"),
        ("broken.npy --labels y.npy", "broken.npy: cannot be read as .npy"),
        ("broken.safetensors", "broken.safetensors: cannot be read as safetensors"),
        ("odd.safetensors", "odd.safetensors: has no tensor `embeddings` (nor `train`) but x"),
        ("z.npy --labels y.npy --base 3-1", "--base 3-1: needs a class or a range such as 0-99"),
        ("z.npy --labels y.npy --novel cat", "--novel cat: needs a class or a range"),
        ("z.npy --labels y.npy --novel 0-9", "z.npy: no embedding of class 6, 7, 8, 9"),
        ("z.npy --labels names.npy --base cats", "--base cats: no such class; did you mean 'cat'?"),
        ("z.npy --labels y.npy --shots one", "--shots one: needs whole numbers such as 1,5,20"),
        ("z.npy --labels y.npy --shots 50", "novel class 0 has 7 examples, 50 shots are asked"),
        ("z.npy --labels y.npy --test z.npy", "test and test_labels: both or neither"),
        ("z.npy --labels y.npy --ways 9", "ways=9: there are 6 classes"),
    ],
)  # fmt: skip
def test_one_line_for_each_mistake(folder, capsys, words, message):
    (folder / "broken.npy").write_bytes(b"no array")
    (folder / "broken.safetensors").write_bytes(b"no tensors")
    save_file({"x": torch.ones(1)}, "odd.safetensors")
    np.save("names.npy", np.array(["cat", "dog"])[np.load("y.npy") % 2])
    assert main(["evaluate", *words.split()]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    assert "hypersphere evaluate z.npy --labels y.npy --base 0-99" in capsys.readouterr().out
