"""Notebooks read results only: their cells run on the committed records, outputs are stripped."""

import json

import matplotlib
import pytest

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
    assert len(names["records"]) > 70 and len(names["runs"]) >= 15
    if path.stem == "nsl":
        assert names["confusion"].sum() == 10_000
    else:  # 5,000 of the 10,000 test images
        found = names["records"][names["run_id"]]["metrics"]["angle/gaps"]
        assert names["gaps"].std() == pytest.approx(found, abs=1)
