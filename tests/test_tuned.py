"""The variant `tuned` of tables 1-4 has what the supplement chose."""

import csv

import pytest

from hypersphere import paths
from hypersphere.papers.spec import paper

SUPPLEMENT = paths.published_dir().parent / "small" / "tables" / "nsl" / "supplement.csv"


def best_settings(method):
    """What the best rows select (all that are equally good)."""
    with SUPPLEMENT.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["setting"].startswith(method)]
    assert len(rows) == {"triplet": 5, "contrastive": 4}[method]
    best = max(float(row["ours"]) for row in rows)
    select = paper("nsl").item("supplement").select["setting"]
    return [select[row["setting"]] for row in rows if float(row["ours"]) == best]


@pytest.mark.parametrize("method", ["triplet", "contrastive"])
@pytest.mark.parametrize("table", ["table1", "table2", "table3", "table4"])
def test_tuned_baselines_are_the_best_of_the_supplement(table, method):
    tuned = paper("nsl").item(table).variants["tuned"].select["method"][method]
    assert tuned in paper("nsl").item("supplement").select["setting"].values()
    assert tuned in best_settings(method)


def test_the_supplement_reads_no_test_image_and_no_split_of_the_tables():
    item = paper("nsl").item("supplement")
    assert item.metric.startswith("held_out_classes/")
    for preset, own in item.presets.items():
        assert not {*own.seeds} & {*paper("nsl").about.presets[preset].seeds}
