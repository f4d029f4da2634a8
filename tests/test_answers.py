"""Where a number comes from, how two differ, what holds: told of a toy paper that really trains."""

import json
import os
import shlex
import shutil
import subprocess
import sys

import pytest
import yaml

from hypersphere import cli, paths
from hypersphere.answers import doctor
from hypersphere.answers.diff import difference
from hypersphere.answers.explain import explained
from hypersphere.answers.places import find
from hypersphere.config import Evaluation, compose, split_config
from hypersphere.config.words import override
from hypersphere.errors import UserError
from hypersphere.papers.budget import within
from hypersphere.papers.plan import make_plan
from hypersphere.papers.render import collect
from hypersphere.store import MODEL, Store
from tests.toy import ITEMS, TABLE, declare, run_all


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Where the toy's runs wait for the next test."""
    return tmp_path_factory.mktemp("kept") / "runs"


@pytest.fixture
def trained(toy, store, kept):
    """The toy's quick trainings, done."""
    plan = make_plan("quick", ["toy"])
    if kept.exists():
        shutil.copytree(kept, store.runs, dirs_exist_ok=True)
        store = Store(store.runs)
    else:
        run_all(plan, store)
        shutil.copytree(store.runs, kept)
    collect(plan, store, "quick")
    return store


TABLE1 = ("--paper", "toy", "--item", "table1")


def hypersphere(capsys, *words):
    status = cli.main(list(words))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def one(store, item, *words, preset="quick", variant=""):
    found = find("toy", item, words, preset, variant, store)
    assert len(found) == 1
    return found[0], explained(found[0], store)


def test_a_cell_tells_its_runs_and_their_numbers(trained):
    _, told = one(trained, "table1", "2")
    assert [run["unit"] for run in told["runs"]] == ["0", "1"]
    for run in told["runs"]:
        record = trained.get(run["record"])
        assert record["parent"] == run["run_id"] and run["kind"] == "evaluation"
        name = run["number"].partition("/")[2]
        assert run["values"] == {run["unit"]: pytest.approx(record["metrics"][name])}
        training = trained.get(run["run_id"])
        assert run["identity"] == training["identity"] and run["config"] == training["config"]
        for key in ("git", "versions", "hardware", "finished", "seconds", "files"):
            assert run[key] == training[key]
        assert run["folder"] == str(trained.folder(run["run_id"]))
    values = [value for run in told["runs"] for value in run["values"].values()]
    assert told["ours"] == pytest.approx(sum(values) / 2, abs=1e-6)
    assert json.loads(json.dumps(told)) == told


def test_the_commands_compose_to_the_very_runs(trained):
    for item, cell in (("table1", "3"), ("table2", "2"), ("table3", "2"), ("table4", "3")):
        _, told = one(trained, item, cell)
        for run in told["runs"]:
            made = [split_config(compose(shlex.split(line)[2:]))[0].id for line in run["commands"]]
            assert made == [*([run["starts_from"]] if run["starts_from"] else []), run["run_id"]]


def test_a_tuned_run_names_the_run_it_starts_from(trained):
    base = {run["run_id"] for run in one(trained, "table1", "2")[1]["runs"]}
    assert {run["starts_from"] for run in one(trained, "table3", "2")[1]["runs"]} == base


def test_a_computation_is_made_by_its_item(trained):
    _, told = one(trained, "table9", "size")
    assert told["runs"][0]["commands"] == [
        "hypersphere run --preset quick --paper toy --item table9"
    ]
    assert told["ours"] == 3.0 and told["verdict"] == "reproduced"


def test_what_is_not_run_says_so_and_how_to_run_it(toy, store):
    _, told = one(store, "table1", "2")
    assert [run["state"] for run in told["runs"]] == ["missing", "missing"]
    assert all(run["values"] == {} and run["commands"] for run in told["runs"])
    assert told["ours"] is None and told["verdict"] == "not run"


