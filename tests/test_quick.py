"""Slow proofs on the whole command: a newcomer's run, killed runs, rivals, the wheel."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hypersphere import paths
from hypersphere.papers.plan import make_plan
from hypersphere.papers.spec import paper, paper_keys
from hypersphere.store import Store, read_lines

pytestmark = pytest.mark.slow

HYPERSPHERE = [sys.executable, "-m", "hypersphere.cli"]
TABLE2 = ["run", "--paper", "nsl", "--item", "table2", "--workers", "2"]


def run(*words, **environment):
    return subprocess.run(
        [*HYPERSPHERE, *words], capture_output=True, text=True, env={**os.environ, **environment}
    )


def tables(results: Path) -> dict[str, str]:
    return {str(f.relative_to(results)): f.read_text() for f in results.rglob("tables/**/*.*")}


def trainings() -> int:
    """How many table 2 has: 4 numbers of new classes, 3 splits, 3 methods and the tuned ones that
    are not among them."""
    return len(make_plan("quick", ["nsl"], ["table2"]).trainings())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Table 2 in quick, made in one go."""
    folder = tmp_path_factory.mktemp("undisturbed")
    places = {n: str(folder / n.lower()) for n in ("HYPERSPHERE_RUNS", "HYPERSPHERE_RESULTS")}
    done = run(*TABLE2, **places)
    assert done.returncode == 0, done.stderr
    return places


def test_a_second_call_trains_nothing(undisturbed):
    runs = Path(undisturbed["HYPERSPHERE_RUNS"])
    before = {f: f.stat().st_mtime_ns for f in runs.rglob("*")}
    results = tables(Path(undisturbed["HYPERSPHERE_RESULTS"]))
    again = run(*TABLE2, **undisturbed)
    assert again.returncode == 0 and "runs" not in again.stderr
    assert {f: f.stat().st_mtime_ns for f in runs.rglob("*")} == before
    assert tables(Path(undisturbed["HYPERSPHERE_RESULTS"])) == results


def test_items_that_share_runs_train_nothing_new(undisturbed):
    plan = run("plan", "--paper", "nsl", "--item", "table4", "--json", **undisturbed).stdout
    assert f'"trainings": {trainings()}' in plan and '"trainings_missing": 0' in plan


def test_every_item_of_quick(undisturbed, tmp_path):
    """What a newcomer's first call makes: every table and figure, and the page."""
    places = {
        name: str(shutil.copytree(folder, tmp_path / name)) for name, folder in undisturbed.items()
    }
    done = run("run", "--workers", "2", **places)
    assert done.returncode == 0, done.stderr
    quick = Path(places["HYPERSPHERE_RESULTS"]) / "quick"
    page, drawn = (quick / "index.html").read_text(), 0
    for key in paper_keys():
        items = paper(key).items
        pictures = [name for name, item in items.items() if item.plot.kind != "none"]
        files = {f"{name}.{kind}" for name in pictures for kind in ("png", "pdf")}
        assert {f.name for f in (quick / f"figures/{key}").iterdir()} == files
        for name in items:
            table = (quick / f"tables/{key}/{name}.md").read_text()
            assert not re.search(r"\d+/\d+ runs[ |]", table), f"{key} {name} is not complete"
            assert f'id="{key}-{name}"' in page
        drawn += len(pictures)
    assert len(re.findall(r"data:image/(?:png|webp);base64,", page)) == drawn
    before = {f: f.read_bytes() for f in quick.rglob("*") if f.is_file()}
    assert run("render", "--preset", "quick", **places).returncode == 0
    assert {f: f.read_bytes() for f in quick.rglob("*") if f.is_file()} == before


def test_records_travel_without_run_folders(undisturbed, tmp_path):
    results = shutil.copytree(undisturbed["HYPERSPHERE_RESULTS"], tmp_path / "travelled")
    places = {"HYPERSPHERE_RUNS": str(tmp_path / "none"), "HYPERSPHERE_RESULTS": str(results)}
    again = run(*TABLE2, **places)
    assert again.returncode == 0, again.stderr
    assert not list((tmp_path / "none").glob("[!.]*"))  # compositions of the plan alone
    assert tables(results) == tables(Path(undisturbed["HYPERSPHERE_RESULTS"]))


