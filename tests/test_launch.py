"""Jobs: frozen when they are submitted, carried by an engine, watched through the store."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from hypersphere import cli, paths, provenance
from hypersphere.config import Component, Computation, components
from hypersphere.errors import UserError
from hypersphere.execute import run_nodes
from hypersphere.launch import engines, jobs
from hypersphere.launch import launch as launching
from hypersphere.launch.frozen import batches, families, freeze, thaw
from hypersphere.launch.jobs import read_job, work, write_job
from hypersphere.launch.launch import launch
from hypersphere.launch.settings import Joblib, Slurm, check_settings, launcher_settings
from hypersphere.papers.plan import make_plan
from hypersphere.store import Store
from tests.toy import computation  # noqa: F401 (named by frozen nodes)


def hypersphere(capsys, *words):
    status = cli.main(list(words))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


# Frozen


@pytest.mark.parametrize("preset", ["quick", "paper"])
def test_every_node_survives_freezing(preset):
    nodes = make_plan(preset, ["hpn"]).nodes.values()
    assert {type(node).__name__ for node in nodes} == {"Training", "Evaluation", "Computation"}
    for node in nodes:
        again = thaw(json.loads(json.dumps(freeze(node))))
        assert (again.id, again.parent, again.identity()) == (node.id, node.parent, node.identity())


def test_a_job_trains_what_was_submitted_though_the_yaml_was_edited(toy, tmp_path):
    plan, store = make_plan("quick", ["toy"], ["table1"]), Store()
    job = write_job(tmp_path / "0.json", list(plan.nodes.values())[:2], 1, 1, False)
    for file in toy.glob("*.yaml"):
        if file.stem in ("quick", "table1"):
            file.write_text("schedule: {epochs: 7}\nnonsense: [")
    work(str(job.file), "test 1")
    for node_id in job.node_ids:
        record = store.get(node_id)
        assert record["identity"] == plan.nodes[node_id].identity()
    said = [json.loads(line) for line in job.outcomes.read_text().splitlines()]
    assert said == [{"id": node_id, "error": ""} for node_id in job.node_ids]
    assert "the code changed" not in job.file.with_suffix(".log").read_text()


def test_a_job_whose_file_was_edited_is_not_what_was_submitted(toy, tmp_path):
    plan = make_plan("quick", ["toy"], ["table2"])
    job = write_job(tmp_path / "0.json", plan.trainings()[:2], 1, 1, False)
    content = json.loads(job.file.read_text())
    content["nodes"][0]["training"]["optimizer"]["lr"] = 0.5
    job.file.write_text(json.dumps(content))
    work(str(job.file), "test 1")
    first, second = (json.loads(line) for line in job.outcomes.read_text().splitlines())
    assert first["id"] == job.node_ids[0] and "submit it again" in first["error"]
    assert second == {"id": job.node_ids[1], "error": ""}
    assert Store().get(job.node_ids[0]) is None


def test_a_job_says_when_the_code_changed(toy, tmp_path):
    submitted = provenance.code()
    assert jobs.code_change(submitted) is None
    edited = submitted | {"digest": "0"}
    assert "edited since" in jobs.code_change(edited)
    node = next(iter(make_plan("quick", ["toy"], ["table9"]).nodes.values()))
    job = write_job(tmp_path / "0.json", [node], 1, 1, False)
    content = json.loads(job.file.read_text())
    content["code"] = edited | {"commit": "f" * 40}
    job.file.write_text(json.dumps(content))
    work(str(job.file), "test 1")
    log = job.file.with_suffix(".log").read_text()
    assert "the code changed since this job was submitted (commit ffffffffffff, now" in log
    assert Store().get(node.id) is not None


def test_the_digest_of_the_code_sees_an_edit(tmp_path, monkeypatch):
    package = tmp_path / "package"
    package.mkdir()
    (package / "a.py").write_text("x = 1")
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))
    before = provenance.code.__wrapped__()["digest"]
    assert provenance.code.__wrapped__()["digest"] == before
    (package / "a.py").write_text("x = 2")
    assert provenance.code.__wrapped__()["digest"] != before


@pytest.mark.parametrize("text", ["{", "[]", '{"nodes": 3}', '{"nodes": [], "code": {}}'])
def test_a_damaged_job_file_is_one_line(tmp_path, text):
    (tmp_path / "0.json").write_text(text)
    with pytest.raises(UserError, match="no job of ours") as error:
        read_job(tmp_path / "0.json")
    assert "\n" not in str(error.value)


def test_a_function_without_a_name_cannot_be_frozen(tmp_path):
    def local():
        return {}

    with pytest.raises(UserError, match="cannot be found by its name"):
        freeze(Computation(Component("local", local, {})))


def test_families_wait_for_nothing_outside(toy):
    nodes = list(make_plan("quick", ["toy"]).nodes.values())
    groups = families(nodes)
    assert sorted(n.id for g in groups for n in g) == sorted(n.id for n in nodes)
    where = {node.id: index for index, group in enumerate(groups) for node in group}
    for index, group in enumerate(groups):
        assert all(where.get(node.parent, index) == index for node in group)
        ids = [node.id for node in group]
        for place, node in enumerate(group):  # parents first
            assert node.parent not in ids or ids.index(node.parent) < place
    for size in (1, 3, 100):
        parts = list(batches(nodes, size))
        assert [n.id for p in parts for n in p] == [n.id for g in groups for n in g]
        heavy = [sum(type(n).__name__ == "Training" for n in p) for p in parts]
        biggest = max(sum(type(n).__name__ == "Training" for n in g) for g in groups)
        assert max(heavy) <= max(size, biggest)
    assert len(list(batches(nodes, 100))) == 1


# Launchers


@pytest.mark.parametrize("name", ["joblib", "slurm", "ray"])
def test_presets_state_every_key_with_its_default(name):
    import yaml

    settings = launcher_settings(name)
    stated = yaml.safe_load((paths.conf_dir() / f"hydra/launcher/{name}.yaml").read_text())
    assert stated.keys() == settings.model_dump().keys() | {"_target_", "engine"}
    assert settings == type(settings)()
    assert settings.with_jobs(3) != settings


def test_a_preset_of_the_users_own(tmp_path):
    own = tmp_path / "mine.yaml"
    own.write_text("engine: slurm\npartition: gpu\nsbatch: {constraint: a100}\n")
    settings = launcher_settings(str(own), ["gpus_per_node=1", "setup=[module load cuda]"])
    assert isinstance(settings, Slurm) and settings.partition == "gpu"
    assert (settings.gpus_per_node, settings.setup) == (1, ["module load cuda"])
    own.write_text("engine: slrm\n")
    with pytest.raises(UserError, match="no such engine; did you mean 'slurm'"):
        launcher_settings(str(own))
    own.write_text("engine: [")
    with pytest.raises(UserError, match="mine.yaml"):
        launcher_settings(str(own))
    with pytest.raises(UserError, match="launcher.partitio: no such key; did you mean 'partition'"):
        check_settings({"engine": "slurm", "partitio": "x"}, "x")


def test_an_engine_that_is_not_installed_is_said_at_once(capsys, monkeypatch):
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None)
    status, _, err = hypersphere(capsys, "run", "--launcher", "ray", "--item", "table2")
    assert status == 2 and "pip install 'hypersphere[ray]'" in err and err.count("\n") == 1


def test_slurm_where_there_is_none(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setenv("PATH", str(tmp_path))
    status, _, err = hypersphere(capsys, "run", "--launcher", "slurm", "--item", "table2")
    assert status == 2 and "no squeue on this machine" in err and err.count("\n") == 1


class Scripted:
    """An engine whose jobs a test carries out itself. durable, as SLURM's."""

    durable = True
    queue: dict[str, jobs.Job] = {}

    def __init__(self, *_):
        self.cancelled = []

    def submit(self, found):
        for job in found:
            job.submitted_as(f"scripted {len(self.queue)}")
            self.queue[job.name] = job

    def alive(self, names):
        return set(names) & self.queue.keys()

    def cancel(self, names):
        self.cancelled += names

    def close(self):
        pass


