"""Every test has its own runs and results; nothing of the user's is read or written."""

import pytest
import torch

from hypersphere.config import Training, compose, split_config
from hypersphere.data.fetching import transfer
from hypersphere.store import Store
from tests import miniatures
from tests.publisher import Site
from tests.toy import toy  # noqa: F401 (a fixture)


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("HYPERSPHERE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("HYPERSPHERE_RESULTS", str(tmp_path / "results"))
    torch.set_num_threads(1)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs")


@pytest.fixture
def other(tmp_path):
    """A second store, which knows nothing of the first."""
    return Store(tmp_path / "other runs")


@pytest.fixture
def small():
    """Builds a checked training of a fraction of a second, with further overrides if given."""

    def build(*overrides: str) -> Training:
        training, _ = split_config(compose(["paper=nsl", "schedule.epochs=2", *overrides]))
        return training

    return build


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The place of an empty data folder; downloads go to this machine and wait for nobody."""
    monkeypatch.setenv("HYPERSPHERE_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("HYPERSPHERE_MIRROR", raising=False)
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(variable, "127.0.0.1,localhost")
    monkeypatch.setattr(transfer, "BACKOFF", 0.01)
    monkeypatch.setattr(transfer, "TIMEOUT", 5.0)
    return tmp_path / "data"


@pytest.fixture
def site(data):
    """A server on this machine (publisher.py)."""
    site = Site()
    yield site
    site.close()


@pytest.fixture
def shelf(site, data, monkeypatch, capsys):
    """The data folder with the server and the command line (miniatures.py)."""
    miniatures.forget()
    yield miniatures.Shelf(site, data, monkeypatch, capsys)
    miniatures.forget()


@pytest.fixture
def cifar10(shelf):
    return miniatures.publish_cifar10(shelf)


@pytest.fixture
def tiny(shelf):
    return miniatures.publish_tiny_imagenet(shelf)


@pytest.fixture
def cub(shelf):
    return miniatures.publish_cub(shelf)
