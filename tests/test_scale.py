"""What measures scale measures, and the pages about it and speed say what was measured."""

import importlib
import json
import re
from collections import Counter

import pytest

from hypersphere import losses, paths
from hypersphere.data import load
from hypersphere.training import files

pytestmark = pytest.mark.skipif(not paths.in_checkout(), reason="scripts/ is part of a checkout")
DOCS = paths.root() / "docs"


@pytest.fixture
def bench(monkeypatch):
    """A module of scripts/benches by its name."""
    monkeypatch.syspath_prepend(paths.root() / "scripts")
    return lambda name: importlib.import_module(f"benches.{name}")


def measured_file():
    text = (DOCS / "scale.md").read_text()
    (name,) = set(word.split(")")[0] for word in text.split("(../results/bench/")[1:])
    return paths.root() / "results" / "bench" / name


def test_the_page_says_what_was_measured(bench):
    text = (DOCS / "scale.md").read_text()
    assert bench("scale_page").page(text, measured_file()) == text
    assert (DOCS / "scale.png").stat().st_size > 10_000


def test_the_page_about_speed_says_what_was_measured_on_each_processor(bench):
    speed = bench("speed_page")
    text = speed.PAGE.read_text()
    assert speed.page(text) == text
    files = [speed.MEASURED / f"{name}.json" for name in re.findall(r"<!-- (\S+):begin", text)]
    titles = {title for file in files for title in json.loads(file.read_text())["lines"]}
    assert all(any(title.startswith(begins) for title in titles) for begins, _, _ in speed.TARGETS)


def test_the_picture_is_drawn_from_the_file(bench, tmp_path):
    bench("scale_page").draw(measured_file(), tmp_path / "scale.png")
    assert (tmp_path / "scale.png").stat().st_size > 10_000


def test_what_is_on_paper_follows_the_largest_size(bench):
    page = bench("scale_page")
    *_, last, guess = page.tables(measured_file())["images"]
    assert guess["images"] == 579_184 > last["images"]
    for key in page.EXTRAPOLATED:
        assert guess[key] / last[key] == pytest.approx(579_184 / last["images"])
    assert "579,184 (on paper)" in (DOCS / "scale.md").read_text()


@pytest.mark.parametrize("whole", [False, True])
def test_a_step_of_the_head_is_measured_with_and_without_parts(bench, monkeypatch, whole):
    monkeypatch.setattr(losses, "WHOLE", 128 * 40)
    found = bench("scale").head_step(50, 8, whole)
    assert found["logits"] == ("all at once" if whole else "in parts")
    assert found["seconds"] > 0 and found["predict_500_seconds"] > 0


def test_the_other_measures_of_small_sizes(bench):
    found = bench("scale").new_classes(20)
    assert found["classes"] == 20 and found["infer_seconds"] > 0 and found["few_shot_seconds"] > 0
    found = bench("scale").placement(60)
    assert 0 < found["largest_cosine"] < 0.2 and found["optimal_seconds"] > 0


def test_image_files_are_gone_through_with_and_without_keeping_them(bench, monkeypatch):
    monkeypatch.setenv("HYPERSPHERE_DATA", "elsewhere")  # both are set by the measuring
    monkeypatch.setenv("HYPERSPHERE_DECODED_GB", "1")
    monkeypatch.setattr(load, "check_files", load.check_files)
    scale_files, work, during = bench("scale_files"), Counter(), []
    decode, content, seconds = files.Base.decode, load.file_content, scale_files.seconds

    def counted(name, function):
        def call(*given):
            work[name] += 1
            return function(*given)

        return call

    def timed(once, turns):
        work.clear()
        taken = seconds(once, turns)
        during.append((work["hashed"], work["decoded"]))
        return taken

    monkeypatch.setattr(files.Base, "decode", counted("decoded", decode))
    monkeypatch.setattr(load, "file_content", counted("hashed", content))
    monkeypatch.setattr(scale_files, "seconds", timed)
    found = scale_files.measure(60)
    # what each time is of: the first use, later ones, decoding each image, none, a large one
    assert during == [(1, 0), (0, 0), (0, 60), (0, 0), (0, 10)]
    assert found["images"] == 60 and found["megabytes_on_disk"] > 0.3
    measured = ("listed_seconds", "hashed_seconds", "streamed_images_per_second")
    assert all(found[name] > 0 for name in (*measured, "kept_images_per_second"))
