"""What W&B is given: read back from its offline files, it is what the records say; and whatever
W&B does, trainings go on."""

import json
import os
import struct
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from wandb.proto import wandb_internal_pb2
from wandb.sdk.lib.wbauth import unauthenticate_session

from hypersphere import cli
from hypersphere.errors import UserError
from hypersphere.papers.plan import make_plan
from hypersphere.store import Store
from hypersphere.tracking.follower import Follower, figures
from hypersphere.tracking.mirrored import complete
from hypersphere.tracking.push import mode, push
from hypersphere.tracking.views import views
from tests.toy import run_all

UNREACHABLE = "http://127.0.0.1:9"
KEY = "0123456789" * 4


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT", "WANDB_ENTITY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    yield
    unauthenticate_session()  # W&B remembers a key that it has seen


@pytest.fixture
def trained(toy):
    """A finished plan of two items that share their trainings, and its store."""
    plan, store = make_plan("quick", ["toy"], ["table1", "table2"]), Store()
    run_all(plan, store)
    return plan, store


def entries(file):
    """The entries of a W&B file: a log in LevelDB's format, of W&B's own messages."""
    data, at, parts = file.read_bytes(), 7, []
    assert data[:4] == b":W&B"
    while at < len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        parts.append(data[at + 7 : at + 7 + length])
        at += 7 + length
        if kind in (1, 4):  # a whole entry, or the last part of one
            entry = wandb_internal_pb2.Record()
            entry.ParseFromString(b"".join(parts))
            parts = []
            yield entry


def read_back(store, run_id):
    """Name, group, tags, config, summary and history of the one offline run of that id, once W&B's
    own process, which a busy machine delays, has written its end."""
    until = time.monotonic() + 20
    while (found := read_now(store, run_id))["exit"] is None and time.monotonic() < until:
        time.sleep(0.2)
    return found


def read_now(store, run_id):
    (file,) = (store.runs / "wandb" / run_id).glob(f"wandb/offline-run-*/run-{run_id}.wandb")
    found = {"history": [], "summary": {}, "pictures": set(), "exit": None}
    for entry in entries(file):
        match entry.WhichOneof("record_type"):
            case "run":
                run = entry.run
                found |= {"id": run.run_id, "name": run.display_name, "group": run.run_group}
                found |= {"tags": list(run.tags), "project": run.project, "kind": run.job_type}
                found["config"] = {i.key: json.loads(i.value_json) for i in run.config.update}
            case "history":
                values = {
                    "/".join(i.nested_key) or i.key: json.loads(i.value_json)
                    for i in entry.history.item
                }
                shown = {k.removesuffix("/_type") for k in values if k.endswith("/_type")}
                found["pictures"] |= shown
                found["history"].append(
                    {
                        k: v
                        for k, v in values.items()
                        if k[0] != "_" and k.split("/")[0] not in shown
                    }
                )
            case "summary":
                found["summary"] |= {
                    "/".join(i.nested_key) or i.key: json.loads(i.value_json)
                    for i in entry.summary.update
                }
            case "exit":
                found["exit"] = entry.exit.exit_code
    return found


def test_offline_files_hold_exactly_what_the_records_say(trained):
    plan, store = trained
    runs = list(complete(plan, store))
    said = []
    assert push(runs, store, "offline", said.append, pictures=lambda r: figures(r, store)) == (4, 0)
    assert not said
    for training in plan.trainings():
        record, found = store.get(training.id), read_back(store, training.id)
        assert (found["id"], found["name"], found["exit"]) == (training.id, training.id, 0)
        assert (found["group"], found["kind"]) == ("toy", "training")
        assert {"toy/table1", "toy/table2", "quick", "digits"} <= set(found["tags"])
        assert {k: v for k, v in found["config"].items() if k in record["config"]} == record[
            "config"
        ]
        assert found["config"]["provenance"]["versions"] == record["versions"]
        epochs = [e for e in found["history"] if "epoch" in e]
        assert epochs == record["epochs"] and len(epochs) == 2
        assert found["pictures"] == {"embeddings", "class_vectors"}
        assert found["summary"]["training/loss"] == record["metrics"]["loss"]
        (judge,) = [n for n in plan.nodes.values() if getattr(n, "training", None) == training]
        for name, value in store.get(judge.id)["metrics"].items():
            if isinstance(value, list):
                assert found["summary"][f"novel_classes/{name}/draws"] == value
                value = sum(value) / len(value)
            assert found["summary"][f"novel_classes/{name}"] == pytest.approx(value, rel=1e-15)


def test_each_run_goes_once_and_again_when_more_is_known(trained):
    plan, store = trained
    first, *others = complete(plan, store)
    part = replace(first, summary={"training/loss": 0.5})
    assert push([part, *others], store, "offline", print) == (4, 0)
    assert push([part, *others], store, "offline", print) == (0, 0)
    assert push([first, *others], store, "offline", print) == (1, 0)
    assert read_back(store, first.run_id)["summary"].keys() >= first.summary.keys()
    assert push([first], store, "offline", print, again=True) == (1, 0)
    assert push([first], store, "disabled", print, again=True) == (0, 0)


