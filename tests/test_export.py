"""`store export` and `load_model`: a trained run handed on gives the same logits elsewhere."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import hypersphere
from hypersphere import cli
from hypersphere.config import compose, split_config
from hypersphere.data.load import load
from hypersphere.errors import UserError
from hypersphere.execute import run_node
from hypersphere.store import Store
from hypersphere.training.train import train
from hypersphere.training.trained import TrainedNetwork

SMALL = ("paper=nsl", "schedule.epochs=1", "backbone.filters=[4,4]", "backbone.dim=8")
TUNE = ("split=base_novel", "split.num_base=6", "optimizer=rmsprop", "optimizer.lr=0.01",
        "head=cosine")  # fmt: skip


def trained(*words, store=None):
    training, judges = split_config(compose([*SMALL, *words]))
    store = store or Store()
    train(training, store, say=lambda line: None)
    return training, judges, store


def export(run, *words):
    """The exit status of `hypersphere store export`."""
    return cli.main(["store", "export", run, *map(str, words)])


def exported(training, tmp_path):
    assert export(training.id[:8], "--to", tmp_path / "out") == 0
    return tmp_path / "out"


def images(name="digits"):
    return load(name).test_images[:60]


def logits_of_the_run(training, store, pixels):
    network = TrainedNetwork(training, store.folder(training.id))
    with torch.inference_mode():  # as `embed` runs
        logits = network.head.logits(network.embed(pixels))
    return logits.clone()


def check_logits(training, store, folder, pixels):
    model = hypersphere.load_model(folder)
    assert not model.training
    expected = logits_of_the_run(training, store, pixels)
    with torch.inference_mode():
        assert torch.equal(model(pixels), expected)
    return model


HEADS = {
    "normalised softmax": (),
    "scale per class, bf16": ("head=cosine", "head.learn_scale=per_class", "precision=bf16"),
    "fixed random vectors": ("head=random_vectors", "head.scale=8.0"),
    "softmax with bias": ("head=softmax", "split=all_classes", "evaluations=none"),
    "prototypes": ("head=prototypes", "head.steps=20", "split=all_classes", "evaluations=none"),
    "optimal prototypes": ("head=prototypes", "head.placement=optimal", "split=all_classes",
                           "evaluations=none"),
    "centers": ("head=center", "data.size=12"),
    "class means": ("head=deep_ncm",),
    "targets": ("head=regression",),
    "joint": ("data=rotated_digits", "data.target=angle", "head=joint", "head.steps=20"),
}  # fmt: skip


@pytest.mark.parametrize("words", HEADS.values(), ids=list(HEADS))
def test_an_exported_run_gives_the_same_logits(words, tmp_path):
    training, _, store = trained(*words)
    folder = exported(training, tmp_path)
    model = check_logits(training, store, folder, images(training.data.name))
    assert model.labels == training.split().seen and len(model.classes) == model.head.num_classes
    files = sorted(path.name for path in folder.iterdir())
    assert files == ["README.md", "config.json", "model.safetensors"]


def test_prototypes_of_a_file_need_no_file_afterwards(tmp_path, monkeypatch):
    data = tmp_path / "data"
    data.mkdir()
    points = np.random.default_rng(0).standard_normal((10, 8)).astype(np.float32)
    np.save(data / "mine.npy", points)
    monkeypatch.setenv("HYPERSPHERE_DATA", str(data))
    import hashlib

    digest = hashlib.sha256((data / "mine.npy").read_bytes()).hexdigest()
    training, _, store = trained(
        "head=prototypes", "head.placement=file", "head.file=mine.npy", f"head.sha256={digest}",
        "split=all_classes", "evaluations=none",
    )  # fmt: skip
    expected = logits_of_the_run(training, store, images())
    folder = exported(training, tmp_path)
    shutil.rmtree(data)
    with torch.inference_mode():
        model = hypersphere.load_model(folder)
        assert torch.equal(model(images()), expected)
    unit = torch.nn.functional.normalize(torch.from_numpy(points), dim=1)
    assert torch.allclose(model.head.class_vectors, unit, atol=1e-6)


def test_a_tuned_run_with_imprinted_classes(tmp_path):
    base, _, store = trained(*TUNE, "evaluations=none")
    words = ("split.trained=all", "data.shots={number: 3}", f"initial={base.id}",
             "new_classes=imprinted", "evaluations=none")  # fmt: skip
    tuned, _, _ = trained(*TUNE, *words, store=store)
    folder = exported(tuned, tmp_path)
    model = check_logits(tuned, store, folder, images())
    assert model.config["parent"] == base.id and model.labels == tuple(range(10))
    assert f"started from run `{base.id}`" in (folder / "README.md").read_text()


def test_a_loaded_model_can_be_imprinted_and_trained_further(tmp_path):
    training, _, _ = trained(*TUNE, "evaluations=none")
    model = hypersphere.load_model(exported(training, tmp_path))
    digits = load("digits")
    new = digits.train_labels == 7
    with torch.no_grad():
        model.head.imprint(model.embed(digits.train_images[new]), torch.full((int(new.sum()),), 6))
    assert model(images()).shape == (60, 7)
    model.head.loss(model.embed(images()[:4]), torch.tensor([0, 1, 2, 6])).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_loaded_model_names_the_classes_that_are_imprinted(tmp_path):
    training, _, _ = trained(*TUNE, "evaluations=none")
    model = hypersphere.load_model(exported(training, tmp_path))
    pixels, known = images(), len(model.classes)
    model.imprint(pixels[:3], ["heron", "stork", "heron"])
    model.imprint(pixels[3:4], ["stork"])
    assert model.classes[known:] == ("heron", "stork") and len(model.labels) == known + 2
    assert len(set(model.labels)) == known + 2
    names = [model.classes[k] for k in model(pixels[:4]).argmax(1)]
    assert len(names) == 4
    with pytest.raises(ValueError, match="1 names for 2 images"):
        model.imprint(pixels[:2], ["heron"])
    with pytest.raises(ValueError, match="class 0 was trained"):
        model.imprint(pixels[:1], [model.classes[0]])
    assert len(model.classes) == known + 2


def test_an_imprinted_model_is_kept_with_its_names(tmp_path):
    training, _, _ = trained(*TUNE, "evaluations=none")
    model = hypersphere.load_model(exported(training, tmp_path))
    pixels, known = images(), len(model.classes)
    model.imprint(pixels[:3], ["heron", "stork", "heron"])
    folder = model.save(tmp_path / "kept")
    kept = hypersphere.load_model(folder)
    assert kept.classes == model.classes and kept.labels == model.labels
    assert torch.equal(kept(pixels), model(pixels)) and kept(pixels).shape == (60, known + 2)
    # further examples count as if all had been there at once, and further classes may follow
    for each in (kept, model):
        each.imprint(pixels[3:6], ["stork", "crane", "heron"])
    assert torch.equal(kept(pixels), model(pixels)) and kept.classes[known:][-1] == "crane"
    again = hypersphere.load_model(kept.save(tmp_path / "again"))
    assert again.classes[known:] == ("heron", "stork", "crane")
    assert torch.equal(again(pixels), model(pixels))
    card = (tmp_path / "again" / "README.md").read_text()
    assert training.id in card and "Classes imprinted: heron, stork, crane." in card
    with pytest.raises(UserError, match="is there already; name a new folder"):
        model.save(folder)


def test_a_head_without_logits_says_what_to_do_instead(tmp_path):
    training, _, store = trained("head=triplet")
    model = hypersphere.load_model(exported(training, tmp_path))
    with torch.inference_mode():
        found = TrainedNetwork(training, store.folder(training.id)).embed(images())
        assert torch.equal(model.embed(images()), found)
    with pytest.raises(ValueError, match="Triplet has no logits: use embed"):
        model(images())


def test_the_card_and_the_config_hold_the_records_numbers(tmp_path):
    training, judges, store = trained()
    from hypersphere.config import Evaluation

    for component in judges.values():
        run_node(Evaluation(component, training), store)
    folder = exported(training, tmp_path)
    record, card = store.get(training.id), (folder / "README.md").read_text()
    config = json.loads((folder / "config.json").read_text())
    assert config["numbers"]["training"] == record["metrics"]
    assert set(config["numbers"]) == {"training", *judges}
    assert f"| training | loss | {record['metrics']['loss']:.4f} |" in card
    for expected in (training.id, record["data"]["content"], record["files"]["model.safetensors"],
                     "normalized_softmax (scale 16.0)", "(n = 10)", "library_name: hypersphere"):  # fmt: skip
        assert str(expected) in card
    assert not {"nsl", "paper"} & set(card.lower().replace("`", " ").split())


def test_a_fresh_process_without_store_and_data_loads_it(tmp_path):
    training, _, store = trained()
    folder = exported(training, tmp_path)
    pixels = images()
    save_file({"pixels": pixels}, tmp_path / "pixels.safetensors")
    code = """
