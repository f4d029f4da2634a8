"""Imprinting from augmented examples: the examples of plain imprinting, each seen several times."""

import pytest
import torch
from torch.nn import functional as F

from hypersphere.config import Evaluation, compose, split_config
from hypersphere.config.data import Augmentation
from hypersphere.data.load import load, load_files
from hypersphere.data.splits import support
from hypersphere.errors import UserError
from hypersphere.evaluation import imprinting, imprinting_augmented
from hypersphere.execute import run_node
from hypersphere.store import Store
from hypersphere.training.pictures import as_seen, augmented
from hypersphere.training.train import train
from hypersphere.training.trained import TrainedNetwork
from tests.test_files import VIEWS, birds, training  # noqa: F401  (a fixture)
from tests.test_tuning import composed

SHOTS, DRAWS = [1, 3], 2
BIRDS = ["data=birds", "split=base_novel", "split.num_base=3", "batches.size=5", *VIEWS,
         "backbone.filters=[4,4]", "backbone.dim=8"]  # fmt: skip
SHIFTED = {"crop_padding": 2, "flip": False}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A network trained on six classes of digits, without augmentation."""
    store, chosen = Store(tmp_path_factory.mktemp("runs")), composed()
    train(chosen, store, say=lambda _: None)
    return chosen, store


@pytest.fixture
def trained(base):
    return TrainedNetwork(base[0], base[1].folder(base[0].id))


def judged(trained, seed=0, **choices):
    split = trained.training.split()
    choices = {"shots": SHOTS, "draws": DRAWS, "augmentation": SHIFTED} | choices
    return imprinting_augmented(trained, split, seed, **choices)


def test_against_a_loop_over_single_images(trained):
    """Every crop cut by hand from where it was drawn, every version embedded alone."""
    from hypersphere.data.transforms import draw_crops
    from hypersphere.seeds import derive

    split, e, data = trained.training.split(), trained.embeddings, load("digits")
    found = judged(trained, versions=3)
    known = F.normalize(trained.head.class_vectors.detach(), dim=1)
    for draw in range(DRAWS):
        chosen = support(data.train_labels.numpy(), split.unseen, max(SHOTS), 0, draw)
        sums = {n: torch.zeros(len(split.unseen), e.test.shape[1]) for n in SHOTS}
        for version in range(3):
            seed = derive("augmented shots", 0, draw, version)
            crops = draw_crops(len(chosen), 2, False, torch.Generator().manual_seed(seed))
            for i, place in enumerate(chosen.tolist()):
                padded = F.pad(data.train_images[place], (2, 2, 2, 2))
                row, column = crops.rows[i], crops.columns[i]
                image = padded[:, row : row + 8, column : column + 8][None]
                unit = F.normalize(trained.embed(image), dim=1)[0]
                for n in SHOTS:
                    if i % max(SHOTS) < n:
                        sums[n][i // max(SHOTS)] += unit
        for j, n in enumerate(SHOTS):
            vectors = torch.cat([known, F.normalize(sums[n], dim=1)])
            predicted = (F.normalize(e.test, dim=1) @ vectors.T).argmax(1)
            own = torch.tensor([*split.seen, *split.unseen])[predicted] == e.test_labels
            novel = torch.isin(e.test_labels, torch.tensor(split.unseen))
            for name, part in (("all", own), ("novel", own[novel]), ("base", own[~novel])):
                expected = part.double().mean().item()
                # An image between two classes may fall to either: sums of one image alone and of
                # many at once are rounded differently on some processors.
                assert found[f"mean/{SHOTS[j]}/joint/{name}"][draw] == pytest.approx(
                    expected, abs=1.5 / len(part)
                )


def test_versions_that_change_nothing_give_plain_imprinting(trained, monkeypatch):
    """The same examples, draws and averages: rows can be paired."""
    from hypersphere.training import pictures

    monkeypatch.setattr(
        pictures, "draw_crops", lambda b, padding, flip, _: pictures_at_the_centre(b, padding)
    )
    split = trained.training.split()
    choices = {"shots": SHOTS, "draws": DRAWS}
    plain = imprinting(trained.head, trained.embeddings, split, 0, **choices, rules=["mean"])
    found = judged(trained)
    assert found.keys() == plain.keys() - {"one_shot"}
    for name, values in found.items():
        assert values == pytest.approx(plain[name], abs=3e-3), name


def pictures_at_the_centre(b, padding):
    from hypersphere.data.transforms import Crops

    middle = torch.full((b,), padding)
    return Crops(middle, middle, None)


def test_versions_are_drawn_by_seed_draw_and_version(trained):
    first, place = trained.training, torch.tensor([5, 9, 5])

    def versions(*seeds):
        how = Augmentation(**SHIFTED)
        return torch.cat(list(augmented(first, place, 4, seeds, how))).unflatten(0, (4, 3))

    found = versions("x", 0, 0)
    assert found.shape == (4, 3, 1, 8, 8) and found.dtype == torch.uint8
    assert torch.equal(found, versions("x", 0, 0))
    assert not torch.equal(found, versions("x", 0, 1)) and not torch.equal(
        found, versions("x", 1, 0)
    )
    assert len({version.numpy().tobytes() for version in found}) > 1
    judged_once = judged(trained)
    assert judged(trained) == judged_once and judged(trained, 1) != judged_once


def test_one_evaluation_per_choice_and_only_the_examples_are_embedded(base, monkeypatch):
    chosen, store = base
    seen = []
    embed = TrainedNetwork.embed_batches
    monkeypatch.setattr(
        TrainedNetwork,
        "embed_batches",
        lambda self, batches: embed(self, (seen.append(len(b)) or b for b in batches)),
    )
    word = "evaluations.imprinting_augmented"
    words = ["evaluations=imprinting_augmented", f"{word}.shots=[1,3]", f"{word}.draws=2",
             f"{word}.augmentation={{crop_padding: 1, flip: true}}", "split=base_novel",
             "split.num_base=6"]  # fmt: skip
    component = split_config(compose(words))[1]["imprinting_augmented"]
    record = run_node(Evaluation(component, chosen), store, lambda _: None)
    assert sum(seen) == 2 * 5 * 3 * 4  # draws, versions, shots, classes
    assert len(record["metrics"]["mean/3/joint/novel"]) == 2 and record["parent"] == chosen.id
    again = split_config(compose([*words, f"+{word}.versions=2"]))[1]["imprinting_augmented"]
    assert Evaluation(again, chosen).id != record["run_id"]


def test_what_cannot_be_augmented(trained, base):
    with pytest.raises(ValueError, match="nothing is random .*crop_padding"):
        judged(trained, augmentation=None)
    with pytest.raises(ValueError, match="has 1[0-9][0-9] examples, 500 shots are asked"):
        judged(trained, shots=[500])
    few = judged(trained, shots=[500], draws=1, versions=1, or_fewer=True)
    assert 0 <= few["mean/500/joint/all"][0] <= 1
    words = ["evaluations=imprinting_augmented"]
    component = split_config(compose([*words, "split=base_novel", "split.num_base=6"]))[1]
    node = Evaluation(component["imprinting_augmented"], base[0])
    with pytest.raises(UserError, match="imprinting_augmented of digits, run .*nothing is random"):
        run_node(node, base[1], lambda _: None)


# Image files


def test_files_are_cut_as_in_training(birds):  # noqa: F811
    chosen, _ = training()
    places = torch.tensor([20, 3, 20])
    first = torch.cat(list(augmented(chosen, places, 2, ("x", 0)))).unflatten(0, (2, 3))
    assert first.shape == (2, 3, 3, 32, 32) and first.dtype == torch.uint8
    assert torch.equal(first[:, 0], first[:, 2])  # the same image at the same time
    assert not torch.equal(first[0], first[1])
    file = load_files("birds").train.paths[3]
    from hypersphere.training.files import base_of

    views = chosen.data.views
    decoded = base_of(views, "random").decode(file)
    windows = decoded.unfold(1, 32, 1).unfold(2, 32, 1)  # (3, rows, columns, 32, 32)
    both = torch.cat([windows, windows.flip(-1)], 1).flatten(1, 2)
    for version in first[:, 1]:  # one of all crops, mirrored or not
        assert (both == version[:, None]).flatten(2).all(2).all(0).any()
    with pytest.raises(ValueError, match="leave the evaluation's augmentation null"):
        list(augmented(chosen, places, 1, ("x",), Augmentation(**SHIFTED)))
    still, _ = training("data.views.train=center", "data.views.flip=false")
    with pytest.raises(ValueError, match="views.train=center, no flip"):
        list(augmented(still, places, 1, ("x",)))


@pytest.mark.parametrize("memory", [0, 1])
def test_a_network_of_files_is_judged(birds, monkeypatch, memory):  # noqa: F811
    monkeypatch.setenv("HYPERSPHERE_DECODED_GB", str(memory))
    monkeypatch.setenv("HYPERSPHERE_WORKERS", "0")
    word = "evaluations.imprinting_augmented"
    words = ["evaluations=imprinting_augmented", f"{word}.shots=[1,2]", f"{word}.draws=2"]
    own = [*BIRDS, "schedule.epochs=1", "head=cosine"]
    chosen, evaluations = split_config(compose([*own, *words]))
    store = Store()
    train(chosen, store, say=lambda _: None)
    node = Evaluation(evaluations["imprinting_augmented"], chosen)
    found = run_node(node, store, lambda _: None)["metrics"]
    network = TrainedNetwork(chosen, store.folder(chosen.id))
    place = torch.from_numpy(support(network.embeddings.train_labels.numpy(), [3], 2, 0, 1))
    views = augmented(chosen, place, 5, ("augmented shots", 0, 1))
    z = F.normalize(network.embed(torch.cat(list(views))), dim=1).mean(0)
    known = F.normalize(network.head.class_vectors.detach(), dim=1)
    vectors = torch.cat([known, F.normalize(z, dim=0)[None]])
    predicted = (F.normalize(network.embeddings.test, dim=1) @ vectors.T).argmax(1)
    right = (predicted == network.embeddings.test_labels).double().mean().item()
    assert found["mean/2/joint/all"][1] == pytest.approx(right)


def test_images_as_the_network_sees_them(birds, trained):  # noqa: F811
    from hypersphere.training.files import FileImages

    chosen, _ = training()
    seen = torch.cat(list(FileImages(chosen).everything()["test"][0]))
    some = as_seen(chosen, "test", torch.tensor([4, 0]))
    assert torch.equal(torch.stack(some), seen[[4, 0]])
    digits = as_seen(trained.training, "train", torch.tensor([7]))
    assert torch.equal(digits[0], load("digits").train_images[7])
