"""Notebooks read results only: their cells run on the committed records, outputs are stripped."""

import json

import matplotlib
import pytest
import torch

from hypersphere import paths

matplotlib.use("Agg")
NOTEBOOKS = sorted((paths.root() / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_run(path, monkeypatch):
    monkeypatch.delenv("HYPERSPHERE_RESULTS")
    names: dict = {}
    cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    assert cells and all(cell["outputs"] == [] for cell in cells)
    for cell in cells:
        exec("".join(cell["source"]), names)
    assert len(names["records"]) > 70
    if path.stem == "hpn":
        # ten points on the sphere: at most 66.1468 degrees apart (Sloane's tables)
        assert 62 < names["angles"]["published"] < names["angles"]["optimal"] < 66.1469
        found = names["separations"]
        assert (found["bound"] <= found["optimal"] + 1e-6).all()
        assert (found["optimal"] <= found["published"] + 1e-6).all()
        assert names["table2"].loc[("", "one_hot")].tolist() == [1.0, 1.0, 1.0]
        return
    if path.stem == "fixed-vectors":
        # the positive part of integers from -100 to 99, and e / (e + 199 / e)
        assert names["ceilings"][4608].mean() == pytest.approx(0.7018, abs=0.003)
        assert names["bounds"].loc[1, 200] == pytest.approx(0.0358, abs=5e-5)
        return
    if path.stem == "imprinting":
        assert names["imprinted"].norm(dim=1).tolist() == pytest.approx([1.0] * 4, abs=1e-6)
        torch.testing.assert_close(names["imprinted"], names["one_by_one"].class_vectors.detach())
        noise = names["noise"]  # one example is its own mean; the mean of many is the better one
        assert noise["mean"][1] == noise["nearest"][1] and noise["mean"][20] > noise["nearest"][20]
        return
    assert len(names["runs"]) >= 15
    if path.stem == "nsl":
        assert names["confusion"].sum() == 10_000
    else:  # 5,000 of the 10,000 test images
        found = names["records"][names["run_id"]]["metrics"]["angle/gaps"]
        assert names["gaps"].std() == pytest.approx(found, abs=1)