def test_explain_as_a_person_reads_it(trained, capsys):
    status, out, _ = hypersphere(capsys, "explain", "toy", "table1")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()[1:-1]] == ["k", "2", "3"]
    assert out.splitlines()[-1].startswith("one of them: hypersphere explain toy table1 ")
    words = shlex.split(out.splitlines()[-1].partition("hypersphere ")[2])
    status, out, _ = hypersphere(capsys, *words)
    _, told = one(trained, "table1", "2")
    for run in told["runs"]:
        for said in (run["run_id"], run["record"], run["finished"], *run["commands"]):
            assert said in out
    data = told["runs"][0]["identity"]["data"]["content"]
    assert data in out and "varies" in out and "split.permutation: 0, 1" in out
    assert "published" in out and "not comparable" in out


def test_several_settings_show_the_chosen_one(toy, store, capsys):
    among = [{"optimizer.lr": 1e-2}, {"optimizer.lr": 1e-3}]
    chosen = TABLE | {
        "title": "best",
        "metric": "training/test_accuracy",
        "choose": {"among": among, "by": "training/test_accuracy"},
    }
    declare(toy, "table2", chosen)
    _, told = one(store, "table2", "2")
    assert len(told["runs"]) == 4 and {run["of"] for run in told["runs"]} == {
        "with optimizer.lr = 0.01",
        "with optimizer.lr = 0.001",
    }
    run_all(make_plan("quick", ["toy"], ["table2"]), store)
    _, told = one(store, "table2", "2")
    assert len(told["runs"]) == 2 and {run["of"] for run in told["runs"]} == {""}
    best = {run["identity"]["optimizer"]["lr"] for run in told["runs"]}
    means = {
        lr: sum(
            r["metrics"]["test_accuracy"]
            for r in store.records.values()
            if r["kind"] == "training"
            and r["identity"]["optimizer"]["lr"] == lr
            and r["identity"]["split"]["num_unseen"] == 2
        )
        for lr in (1e-2, 1e-3)
    }
    assert best == {max(means, key=means.get)}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["toy", "table1", "7"], "no cell '7' (k: 2, 3; metric: accuracy)"),
        (["toy", "table1", "k=7"], "no k '7' (there are: 2, 3)"),
        (["toy", "table1", "acuracy"], "did you mean 'accuracy'?"),
        (["toy", "tabel1"], "did you mean 'table1'?"),
        (["tay", "table1"], "did you mean 'toy'?"),
        (["toy", "table1", "--preset", "quik"], "did you mean 'quick'?"),
        (["toy", "table1", "--variant", "x"], "no variant 'x'"),
    ],
)
def test_bad_words_name_what_there_is(toy, capsys, words, says):
    status, out, err = hypersphere(capsys, "explain", *words)
    assert (status, out) == (2, "") and says in err and err.count("\n") == 1


def test_upper_and_lower_case_is_one_and_a_value_in_two_columns_is_asked_for(toy, store):
    rows = "toy,t,a,b,accuracy,0.9,,\ntoy,t,b,a,accuracy,0.8,,\n"
    published = toy.parents[2] / "published" / "toy" / "table2.csv"
    published.write_text("paper,table,one,two,metric,value,std,note\n" + rows)
    both = TABLE | {"title": "two", "rows": ["one", "two"], "select": {}, "metric": "training/loss"}
    declare(toy, "table2", both)
    assert one(store, "table2", "one=A")[0].cell.keys["two"] == "b"
    with pytest.raises(UserError, match="write one=a or two=a"):
        find("toy", "table2", ["a"], "quick", "", store)


def test_runs_differ_in_what_was_asked_and_in_numbers(trained):
    a, b = (run["run_id"] for run in one(trained, "table1", "2")[1]["runs"])
    found = difference(a, b[:8], "quick", trained)
    assert found["kind"] == "run" and found["runs"] == [a, b] and found["origin"] == []
    assert {key for key, *_ in found["config"]} == {"seed", "split.permutation"}
    for side, run_id in enumerate((a, b)):
        assert found["numbers"]["loss"][side] == trained.get(run_id)["metrics"]["loss"]
    same = difference(a, a, "quick", trained)
    assert same["config"] == [] and all(x == y for x, y in same["numbers"].values())


def test_cells_are_paired_by_their_units(trained):
    found = difference("toy/table2/2", "toy/table2/3", "quick", trained)
    left, right = (one(trained, "table2", k)[0].cell.values for k in "23")
    assert found["pairs"] == {u: [left[u], right[u]] for u in ("0", "1")}
    assert found["mean"] == pytest.approx(sum(left[u] - right[u] for u in "01") / 2)
    assert found["greater"] == "open"  # two units decide nothing
    assert ["split.num_unseen", "2", "3"] in found["config"]
    across = difference("toy/table2/2", "paper:toy/table2/2", "quick", trained)
    assert [each["protocol"] for each in across["cells"]] == ["substitute", "exact"]