@pytest.fixture
def scripted(monkeypatch):
    engine = Scripted()
    monkeypatch.setattr(engine, "queue", {})
    monkeypatch.setattr(launching, "open_engine", lambda settings: engine)
    monkeypatch.setattr(launching, "POLL", 0.01)
    return engine


def test_a_second_launcher_waits_for_the_jobs_of_the_first(toy, scripted):
    store, said = Store(), []
    nodes = list(make_plan("quick", ["toy"], ["table9"]).nodes.values())
    (node,) = nodes
    list(launch(nodes, store, Joblib(), said.append, detach=True))
    (name,) = scripted.queue
    assert store.state(node.id).name == "queued" and said == ["joblib: 1 job submitted for 1 runs"]
    alive = scripted.alive

    def carried_out_meanwhile(names):
        if said[-1].startswith("1 runs are with") and store.get(node.id) is None:
            work(str(scripted.queue[name].file), name)
        return alive(names)

    scripted.alive = carried_out_meanwhile
    outcomes = launch(nodes, Store(), Joblib(), said.append)
    assert [(o.node.id, o.error) for o in outcomes] == [(node.id, "")]
    assert "1 runs are with jobs that were submitted before" in said and len(scripted.queue) == 1


def test_a_job_that_ended_early_is_said_and_its_runs_submitted_again(toy, scripted):
    store = Store()
    nodes = list(make_plan("quick", ["toy"], ["table1"]).nodes.values())
    found = launch(nodes, store, Joblib(runs_per_job=9), lambda line: None, detach=True)
    assert list(found) == []
    (name,) = scripted.queue
    job = scripted.queue[name]
    found = launch(nodes, store, Joblib(), lambda line: None)
    list(run_nodes(nodes[:2], store, 1, lambda line: None))  # so far it came
    job.outcomes.write_text(json.dumps({"id": nodes[0].id, "error": ""}) + '\n{"id": "cut o')
    first = next(found)
    assert (first.node.id, first.error) == (nodes[0].id, "")
    scripted.queue.clear()  # killed
    rest = {outcome.node.id: outcome.error for outcome in found}
    assert rest.pop(nodes[1].id) == ""  # its record counts, though the job did not say so
    assert len(rest) == len(nodes) - 2
    assert all("ended before it" in error and str(job.file) in error for error in rest.values())
    assert {store.state(node_id).name for node_id in rest} == {"missing"}
    list(launch(nodes[2:], store, Joblib(), lambda line: None, detach=True))
    again = {i for job in scripted.queue.values() for i in job.node_ids}
    assert again == set(rest)