def test_the_mode_is_decided_without_asking(monkeypatch, tmp_path):
    def decided(**environment):  # in a process of its own: W&B remembers a key it has seen
        code = "from hypersphere.tracking.push import mode; print(mode())"
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | environment, text=True,
            stdin=subprocess.DEVNULL, capture_output=True, check=True,
        )  # fmt: skip
        return done.stdout.strip()

    login = tmp_path / "netrc"
    login.write_text(f"machine example.org\n  login user\n  password {KEY}\n")
    at = {"NETRC": str(login), "WANDB_BASE_URL": "https://example.org"}
    assert decided() == "offline"
    assert decided(WANDB_API_KEY=KEY) == decided(**at) == "online"
    assert decided(WANDB_API_KEY=KEY, WANDB_MODE="offline") == "offline"
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    with pytest.raises(UserError, match="WANDB_MODE=sometimes.*online, offline, disabled"):
        mode()


def test_what_wandb_does_not_take_is_a_warning_and_it_is_not_tried_for_ever(trained):
    plan, store = trained
    runs = list(complete(plan, store))
    (store.runs / "wandb").write_text("in the way")
    said = []
    assert push(runs, store, "offline", said.append) == (0, 3)
    assert len(said) == 4 and all(line.startswith("W&B: ") for line in said)
    assert "track push" in said[-1]


@pytest.mark.slow
def test_a_server_that_cannot_be_reached_costs_nothing_but_the_mirror(toy, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", UNREACHABLE)
    monkeypatch.delenv("WANDB_SERVICE", raising=False)  # of this process, where earlier tests ran
    plan, store, said = make_plan("quick", ["toy"], ["table1"]), Store(), []
    with Follower(plan, store, plan.missing(store), said.append, patience=1.0) as follower:
        for outcome in run_all(plan, store):
            follower.finished(outcome.node)
    assert not plan.missing(store)
    assert any("not through" in line and "track push" in line for line in said)
    code = "import sys; from hypersphere import cli; from hypersphere.tracking import push as p;"
    code += "p.PATIENCE = 2.0; sys.exit(cli.main(['track', 'push', sys.argv[1]]))"
    run_id = plan.trainings()[0].id
    done = subprocess.run([sys.executable, "-c", code, run_id], capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"W&B: run {run_id} was not mirrored: " in done.stderr
    assert "W&B (online): 0 runs mirrored and 0 tables, 1 not taken" in done.stdout


def test_run_mirrors_as_it_goes_and_push_finds_nothing_left(toy, capsys):
    words = ["--paper", "toy", "--item", "table1"]
    assert cli.main(["run", *words, "--workers", "1", "--track"]) == 0
    plan, store = make_plan("quick", ["toy"], ["table1"]), Store()
    for run in complete(plan, store):
        found = read_back(store, run.run_id)
        assert found["summary"].keys() >= run.summary.keys()  # its evaluation was waited for
    capsys.readouterr()
    assert cli.main(["track", "push", *words]) == 0
    assert "0 runs mirrored and" in capsys.readouterr().out


def test_runs_of_no_paper_are_pushed_by_their_ids(trained, capsys):
    plan, store = trained
    (judge, *_) = [n for n in plan.nodes.values() if hasattr(n, "training")]
    run_id = judge.training.id
    assert cli.main(["track", "push", run_id]) == 0
    assert "1 runs mirrored" in capsys.readouterr().out
    found = read_back(store, run_id)
    assert found["tags"] == ["digits", judge.training.components["head"].name]
    assert found["group"] == "" and any(
        key.startswith("novel_classes/") for key in found["summary"]
    )
    assert cli.main(["track", "push", judge.id]) == 2
    assert f"is an evaluation of run {run_id}" in capsys.readouterr().err
    assert cli.main(["track", "push", run_id[:-1]]) == 2
    assert f"did you mean {run_id}" in capsys.readouterr().err.replace("'", "").replace("`", "")


def test_a_view_holds_a_papers_runs_and_the_numbers_of_its_items(trained):
    plan, store = trained
    (view,) = views(plan, store, "somebody", "ours")
    told = json.loads(view._to_model().model_dump_json(by_alias=True))
    assert (told["entity"], told["project"]) == ("somebody", "ours")
    (runs,) = told["spec"]["section"]["runSets"]
    (chosen,) = runs["filters"]["filters"]
    assert chosen["key"]["name"] == "tags" and chosen["op"] == "IN"
    assert chosen["value"] == ["toy/table1", "toy/table2"]
    assert [each["name"] for each in runs["grouping"]] == ["data.value.name", "head.value.name"]
    sections = {section.name: section.panels for section in view.sections}
    assert [each.metrics for each in sections["table1: base"]] == [
        ["novel_classes/all/raw/disjoint/unseen"]
    ]
    summaries = set().union(*(run.summary for run in complete(plan, store)))
    shown = {
        m for name, panels in sections.items() if ":" in name for p in panels for m in p.metrics
    }
    assert shown == {"novel_classes/all/raw/disjoint/unseen", "training/loss"} <= summaries


def test_views_need_an_account_and_the_package(toy, monkeypatch, capsys):
    words = ["track", "views", "--paper", "toy", "--item", "table1"]
    assert cli.main(words) == 2
    assert "saved views live on W&B's server: log in" in capsys.readouterr().err
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert cli.main(words) == 2
    assert "WANDB_ENTITY is not set" in capsys.readouterr().err
    monkeypatch.setenv("WANDB_ENTITY", "somebody")
    monkeypatch.setenv("WANDB_BASE_URL", UNREACHABLE)
    assert cli.main(words) == 1
    assert "was not saved" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    assert cli.main(words) == 2
    assert "pip install wandb-workspaces" in capsys.readouterr().err