def test_stores_differ_by_run(trained, tmp_path, capsys):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    lines = (trained.results / "quick" / "records.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    changed = next(r for r in records if r["kind"] == "training")
    changed["metrics"]["test_accuracy"] += 0.5
    gone = next(r for r in records if r["kind"] == "evaluation")
    kept = [r for r in records if r is not gone]
    (theirs / "records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in kept))
    status, out, _ = hypersphere(
        capsys, "diff", str(theirs), str(trained.results / "quick"), "--json"
    )
    found = json.loads(out)
    assert status == 0 and found["only_other"] == [gone["run_id"]] and found["only_one"] == []
    assert found["equal"] == len(kept) - 1 and len(found["apart"]) == 1
    assert changed["run_id"] in found["apart"][0] and "test_accuracy" in found["apart"][0]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["abcd", "abce"], "run abcd: no finished run of that id here"),
        (["toy", "toy/table1/2"], "neither a run nor a cell"),
        (["toy/table1", "toy/table1/2"], "names 2 cells; choose one (k: 2, 3)"),
        (["RUN", "toy/table1/2"], "compare two of a kind"),
        (["EMPTY", "EMPTY"], "no runs there"),
    ],
)
def test_what_cannot_be_compared(trained, tmp_path, capsys, words, says):
    (tmp_path / "empty").mkdir()
    told = {"RUN": next(iter(trained.records)), "EMPTY": str(tmp_path / "empty")}
    status, _, err = hypersphere(capsys, "diff", *(told.get(word, word) for word in words))
    assert status == 2 and says in err and err.count("\n") == 1


def test_claims_are_told_from_the_records(trained, toy, capsys):
    claim = {"item": "table9", "claim": "A computation gives 3", "tables": ["table9"]}
    claim |= {"where": {"statistic": "size"}, "equals": {"statistic": {"size": 3.0}}}
    (toy / "claims.yaml").write_text(yaml.safe_dump([claim]))
    published = toy.parents[2] / "published" / "toy" / "figure_claims.csv"
    published.write_text("paper,item,claim,check\ntoy,table9,A computation gives 3,value\n")
    declare(toy, "table9", ITEMS["table9"] | {"presets": {"small": {"protocol": "exact"}}})
    status, out, _ = hypersphere(capsys, "claims", "--preset", "small", "--paper", "toy")
    assert status == 0
    assert out.startswith("preset small: 1 holds, 0 partly, 0 fails, 0 not tested, of 1 claims")
    assert "holds      toy table9: A computation gives 3" in out
    assert "1 supported, 0 contradicted, 0 open of 1, n = 1 value" in out
    told = json.loads(hypersphere(capsys, "claims", "--paper", "toy", "--json")[1])
    assert [row["preset"] for row in told] == ["small", "paper"]
    fails = hypersphere(capsys, "claims", "--paper", "toy", "--verdict", "fails", "--json")[1]
    assert json.loads(fails) == []
    for words, says in (
        (("--verdict", "hold"), "did you mean 'holds'?"),
        (("--item", "tabel9"), "did you mean 'table9'?"),
    ):
        status, _, err = hypersphere(capsys, "claims", "--paper", "toy", *words)
        assert status == 2 and says in err


@pytest.mark.parametrize(
    "value",
    ["a", "1e5", "12e4", "a,b", "it's", "back\\slash", "end\\", "q\\'x", "", " a ", "null", "True",
     "x=y", "a/b-c.d", "naïve", "'", 1, 1.5, 1e-5, float("inf"), True, None, [1, "a,b", None],
     {"a": 1, "b_c": [True, "1"]}],
)  # fmt: skip
def test_a_value_survives_the_command_line(value):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    read = OverridesParser.create().parse_override(override("key", value)).value()
    assert read == value and type(read) is type(value)


