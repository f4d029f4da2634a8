"""The command line as a person meets it: bad input ends in one line that names the remedy."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from hypersphere import app, cli
from hypersphere.config import compose, split_config
from hypersphere.data.facts import DATASETS, Download
from hypersphere.errors import UserError
from hypersphere.papers.plan import make_plan
from hypersphere.store import Store, write_lines

TABLE2 = ("--preset", "small", "--paper", "nsl", "--item", "table2")


def hypersphere(capsys, *words):
    status = cli.main(list(words))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["plan", "--item", "table22"], "did you mean 'table2'?"),
        (
            ["plan", "--paper", "embedded-spaces", "--item", "figure9"],
            "has no item 'figure9'; did you",
        ),
        (["plan", "--paper", "nls"], "did you mean 'nsl'?"),
        (
            ["plan", "--paper", "imprintin"],
            "no paper 'imprintin'; did you mean 'imprinting'?",
        ),
        (["plan", "--preset", "smal"], "did you mean 'small'?"),
        (["run", "--launcher", "slrum"], "no such launcher; did you mean 'slurm'?"),
        (["run", "--launcher", "joblib", "--set", "job=3"], "did you mean 'jobs'?"),
        (["run", "--launcher", "joblib", "--set", "jobs=0"], "launcher.jobs=0: "),
        (["run", "--launcher", "joblib", "--set", "jobs"], "must read key=value"),
        (["run", "--set", "jobs=2"], "are for a launcher"),
        (["run", "--launcher", "joblib", "--detach"], "--detach: jobs of joblib end with"),
        (["data", "get", "fashion_mnis"], "did you mean 'fashion_mnist'?"),
    ],
)
def test_bad_words_are_one_line(capsys, words, says):
    status, out, err = hypersphere(capsys, *words)
    assert (status, out) == (2, "")
    assert says in err and err.count("\n") == 1 and err.startswith("hypersphere: ")


@pytest.mark.parametrize(
    ("words", "shows"),
    [((), "evaluate"), (("data",), "status"), (("store",), "merge"), (("track",), "push")],
)
def test_no_word_shows_what_may_follow(capsys, words, shows):
    with pytest.raises(SystemExit) as end:
        cli.main(list(words))
    captured = capsys.readouterr()
    assert (end.value.code, captured.out) == (2, "")
    assert shows in captured.err
    assert captured.err.endswith("which of these?\n")


def test_an_item_of_several_papers(capsys):
    _, out, _ = hypersphere(capsys, "plan", "--item", "figure2", "--json")
    assert json.loads(out)["items"] == 5
    _, out, _ = hypersphere(capsys, "plan", "--item", "figure11", "--json")
    assert json.loads(out)["items"] == 1


def test_missing_data_is_said_before_anything_trains(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("HYPERSPHERE_DATA", str(tmp_path / "nothing"))
    status, _, err = hypersphere(capsys, "run", *TABLE2)
    assert status == 2
    assert "hypersphere data get fashion_mnist" in err and "HYPERSPHERE_DATA" in err
    # asked for everything, what cannot run is skipped, listed, and the rest goes on
    status, out, err = hypersphere(capsys, "run", "--preset", "small", "--paper", "nsl")
    (line,) = [line for line in err.splitlines() if line.startswith("not run: nsl table2")]
    assert status == 0 and "`hypersphere data get fashion_mnist`" in line
    _, out, _ = hypersphere(capsys, "status", "--preset", "small", "--json")
    assert {row["done"] for row in json.loads(out)} == {0}


def test_what_of_an_item_can_run_here_does(capsys, monkeypatch, tmp_path):
    """Table 2 of hpn needs the authors' files for two of its three kinds of prototypes."""
    monkeypatch.setenv("HYPERSPHERE_DATA", str(tmp_path / "nothing"))
    words = ("--preset", "small", "--paper", "hpn", "--item", "table2")
    monkeypatch.setattr("hypersphere.prototypes.placements.published", _corners)
    monkeypatch.setattr("hypersphere.prototypes.placements.optimal", _corners)
    status, _, err = hypersphere(capsys, "run", *words, "--workers", "1")
    (line,) = [line for line in err.splitlines() if line.startswith("run in part: hpn table2")]
    assert status == 0 and "hypersphere data get hpn_prototypes" in line
    done = [r["identity"]["computation"]["kind"] for r in Store().records.values()]
    assert {*done} == {"one_hot", "published", "optimal"}


def _corners(num_classes, dim, **_):
    return torch.eye(num_classes, dim)


def test_a_plan_lists_what_cannot_run_here(capsys, data):
    status, out, err = hypersphere(capsys, "plan", "--preset", "small", "--paper", "nsl")
    (line,) = [line for line in out.splitlines() if line.startswith("cannot run here: nsl table2")]
    assert (status, err) == (0, "") and "`hypersphere data get fashion_mnist`" in line
    _, out, _ = hypersphere(capsys, "plan", *TABLE2)
    assert "nothing of what is missing can run here" in out
    _, out, _ = hypersphere(capsys, "plan", *TABLE2, "--json")
    summary = json.loads(out)
    assert summary["runnable_here"] == 0 < summary["trainings_missing"]
    assert "hypersphere data get fashion_mnist" in summary["blocked"]["nsl table2"]
    _, out, _ = hypersphere(capsys, "status", *TABLE2)
    assert "hypersphere data get fashion_mnist" in out