def test_an_evaluation_whose_files_are_gone_retrains_and_checks(undisturbed, tmp_path):
    results = Path(shutil.copytree(undisturbed["HYPERSPHERE_RESULTS"], tmp_path / "results"))
    path = results / "quick" / "records.jsonl"
    records, _ = read_lines(path)
    lost = next(r for r in records.values() if r["kind"] == "evaluation")
    path.write_text(
        "".join(x for x in path.read_text().splitlines(True) if lost["run_id"] not in x)
    )
    places = {"HYPERSPHERE_RUNS": str(tmp_path / "runs"), "HYPERSPHERE_RESULTS": str(results)}
    again = run(*TABLE2, **places)
    assert again.returncode == 0, again.stderr
    assert [f.name for f in (tmp_path / "runs").glob("*/model.safetensors")]  # trained again
    found = read_lines(path)[0][lost["run_id"]]["metrics"]
    # a cosine may differ in the last bits, depending on how its memory happens to be aligned
    assert found.pop("trained/cosine_to_mean") == pytest.approx(
        lost["metrics"].pop("trained/cosine_to_mean"), abs=1e-6
    )
    assert found == lost["metrics"]
    assert tables(results) == tables(Path(undisturbed["HYPERSPHERE_RESULTS"]))


def test_killed_at_random_moments_ends_with_the_same_tables(undisturbed, tmp_path):
    places = {n: str(tmp_path / n.lower()) for n in undisturbed}
    runs, chance = Path(places["HYPERSPHERE_RUNS"]), random.Random(0)
    finished: set[str] = set()
    for _ in range(6):
        process = subprocess.Popen(
            [*HYPERSPHERE, *TABLE2], env={**os.environ, **places}, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        # some runs further on (a busy machine is slow, so not by the clock), then any moment
        goal = len(finished) + chance.randint(1, 5)
        while process.poll() is None and len(list(runs.glob("*/record.json"))) < goal:
            time.sleep(0.05)
        time.sleep(chance.uniform(0, 1))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        store = Store(runs, Path(places["HYPERSPHERE_RESULTS"]))
        assert store.complaints == []
        assert finished < store.records.keys(), "a finished record was lost"
        finished = set(store.records)
    last = run(*TABLE2, **places)
    assert last.returncode == 0, last.stderr
    assert tables(Path(places["HYPERSPHERE_RESULTS"])) == tables(
        Path(undisturbed["HYPERSPHERE_RESULTS"])
    )


def test_two_rivals_train_each_run_once(undisturbed, tmp_path):
    places = {n: str(tmp_path / n.lower()) for n in undisturbed}
    rivals = [
        subprocess.Popen([*HYPERSPHERE, *TABLE2], env={**os.environ, **places}) for _ in range(2)
    ]
    assert [rival.wait() for rival in rivals] == [0, 0]
    logs = list(Path(places["HYPERSPHERE_RUNS"]).glob("*/log.txt"))
    assert len(logs) == trainings()
    assert {len(log.read_text().splitlines()) for log in logs} == {4}  # four epochs, once
    assert tables(Path(places["HYPERSPHERE_RESULTS"])) == tables(
        Path(undisturbed["HYPERSPHERE_RESULTS"])
    )


def test_plain_multirun_fills_the_store_that_the_tables_read(tmp_path):
    places = {n: str(tmp_path / n.lower()) for n in ("HYPERSPHERE_RUNS", "HYPERSPHERE_RESULTS")}
    grid = "paper=nsl split.num_unseen=2,3 head=nsl,triplet,contrastive seed=0,1".split()
    script = paths.root() / "scripts" / "train.py"
    done = subprocess.run(
        [sys.executable, script, "-m", *grid], env={**os.environ, **places}, cwd=tmp_path,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads(run("status", "--paper", "nsl", "--json", **places).stdout)
    done = {row["item"]: row["done"] for row in rows}
    assert [done[f"table{i}"] for i in range(1, 5)] == [12] * 4  # all read these trainings


def test_the_wheel_works_outside_a_checkout(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", tmp_path, paths.root()], check=True)
    wheel = next(tmp_path.glob("hypersphere-*.whl"))
    site = tmp_path / "site"
    subprocess.run([sys.executable, "-m", "zipfile", "-e", wheel, site], check=True)
    (tmp_path / "elsewhere").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(site)}
    for name in ("HYPERSPHERE_RUNS", "HYPERSPHERE_RESULTS"):
        environment.pop(name)
    plan = subprocess.run(
        [*HYPERSPHERE, "plan", "--paper", "nsl", "--item", "table2", "--json"], cwd=tmp_path / "elsewhere",
        env=environment,
        capture_output=True, text=True,
    )  # fmt: skip
    assert plan.returncode == 0, plan.stderr
    assert f'"trainings": {trainings()},' in plan.stdout
    where = subprocess.run(
        [sys.executable, "-c", "import hypersphere; print(hypersphere.__file__)"],
        cwd=tmp_path / "elsewhere", env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert where.stdout.startswith(str(site))
