"""Every test has its own runs and results; nothing of the user's is read or written."""

import pytest
import torch

from hypersphere.config import Training, compose, split_config


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("HYPERSPHERE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("HYPERSPHERE_RESULTS", str(tmp_path / "results"))
    torch.set_num_threads(1)


@pytest.fixture
def small():
    """Builds a checked training of a fraction of a second, with further overrides if given."""

    def build(*overrides: str) -> Training:
        training, _ = split_config(compose(["paper=nsl", "schedule.epochs=2", *overrides]))
        return training

    return build