def test_closing_cancels_what_is_left(toy, scripted):
    nodes = list(make_plan("quick", ["toy"], ["table9", "table4"]).nodes.values())
    found = launch(nodes, Store(), Joblib(), lambda line: None)
    name = None

    def carry(names):  # the first job fails, the others wait
        nonlocal name
        if name is None and scripted.queue:
            name = sorted(scripted.queue)[0]
            job = scripted.queue.pop(name)
            failed = json.dumps({"id": job.node_ids[0], "error": "made up"})
            job.outcomes.write_text(failed + "\n")
        return set(names) & scripted.queue.keys()

    scripted.alive = carry
    assert next(found).error == "made up"
    found.close()
    assert set(scripted.cancelled) == set(scripted.queue)


def kill_one(store, nodes, killed):
    """Kill a process that is at work on a training, once three are done: of two processes one has
    then handed a job in, and the launcher goes on only where some job got done. A thread of its own
    looks all the time: outcomes come in batches, when a fast process may be between two runs."""
    while not killed.is_set():
        states = [store.state(node.id) for node in nodes]
        running = [state for state in states if state.name == "running"]
        if running and sum(state.name == "done" for state in states) >= 3:
            os.kill(running[0].about["pid"], signal.SIGKILL)
            killed.set()
        time.sleep(0.001)