def test_a_budget_buys_the_verdicts_that_cost_least(toy, store):
    run_all(make_plan("quick", ["toy"]), store)
    plan = make_plan("paper", ["toy"])
    chosen = within(plan, store, 1e6)
    missing = {node.id for node in plan.missing(store)}
    # every printed cell gets its verdict (those of table9 are done: presets share them)
    assert chosen.settled == 8 and chosen.nodes.keys() <= missing
    assert sum(step.trainings for step in chosen.steps) == sum(
        node.identity()["kind"] == "training" for node in chosen.nodes.values()
    )
    assert chosen.seconds == pytest.approx(sum(step.seconds for step in chosen.steps))
    half = within(plan, store, chosen.seconds / 2)
    assert 0 < half.settled < chosen.settled and half.seconds <= chosen.seconds / 2
    assert (
        within(plan, store, 0.5 * min(s.seconds for s in chosen.steps if s.seconds)).nodes.keys()
        < half.nodes.keys()
    )


def test_a_budget_buys_no_verdict_that_a_claim_has(toy, store):
    """Two of three comparisons decided are a verdict, whatever the third would say."""
    there = {"tables": ["table2"], "above": -1.0}  # two cells
    missing = {"tables": ["table3"], "above": -1.0, "where": {"k": "2"}}
    claims = {"decided": [there, missing], "open": [missing]}
    declared = [{"item": "table1", "claim": name, "parts": parts} for name, parts in claims.items()]
    (toy / "claims.yaml").write_text(yaml.safe_dump(declared))
    with (paths.published_dir() / "toy" / "figure_claims.csv").open("a") as file:
        file.writelines(f"toy,table1,{name},\n" for name in claims)
    plan = make_plan("paper", ["toy"])

    def bought():
        names = [name for step in within(plan, store, 1e9).steps for name in step.names]
        return [claim for claim in claims if f"toy table1: claim: {claim}" in names]

    run_all(make_plan("quick", ["toy"]), store)  # what tells the time of each
    assert bought() == ["decided", "open"]
    run_all(make_plan("paper", ["toy"], ["table2"]), store)
    assert bought() == ["open"]


def test_a_budget_pays_for_trainings_whose_weights_are_gone(toy, store):
    plan = make_plan("paper", ["toy"])
    run_all(plan, store)
    judged = [node for node in plan.nodes.values() if isinstance(node, Evaluation)]
    for node in judged:
        del store.records[node.id]
        (store.folder(node.id) / "record.json").unlink()
    for record in store.records.values():
        record["seconds"] = 1e4
    cheap = within(plan, store, 1e9)
    assert cheap.steps and cheap.seconds < 1e3 and cheap.nodes.keys() <= {n.id for n in judged}
    lost = next(node.parent for node in judged if node.id in cheap.nodes)
    (store.folder(lost) / MODEL).unlink()
    dear = within(plan, store, 1e9)
    assert dear.nodes.keys() == cheap.nodes.keys() | {lost}
    assert dear.seconds > cheap.seconds + 5e3  # as long as such trainings took
    assert sum(step.trainings for step in dear.steps) == 1
    assert lost not in within(plan, store, 1e3).nodes


def test_what_a_budget_buys_is_run(toy, store, capsys):
    run_all(make_plan("quick", ["toy"], ["table1"]), store)
    words = ["--preset", "paper", *TABLE1, "--workers", "1"]
    told = json.loads(hypersphere(capsys, "plan", *words, "--budget", "1h", "--json")[1])["budget"]
    assert told["settled"] == 2 and told["trainings"] == 2  # of six; quick has the others
    status, _, err = hypersphere(capsys, "run", *words, "--budget", "1h")
    assert status == 0 and "within 60 min: 2 verdicts and claims by 2 trainings" in err
    assert all(Store().get(run_id) for run_id in told["runs"])
    found = find("toy", "table1", [], "paper", "", Store())
    assert [each.judged.n for each in found] == [3, 3]


def test_a_budget_on_the_command_line(toy, store, capsys):
    status, out, _ = hypersphere(capsys, "plan", *TABLE1, "--budget", "4h")
    assert status == 0 and "within 4.0 h nothing more can be settled here" in out
    assert "left out: 4 trainings whose time no past record tells" in out
    run_all(make_plan("quick", ["toy"], ["table1"]), store)
    assert "left out" not in hypersphere(capsys, "plan", *TABLE1, "--budget", "4h")[1]
    with pytest.raises(SystemExit):
        hypersphere(capsys, "plan", "--budget", "4x")
    assert "'4x' is not a time such as 4h" in capsys.readouterr().err


