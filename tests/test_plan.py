"""The plan on a made-up paper: sharing, parents, draws, computations, done, missing, stale."""

import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from hypersphere.config import Evaluation
from hypersphere.errors import UserError
from hypersphere.execute import Outcome, run_nodes
from hypersphere.papers import nodes
from hypersphere.papers import spec as declarations
from hypersphere.papers.costs import trained_again
from hypersphere.papers.plan import make_plan, value_of
from hypersphere.papers.planned import stale
from hypersphere.papers.render import judged_items
from hypersphere.papers.status import item_rows, once, plan_summary
from hypersphere.store import EMBEDDINGS, Store
from tests.toy import run_all


def test_trainings_are_shared_between_items(toy):
    plan = make_plan("quick", ["toy"], ["table1", "table2"])
    # two K*, two seeds; table2 reads the same trainings
    assert len(plan.trainings()) == 4
    assert plan.requested() == 8
    assert len(plan.nodes) == 8  # and one evaluation each, for table1


def test_parents_come_first_and_are_shared(toy):
    plan = make_plan("quick", ["toy"], ["table1", "table3"])
    assert len(plan.trainings()) == 8  # the bases of table3 are table1's trainings
    order = list(plan.nodes)
    tuned = [node for node in plan.trainings() if node.parent]
    assert len(tuned) == 4
    assert all(order.index(node.parent) < order.index(node.id) for node in tuned)


def test_whole_toy_paper_runs_once_and_renders(toy):
    store = Store()
    plan = make_plan("quick", ["toy"])
    assert run_all(plan, store)
    assert plan.missing(Store()) == []
    items = {item.spec.name: judged_items(item, store)[0] for item in plan.items}

    tuned = store.records[next(node.id for node in plan.trainings() if node.parent)]
    base = store.records[tuned["parent"]]
    # starting from the base's weights, the tuned run's first epoch is far better than the base's
    assert tuned["epochs"][0]["loss"] < 0.5 * base["epochs"][0]["loss"]

    draws = items["table4"].cells[0]
    assert sorted(draws.values) == sorted(f"0/{draw}" for draw in range(10))
    assert draws.planned == 10 and draws.complete
    assert 10 < min(draws.values.values()) <= max(draws.values.values()) <= 100

    computed = items["table9"]
    assert [cell.values for cell in computed.cells] == [{"value": 3.0}, {"value": 1.5}]
    from hypersphere.reporting.verdicts import judge_item

    assert [judged.verdict for _, judged in judge_item(computed)] == ["reproduced", "differs"]


def test_a_failing_parent_fails_its_children_and_nothing_else(toy, monkeypatch):
    store = Store()
    plan = make_plan("quick", ["toy"], ["table1", "table3"])
    victim = next(node.parent for node in plan.trainings() if node.parent)
    import hypersphere.execute as execute

    real = execute.run_node

    def failing(node, *rest):
        if node.id == victim:
            raise RuntimeError("made up")
        return real(node, *rest)

    monkeypatch.setattr(execute, "run_node", failing)
    outcomes = {o.node.id: o.error for o in run_nodes(plan.missing(store), store, 1, print)}
    children = {node.id for node in plan.nodes.values() if node.parent == victim}
    assert "made up" in outcomes[victim]
    assert {node_id for node_id, error in outcomes.items() if error} == {victim} | children
    assert all("parent" in outcomes[child] for child in children)
    monkeypatch.undo()