import sys, torch, hypersphere
from safetensors.torch import load_file, save_file
torch.set_num_threads(1)
model = hypersphere.load_model(sys.argv[1])
with torch.inference_mode():
    save_file({"logits": model(load_file(sys.argv[2])["pixels"])}, sys.argv[3])
"""
    environment = os.environ | {
        "HYPERSPHERE_RUNS": str(tmp_path / "none"),
        "HYPERSPHERE_DATA": "/nowhere",
    }
    paths = [folder, tmp_path / "pixels.safetensors", tmp_path / "logits.safetensors"]
    subprocess.run(
        [sys.executable, "-c", code, *map(str, paths)], check=True, env=environment, cwd=tmp_path
    )
    assert not (tmp_path / "none").exists()
    assert torch.equal(load_file(paths[2])["logits"], logits_of_the_run(training, store, pixels))


# What is refused


def refused(capsys, *words):
    capsys.readouterr()
    assert export(*words) == 2
    return capsys.readouterr().err


def test_runs_that_cannot_be_exported(tmp_path, capsys):
    training, judges, store = trained()
    from hypersphere.config import Evaluation

    judge = Evaluation(next(iter(judges.values())), training)
    run_node(judge, store)
    there = ("--to", tmp_path / "x")
    wrong = training.id[:-1] + ("0" if training.id[-1] != "0" else "1")
    assert f"did you mean '{training.id}'" in refused(capsys, wrong, *there)
    assert "no such training" in refused(capsys, "", *there)
    assert f"is an evaluation of run {training.id}" in refused(capsys, judge.id, *there)
    other, _, _ = trained("seed=1")
    shared = os.path.commonprefix([training.id, other.id])
    if shared:  # two random ids seldom begin alike
        assert "2 trainings begin so" in refused(capsys, shared, *there)
    (store.folder(other.id) / "record.json").unlink()
    assert "is not finished" in refused(capsys, other.id, *there)
    assert not (tmp_path / "x").exists()


def test_an_ambiguous_beginning_names_the_runs(capsys, monkeypatch):
    store = Store()
    for run_id in ("abc0", "abc1"):
        store.records[run_id] = {"run_id": run_id, "kind": "training"}
    from hypersphere.store.export import find_training

    with pytest.raises(UserError, match="2 trainings begin so \\(abc0, abc1"):
        find_training("abc", store)
    assert find_training("abc1", store)["run_id"] == "abc1"


def test_nothing_is_overwritten(tmp_path, capsys):
    training, _, _ = trained()
    folder = exported(training, tmp_path)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert "is there already" in refused(capsys, training.id, "--to", folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    (tmp_path / "empty").mkdir()
    assert export(training.id, "--to", tmp_path / "empty") == 0
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".export")) == []


def test_weights_that_are_gone_or_are_others(tmp_path, capsys):
    training, _, store = trained()
    model = store.folder(training.id) / "model.safetensors"
    content = model.read_bytes()
    model.write_bytes(content[:-4] + bytes(4))
    assert "is not the file of the record" in refused(capsys, training.id, "--to", tmp_path / "x")
    model.unlink()
    assert "--retrain" in refused(capsys, training.id, "--to", tmp_path / "x")
    assert export(training.id, "--to", tmp_path / "x", "--retrain") == 0
    assert (tmp_path / "x" / "model.safetensors").read_bytes() == content


def test_folders_that_cannot_be_loaded(tmp_path):
    training, _, _ = trained()
    folder = exported(training, tmp_path)

    def changed(**changes):
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        config = json.loads((copy / "config.json").read_text()) | changes
        (copy / "config.json").write_text(json.dumps(config))
        return copy

    def says(copy, text):
        with pytest.raises(UserError, match=text):
            hypersphere.load_model(copy)

    says(tmp_path / "none", "holds no exported model")
    says(changed(format=99), "written by a newer hypersphere")
    says(changed(revisions={"backbone": 1, "head": 9}), "has revision 9")
    damaged = changed()
    (damaged / "model.safetensors").write_bytes(b"x")
    says(damaged, "damaged or exchanged")
    config = json.loads((folder / "config.json").read_text())
    foreign = config["training"] | {"head": {"_target_": "antigravity.Head", "name": "x"}}
    says(changed(training=foreign), "import antigravity")
    assert "antigravity" not in sys.modules  # the folder chose nothing that is imported
    function = config["training"] | {"head": {"_target_": "os.getcwd", "name": "x"}}
    says(changed(training=function), "is no Head")
    bare = changed()
    (bare / "model.safetensors").unlink()
    says(bare, "cannot be read")


def test_images_of_another_shape_or_type(tmp_path):
    training, _, _ = trained()
    model = hypersphere.load_model(exported(training, tmp_path))
    for wrong in (images().float(), images()[0], images().repeat(1, 3, 1, 1), images()[..., :6]):
        with pytest.raises(ValueError, match=r"expects images \(n, 1, 8, 8\) uint8, got"):
            model(wrong)