def test_the_doctor_finds_what_ails(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HYPERSPHERE_RUN", "x")
    monkeypatch.setenv("HYPERSPHERE_DATA", str(tmp_path / "nowhere"))
    status, out, _ = hypersphere(capsys, "doctor", "--json")
    found = json.loads(out)
    assert status == 0 and {each["state"] for each in found} <= {"ok", "note", "warning"}
    said = [each["detail"] for each in found if each["state"] == "warning"]
    assert any(
        "HYPERSPHERE_RUN means nothing here; did you mean 'HYPERSPHERE_RUNS'?" in s for s in said
    )
    assert any("nowhere: no such folder" in s for s in said)


def test_the_doctor_knows_a_torch_and_torchvision_that_do_not_go_together(monkeypatch):
    import builtins

    def broken(name, *more, real=builtins.__import__):
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist")
        return real(name, *more)

    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.setattr(builtins, "__import__", broken)
    (found,) = doctor._torch()
    assert found.state == "problem" and "do not go together" in found.detail
    assert "--force-reinstall torch torchvision" in found.remedy


def test_a_check_that_breaks_stops_no_other(monkeypatch):
    def breaks():
        raise OSError("a broken disk")
        yield

    monkeypatch.setattr(doctor, "_disk", breaks)
    found = doctor.examine()
    assert [f.detail for f in found if f.state == "problem"] == ["OSError: a broken disk"]
    assert {"python", "data", "launchers"} <= {f.name for f in found}


def test_too_little_disk_is_a_problem(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "LITTLE", 10**18)
    status, out, _ = hypersphere(capsys, "doctor")
    assert status == 1 and "problem  disk" in out and "HYPERSPHERE_RUNS" in out


def test_a_shell_completes_papers_items_and_cells(monkeypatch, tmp_path):
    def ask(line):
        answer = tmp_path / "answer"
        environment = os.environ | {
            "_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)),
            "_ARGCOMPLETE_STDOUT_FILENAME": str(answer), "_ARGCOMPLETE_IFS": "\n",
        }  # fmt: skip
        code = "import sys; sys.argv[0] = 'hypersphere'; from hypersphere.cli import main; main()"
        subprocess.run([sys.executable, "-c", code], env=environment, check=True)
        return {word.strip() for word in answer.read_text().split("\n")}

    assert {"explain", "diff", "doctor"} <= ask("hypersphere ")
    assert ask("hypersphere explain n") == {"nsl"}
    assert "table2" in ask("hypersphere explain nsl t")
    assert "triplet" in ask("hypersphere explain nsl table2 t")
    assert ask("hypersphere plan --preset s") == {"small"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed_for_a_shell(capsys, shell):
    status, out, _ = hypersphere(capsys, "completion", shell)
    assert status == 0 and "hypersphere" in out and "_ARGCOMPLETE" in out.upper()


def test_stores_need_no_data(trained, monkeypatch):
    """What is told of committed records is told without the data and without run folders."""
    monkeypatch.setenv("HYPERSPHERE_RUNS", "/nonexistent")
    elsewhere = Store(trained.runs.parent / "none", trained.results)
    _, told = one(elsewhere, "table1", "2")
    assert told["n"] == 2 and all(run["folder"] is None for run in told["runs"])


@pytest.mark.slow
def test_the_printed_command_makes_the_same_number_again(store, tmp_path):
    """Of a real item: what `explain` prints, run in a shell with an empty run store."""
    run_all(make_plan("quick", ["fixed-vectors"], ["table1"]), store)
    found = find("fixed-vectors", "table1", [], "quick", "", store)
    told = explained(found[0], store)
    run = told["runs"][0]
    again = tmp_path / "again"
    for line in run["commands"]:
        words = [sys.executable, *shlex.split(line)[1:]]
        environment = os.environ | {"HYPERSPHERE_RUNS": str(again), "OMP_NUM_THREADS": "1"}
        subprocess.run(words, env=environment, cwd=paths.root(), check=True, capture_output=True)
    made = Store(again, tmp_path / "none")
    assert made.get(run["record"])["metrics"] == store.get(run["record"])["metrics"]
    assert made.get(run["run_id"])["epochs"] is not None