def killed():
    """A computation whose process dies, as one without memory would."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_is_reported_not_raised(toy):
    from concurrent.futures.process import BrokenProcessPool

    from hypersphere import execute, processes
    from hypersphere.config import Component, Computation

    nodes = [Computation(Component(f"killed {i}", killed, {})) for i in range(3)]
    outcomes = list(run_nodes(nodes, Store(), 2, print))
    assert len(outcomes) == 3
    assert all("was killed" in outcome.error for outcome in outcomes)
    # and what would have been handed to the processes after that
    with processes.pool(1) as pool:
        with pytest.raises(BrokenProcessPool):
            pool.submit(killed).result()
        future = execute._submit(pool, nodes[0], True)
        assert "was killed" in execute._result(future, nodes[0]).error


def test_partial_results_are_counted_never_averaged(toy):
    store = Store()
    plan = make_plan("quick", ["toy"], ["table2"])
    done = plan.missing(store)[0]
    list(run_nodes([done], store, 1, lambda line: None))
    cells = judged_items(plan.items[0], store)[0].cells
    assert [len(cell.values) for cell in cells] == [1, 0]
    assert not any(cell.complete for cell in cells)
    row = item_rows(plan, store)[0]
    assert (row["done"], row["planned"], row["complete"]) == (1, 4, False)


def test_expected_time_follows_past_records(toy):
    store = Store()
    plan = make_plan("quick", ["toy"], ["table2"])
    assert plan_summary(plan, store, 1)["seconds"] is None  # nothing to judge by
    first, *rest = plan.missing(store)
    list(run_nodes([first], store, 1, lambda line: None))
    store.records[first.id]["seconds"] = 8.0  # 2 epochs with 8 of 10 classes
    summary = plan_summary(plan, store, 2)
    # one more with K* = 2 and two with K* = 3 (7 of 10 classes), two processes
    assert summary["seconds"] == pytest.approx(8.0 + 2 * 7.0)
    # embeddings of another dimension take as long
    backbone = store.records[first.id]["identity"]["backbone"]
    assert isinstance(backbone["dim"], int)
    backbone["dim"] += 1
    assert plan_summary(plan, store, 2)["seconds"] == summary["seconds"]
    assert summary["hours"] * 3600 == pytest.approx(11.0, abs=2.0)


def test_a_training_whose_weights_are_gone_is_planned_again(toy):
    """Records travel by git, weights do not: what judges such a training waits for it."""
    store = Store()
    plan = make_plan("quick", ["toy"])
    run_all(plan, store)
    for record in store.records.values():
        record["seconds"] = 1e4
    judged = next(node for node in plan.nodes.values() if isinstance(node, Evaluation))
    (store.folder(judged.parent) / EMBEDDINGS).unlink()
    assert plan_summary(plan, store, 1)["trained_again"] == 0  # nothing left to judge
    del store.records[judged.id]
    (store.folder(judged.id) / "record.json").unlink()
    assert [node.id for node in trained_again(plan.missing(store), store)] == [judged.parent]
    summary = plan_summary(plan, store, 1)
    assert (summary["trained_again"], summary["trainings_missing"]) == (1, 0)
    assert summary["seconds"] > 5e3  # as long as such trainings took
    list(run_nodes([judged], store, 1, lambda line: None))
    assert store.has_files(judged.parent) and plan_summary(plan, store, 1)["runnable_here"] == 0


@pytest.mark.parametrize("in_flight", [1, 2])
def test_what_rests_on_a_run_that_another_process_trains_again_is_left_for_later(toy, in_flight):
    store = Store()
    plan = make_plan("quick", ["toy"])
    run_all(plan, store)
    first, *others = (node for node in plan.nodes.values() if isinstance(node, Evaluation))
    other = next(node for node in others if node.parent != first.parent)
    for node in (first, other):
        del store.records[node.id]
        (store.folder(node.id) / "record.json").unlink()
    outcomes = run_nodes([first, other], store, 1, lambda line: None, in_flight)
    with store.claim(first.parent):
        assert next(outcomes) == Outcome(other)
    assert next(outcomes) == Outcome(first)


@pytest.mark.parametrize(("workers", "in_flight"), [(1, 1), (1, 2), (2, 1)])
def test_a_run_that_another_process_was_quicker_to_claim_is_left_for_later(
    toy, monkeypatch, workers, in_flight
):
    """Launchers that start at once see every run free, and meet at the first."""
    from hypersphere import execute

    store = Store()
    plan = make_plan("quick", ["toy"], ["table2"])
    first, other = plan.missing(store)[:2]
    monkeypatch.setattr(execute, "_taken", lambda node, store: False)

    def say(line):
        assert "is being trained by" not in line  # it waits

    outcomes = run_nodes([first, other], store, workers, say, in_flight)
    with Store().claim(first.id):
        assert next(outcomes) == Outcome(other)
    assert list(outcomes) == [Outcome(first)]


def test_revision_makes_old_records_stale(toy, monkeypatch):
    store = Store()
    plan = make_plan("quick", ["toy"], ["table2"])
    run_all(plan, store)
    from hypersphere.heads import NormalizedSoftmax

    monkeypatch.setattr(NormalizedSoftmax, "revision", 2)
    declarations.paper.cache_clear()
    nodes._composed.cache_clear()
    again = make_plan("quick", ["toy"], ["table2"])
    assert len(again.missing(store)) == 4
    assert sorted(stale(again, store).values()) == sorted(plan.nodes)
    assert plan_summary(again, store, 1)["stale"] == 4


def test_diverged_runs_give_nan(toy):
    record = {"run_id": "x", "diverged": True, "metrics": {}}
    assert math.isnan(value_of(record, "loss", "seed", 1.0)[""])


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("table1.yaml", {"titel": "x"}, "titel: no such key; did you mean 'title'?"),
        ("table1.yaml", {"margin": "wide"}, "margin='wide'"),
        ("table1.yaml", {"margin": -1}, "margin=-1"),
        ("table1.yaml", {"metric": "novel_clases/x"}, "'novel_clases'"),
        ("table1.yaml", {"metric": "training/{shot}"}, "'shot'"),
        ("table1.yaml", {"select": {"kk": "split.num_unseen"}}, "select.kk: no such column"),
        ("table1.yaml", {"select": {"k": "split.num_unsen"}}, "did you mean 'split.num_unseen'?"),
        ("table1.yaml", {"select": {"k": {"2": {}}}}, "says nothing of '3'"),
        ("table1.yaml", {"items": None}, "needs `items`"),
        (
            "table1.yaml",
            {"variants": {"x": {"select": {"kk": "seed"}}}},
            "select.kk: no such column",
        ),
        (
            "table1.yaml",
            {"variants": {"x": {"selct": {"k": 1}, "words": {}}}},
            "did you mean 'select'?",
        ),
        ("table1.yaml", {"variants": {"x": {"overrides": {"sed": 1}}}}, "sed: no such key"),
        (
            "table1.yaml",
            {"margin": {"by": "k", "words": {"2": 1}}},
            "margin: k: says nothing of '3'",
        ),
        ("table1.yaml", {"margin": {"by": "k", "words": {"2": 0}}}, "table1.margin={"),
        (
            "table1.yaml",
            {"words": {"w": {"by": "k", "words": {"2": "x"}}}},
            "words.w: k: says nothing of '3'",
        ),
        (
            "table1.yaml",
            {"largest": {"by": "k", "words": {"2": {"tables": ["table8"]}}}},
            "no item 'table8'",
        ),
        (
            "table1.yaml",
            {"largest": {"by": "k", "words": {"2": {"tables": ["table4"]}}}},
            "by split as well",
        ),
        (
            "table1.yaml",
            {"largest": {"by": "k", "words": {"2": {"tables": ["table2"], "where": {"k": 9}}}}},
            "no k ['9']",
        ),
        ("about.yaml", {"citatoin": "x"}, "did you mean 'citation'?"),
    ],
)
def test_mistakes_in_declarations_are_one_clear_line(toy, file, change, says):
    path = toy / file
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | change))
    declarations.paper.cache_clear()
    with pytest.raises(UserError) as error:
        make_plan("quick", ["toy"], ["table1"])
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_plan_is_the_same_in_another_process():
    code = (
        "import json; from hypersphere.papers.plan import make_plan;"
        "print(json.dumps(sorted(make_plan('small', ['nsl']).nodes)))"
    )
    there = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONHASHSEED": "12345"},
    )  # fmt: skip
    assert json.loads(there.stdout) == sorted(make_plan("small", ["nsl"]).nodes)


def test_an_item_that_has_no_file_yet(toy):
    with pytest.raises(UserError, match="toy figure1: not built yet .built: table1, table2"):
        make_plan("quick", ["toy"], ["figure1"])


def test_numbers_show_before_all_trainings_are_done(toy):
    """With more trainings than processes, an evaluation does not wait behind all of them."""
    plan, store = make_plan("quick", ["toy"], ["table1"]), Store()
    outcomes = list(run_nodes(plan.missing(store), store, 2, print))
    assert not [outcome.error for outcome in outcomes if outcome.error]
    kinds = [type(outcome.node).__name__ for outcome in outcomes]
    assert kinds.count("Training") == kinds.count("Evaluation") == 4
    assert "Training" in kinds[kinds.index("Evaluation") :]


POOL = """
import multiprocessing, time
from hypersphere import processes

def busy():
    print(multiprocessing.current_process().pid, flush=True)
    time.sleep(600)

if __name__ == "__main__":
    with processes.pool(1) as pool:
        pool.submit(busy).result()
"""


def test_workers_end_when_their_parent_is_killed(tmp_path):
    script = tmp_path / "pool.py"
    script.write_text(POOL)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        worker = int(parent.stdout.readline())
        os.kill(worker, 0)  # it is there
        parent.kill()
    for _ in range(600):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("the worker outlived its parent by a minute")


def test_one_seed_of_the_papers_as_the_specification_counts_it():
    """Trainings and table cells. fixed-vectors has 12 trainings more than its printed grids, since
    CIFAR-10's learning rate, which no table prints, is searched like the others."""
    found = {key: once(make_plan("paper", [key])) for key in ("nsl", "hpn", "fixed-vectors")}
    assert {k: (v["trainings"], v["table_cells"]) for k, v in found.items()} == {
        "nsl": (59, 94),
        "hpn": (54, 64),
        "fixed-vectors": (174, 204),
    }