def test_a_copy_that_is_not_whole_is_as_good_as_none(capsys, data):
    (data / "FashionMNIST/raw").mkdir(parents=True)
    _, out, _ = hypersphere(capsys, "plan", *TABLE2)
    file = data / "FashionMNIST/raw/train-images-idx3-ubyte"
    assert f"cannot run here: nsl table2: {file} is missing" in out
    status, _, err = hypersphere(capsys, "run", *TABLE2)
    assert status == 2 and str(file) in err and "data get fashion_mnist --replace" in err
    assert not list(Store().runs.glob("[!.]*"))


def test_what_is_done_needs_no_data(capsys, data):
    nodes = make_plan("small", ["nsl"], ["table2"]).nodes.values()
    write_lines(Store().results / "small" / "records.jsonl", map(made_up_record, nodes))
    status, out, _ = hypersphere(capsys, "plan", *TABLE2)
    assert status == 0 and "nothing to run" in out and "cannot run here" not in out
    _, out, _ = hypersphere(capsys, "status", *TABLE2)
    assert "complete" in out and "data get" not in out


def test_unwritable_results_stop_before_anything_trains(capsys, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HYPERSPHERE_RESULTS", str(tmp_path / "file" / "results"))
    status, _, err = hypersphere(capsys, "run", "--item", "table2")
    assert status == 2 and "cannot be written" in err and "RESULTS=dir" in err
    assert not list(Store().runs.glob("[!.]*"))


def test_a_bad_line_costs_that_line_only(capsys):
    store = Store()
    path = store.results / "quick" / "records.jsonl"
    nodes = make_plan("quick", ["nsl"]).trainings()[:2]
    good = [made_up_record(node) for node in nodes]
    write_lines(path, good)
    path.write_text(path.read_text() + '{"schema":1,"run_id":"cut of\n{"other":"program"}\n')
    status, _, err = hypersphere(capsys, "render")
    assert status == 0
    assert f"{path}:3" in err and f"{path}:4" in err
    assert Store().records.keys() == {node.id for node in nodes}
    assert path.with_suffix(".rejected").read_text().count("\n") == 2


def test_training_mistakes_stop_the_whole_multirun(monkeypatch):
    line = "train.py -m paper=nsl split.num_unseen=2,30 seed=0".split()
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit) as stop:
        app.main()
    assert "num_unseen=30" in str(stop.value) and "\n" not in str(stop.value)
    assert not list(Store().runs.glob("[!.]*"))


def test_missing_data_stops_a_multirun_before_anything_trains(monkeypatch, data):
    jobs = ["paper=nsl", "data=digits,fashion_mnist", "seed=0"]  # the first could run
    with pytest.raises(UserError) as error:
        app.check_jobs(jobs)
    assert "`hypersphere data get fashion_mnist`" in str(error.value)
    assert str(data) in str(error.value) and "\n" not in str(error.value)
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", *jobs])
    with pytest.raises(SystemExit) as stop:
        app.main()
    assert str(stop.value) == f"train: {error.value}"
    assert not list(Store().runs.glob("[!.]*"))


def test_jobs_that_are_done_need_no_data(data):
    jobs = [["paper=nsl", "data=fashion_mnist", f"seed={seed}"] for seed in (0, 1)]
    records = [made_up_record(split_config(compose(job))[0]) for job in jobs]
    path = Store().results / "quick" / "records.jsonl"
    write_lines(path, records[:1])
    both = ["paper=nsl", "data=fashion_mnist", "seed=0,1"]
    with pytest.raises(UserError, match="hypersphere data get fashion_mnist"):
        app.check_jobs(both)
    app.check_jobs(jobs[0])
    write_lines(path, records)
    app.check_jobs(both)


def test_help_is_quick_and_complete(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    text = capsys.readouterr().out
    assert all(word in text for word in ("plan", "run", "status", "render", "examples:"))
    # What help waits for: half a second goes if one of these comes along.
    heavy = "{'torch', 'numpy', 'pandas', 'hydra', 'omegaconf', 'pydantic', 'wandb'}"
    code = f"import sys, hypersphere.cli; sys.exit(str({heavy} & set(sys.modules) or ''))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stderr.strip() == ""


def made_up_record(node):
    """A record as a finished run would leave it, with a loss of 0.5."""
    return {
        "schema": 1,
        "run_id": node.id,
        "kind": node.identity()["kind"],
        "identity": node.identity(),
        "parent": node.parent,
        "diverged": False,
        "seconds": 1.0,
        "metrics": {"loss": 0.5},
    }


def test_a_download_that_fails_is_one_line(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("HYPERSPHERE_DATA", str(tmp_path / "nothing"))
    # a host that does not answer, as on a machine without network
    away = Download(file="a.gz", mirrors=("http://127.0.0.1:9/",))
    facts = replace(DATASETS["mnist"], downloads=(away,))
    monkeypatch.setitem(DATASETS.added, "mnist", facts)
    monkeypatch.setattr("hypersphere.data.fetching.transfer.BACKOFF", 0.0)
    status, _, err = hypersphere(capsys, "data", "get", "mnist")
    last = err.strip().splitlines()[-1]
    assert status == 2 and last.startswith("hypersphere: mnist: no good copy of a.gz found (http")
    assert "`hypersphere data get mnist --from FOLDER`" in last