@pytest.mark.slow
def test_joblib_makes_the_same_records_and_survives_a_killed_process(toy, tmp_path):
    """Its processes do not know the test's paper: what is frozen is enough."""
    nodes = list(make_plan("quick", ["toy"], ["table1", "table3"]).nodes.values())
    store = Store(tmp_path / "local", tmp_path / "none")
    list(run_nodes(nodes, store, 1, lambda line: None))
    mine, killed = Store(), threading.Event()
    killer = threading.Thread(target=kill_one, args=(mine, nodes, killed), daemon=True)
    killer.start()
    outcomes = list(launch(nodes, mine, Joblib(jobs=2), lambda line: None))
    assert killed.is_set() and len(outcomes) == len(nodes)
    assert not [outcome.error for outcome in outcomes if outcome.error]
    for node in nodes:
        ours, theirs = (s.get(node.id) for s in (mine, store))
        assert ours["metrics"] == theirs["metrics"]
        assert ours.get("files") == theirs.get("files")  # checksums of weights and embeddings


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "ray"])
def test_a_multirun_and_the_planned_run_fill_one_store(launcher, tmp_path):
    if launcher == "ray":
        pytest.importorskip("ray", reason="ray is not installed (make test-cluster)")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    words = f"-m paper=nsl hydra/launcher={launcher} split.num_unseen=2,3 seed=0,1".split()
    done = subprocess.run(
        [sys.executable, paths.root() / "scripts/train.py", *words], cwd=tmp_path,
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"{launcher}: 4 jobs submitted for 8 runs" in done.stdout
    store, plan = Store(), make_plan("quick", ["nsl"], ["table2"])
    assert len(store.records) == 8 and store.records.keys() <= plan.nodes.keys()
    local = Store(tmp_path / "local", tmp_path / "none")
    for training in [t for t in plan.trainings() if t.id in store.records]:
        list(run_nodes([training], local, 1, lambda line: None))
        assert local.get(training.id)["files"] == store.get(training.id)["files"]


def test_a_launcher_without_multirun_is_refused(monkeypatch):
    from hypersphere import app

    monkeypatch.setattr(sys, "argv", ["train.py", "paper=nsl", "hydra/launcher=joblib"])
    with pytest.raises(SystemExit) as stop:
        app.main()
    assert "acts on a multirun only" in str(stop.value)


# Failed runs


def broken(*, size: int, seed: int = 0):
    raise ZeroDivisionError("made up")


@pytest.fixture
def table9(toy, capsys, monkeypatch):
    """Runs `hypersphere run` on the toy paper's computed table, whose computation is broken."""
    import tests.toy

    def put(function):
        monkeypatch.setattr(tests.toy, "computation", function)
        components._target.cache_clear()  # what `_target_` names is looked up once

    put(broken)
    monkeypatch.setattr("hypersphere.papers.render.paper_keys", lambda: ["toy"])

    def run(*words):
        return hypersphere(
            capsys, "run", "--paper", "toy", "--item", "table9", "--workers", "1", *words
        )

    run.put, run.mend = put, lambda: put(computation)
    yield run
    put(computation)


def test_a_bug_is_tried_again_only_when_asked(table9, capsys):
    status, _, err = table9()
    assert status == 1 and "1 of 1 runs failed" in err and "ZeroDivisionError: made up" in err
    (failed,) = list(Store().runs.glob("*/failed.json"))
    assert "Traceback" in json.loads(failed.read_text())["error"]
    table9.mend()
    status, _, err = table9()
    assert status == 1 and "not tried again: run" in err and "--retry-failed does" in err
    _, out, _ = hypersphere(capsys, "status", "--paper", "toy")
    assert "failed: ZeroDivisionError: made up" in out
    _, out, _ = hypersphere(capsys, "status", "--paper", "toy", "--json")
    (row,) = [row for row in json.loads(out) if row["item"] == "table9"]
    assert "Traceback" in row["failed"][0]["error"] and row["failed"][0]["run_id"]
    status, _, err = table9("--retry-failed")
    assert status == 0 and not failed.exists()
    assert table9()[0] == 0


def test_what_the_user_can_mend_is_tried_again_by_itself(table9):
    def full(*, size: int, seed: int = 0):
        raise OSError(28, "No space left on device")

    table9.put(full)
    status, _, err = table9()
    assert status == 1 and "No space left on device" in err and "Traceback" not in err
    table9.mend()
    assert table9()[0] == 0


def test_fail_fast_stops_at_the_first(toy, capsys, monkeypatch):
    import hypersphere.execute as execute

    tried = []

    def failing(node, *_):
        tried.append(node.id)
        raise RuntimeError("made up")

    monkeypatch.setattr(execute, "run_node", failing)
    monkeypatch.setattr("hypersphere.papers.render.paper_keys", lambda: ["toy"])
    words = ("run", "--paper", "toy", "--workers", "1")
    status, _, err = hypersphere(capsys, *words, "--fail-fast")
    assert status == 1 and len(tried) == 1 and "stopping (--fail-fast)" in err
    tried.clear()
    hypersphere(capsys, *words)
    assert len(tried) > 1
