"""Records survive what happens to files; one process at a time owns a run."""

import json
import math
import multiprocessing
import os
import signal
import threading
import time

import pytest

from hypersphere.errors import UserError
from hypersphere.files import write_atomically, write_text
from hypersphere.store import SCHEMA, Store, read_lines, write_lines
from hypersphere.store.records import decode, encode


def record(run_id="aaaaaaaaaaaa", **more):
    return {"schema": SCHEMA, "run_id": run_id, "kind": "training", **more}


def test_numbers_without_json_survive():
    before = record(
        metrics={"loss": math.nan, "up": math.inf, "down": [-math.inf, 1.5, 3]},
        flag=True,
        none=None,
    )
    line = encode(before)
    assert "\n" not in line and "Infinity" in line
    json.loads(line, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
    after = decode(line)
    assert math.isnan(after["metrics"].pop("loss")) and math.isnan(before["metrics"].pop("loss"))
    assert after == before


def test_floats_survive_bit_for_bit():
    values = [0.1 + 0.2, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0]
    again = decode(encode(record(values=values)))["values"]
    assert [x.hex() for x in again] == [x.hex() for x in values]


def test_encoding_does_not_depend_on_the_order_of_keys():
    a = record(x=1, y={"p": 1, "q": 2})
    assert encode(a) == encode({**{k: a[k] for k in reversed(a)}, "y": {"q": 2, "p": 1}})


GOOD = encode(record("aaaaaaaaaaaa"))
BAD = {
    "truncated": GOOD[:20],
    "foreign": '{"loss": 1.0, "epoch": 3}',
    "a list": "[1, 2, 3]",
    "a number": "17",
    "text": "no JSON at all",
    "newer": json.dumps({"schema": SCHEMA + 1, "run_id": "bbbbbbbbbbbb", "kind": "training"}),
    "schema is text": json.dumps({"schema": "one", "run_id": "bbbbbbbbbbbb", "kind": "training"}),
    "run_id is a list": json.dumps({"schema": SCHEMA, "run_id": ["b"], "kind": "training"}),
}


every_bad_line = pytest.mark.parametrize("kind", BAD)


@every_bad_line
def test_a_bad_line_costs_that_line_alone(tmp_path, kind):
    file = tmp_path / "records.jsonl"
    file.write_text(f"{GOOD}\n\n{BAD[kind]}\n{encode(record('cccccccccccc'))}\n")
    records, complaints = read_lines(file)
    assert list(records) == ["aaaaaaaaaaaa", "cccccccccccc"]
    assert len(complaints) == 1
    assert complaints[0].startswith(f"{file}:3: ") and "\n" not in complaints[0]
    if kind == "newer":
        assert "newer hypersphere" in complaints[0]


@every_bad_line
def test_rewriting_keeps_what_was_rejected(tmp_path, kind):
    file = tmp_path / "records.jsonl"
    file.write_text(f"{GOOD}\n{BAD[kind]}\n")
    for _ in range(2):  # the second time there is nothing to reject, and nothing is lost
        records, _ = read_lines(file)
        write_lines(file, records.values())
        assert file.read_text() == f"{GOOD}\n"
        assert (tmp_path / "records.rejected").read_text() == f"{BAD[kind]}\n"


def test_rejected_lines_add_up(tmp_path):
    file = tmp_path / "records.jsonl"
    for bad in ("one {", "two {", "one {"):
        file.write_text(f"{GOOD}\n{bad}\n")
        write_lines(file, read_lines(file)[0].values())
    assert (tmp_path / "records.rejected").read_text() == "one {\ntwo {\n"


def test_bytes_that_are_no_text(tmp_path):
    file = tmp_path / "records.jsonl"
    file.write_bytes(
        GOOD.encode() + b"\n\xff\xfe\x00\x80\n" + encode(record("cccccccccccc")).encode() + b"\n"
    )
    records, complaints = read_lines(file)
    assert list(records) == ["aaaaaaaaaaaa", "cccccccccccc"]
    assert len(complaints) == 1 and f"{file}:2" in complaints[0]


def test_lines_are_sorted_and_the_same_whatever_the_order(tmp_path):
    records = [record(c * 12, value=c) for c in "cab"]
    write_lines(tmp_path / "one.jsonl", records)
    write_lines(tmp_path / "two.jsonl", reversed(records))
    text = (tmp_path / "one.jsonl").read_text()
    assert text == (tmp_path / "two.jsonl").read_text() and text.endswith("\n")
    assert [json.loads(line)["run_id"][0] for line in text.splitlines()] == ["a", "b", "c"]
    assert not list(tmp_path.glob("*.rejected"))


def test_a_missing_file_is_an_empty_one(tmp_path):
    assert read_lines(tmp_path / "none.jsonl") == ({}, [])


# Writing


def test_writing_is_atomic(tmp_path):
    file = tmp_path / "folder" / "file.txt"
    write_text(file, "one\r\ntwo\n")
    assert file.read_bytes() == b"one\r\ntwo\n"
    write_text(file, "three ü")
    assert file.read_text(encoding="utf-8") == "three ü"
    assert [f.name for f in file.parent.iterdir()] == ["file.txt"]


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("bug"), KeyboardInterrupt()]
)
def test_a_failed_write_leaves_the_old_file_alone(tmp_path, error):
    file = tmp_path / "file.txt"
    write_text(file, "old")

    def fail(temporary):
        temporary.write_text("half")
        raise error

    with pytest.raises(UserError if isinstance(error, OSError) else type(error)) as caught:
        write_atomically(file, fail)
    if isinstance(error, OSError):
        assert str(file) in str(caught.value) and "No space left" in str(caught.value)
    assert file.read_text() == "old"
    assert [f.name for f in tmp_path.iterdir()] == ["file.txt"]


def test_a_reader_never_sees_half_a_file(tmp_path):
    file = tmp_path / "file.txt"
    write_text(file, "old")

    def write(temporary):
        assert temporary.parent == file.parent  # else the rename would not be atomic
        temporary.write_text("new")
        assert file.read_text() == "old"

    with open(file) as reader:
        write_atomically(file, write)
        assert reader.read() == "old"  # renamed over, not written over
    assert file.read_text() == "new"


def test_an_unwritable_folder(tmp_path):
    # Below a regular file, where root cannot write either.
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "runs", tmp_path / "results")
    with pytest.raises(UserError, match="HYPERSPHERE_RUNS") as error:
        store.write(record())
    assert str(tmp_path / "file" / "runs") in str(error.value) and "\n" not in str(error.value)
    assert "aaaaaaaaaaaa" not in store.records
    with pytest.raises(UserError, match="HYPERSPHERE_RUNS"), store.claim("aaaaaaaaaaaa"):
        pass


# Finding


def test_store_uses_the_environment(tmp_path):
    store = Store()
    assert (store.runs, store.results) == (tmp_path / "runs", tmp_path / "results")
    assert store.records == {} and store.get("aaaaaaaaaaaa") is None


def test_a_written_record_is_found_by_this_and_other_stores(tmp_path):
    first, earlier = Store(), Store()
    first.write(record(value=1.5))
    for store in (first, earlier, Store()):
        assert store.get("aaaaaaaaaaaa")["value"] == 1.5
    assert [f.name for f in first.folder("aaaaaaaaaaaa").iterdir()] == ["record.json"]


def test_records_are_found_when_runs_are_elsewhere(tmp_path):
    write_lines(tmp_path / "results" / "small" / "records.jsonl", [record("aaaaaaaaaaaa", value=1)])
    write_lines(tmp_path / "results" / "paper" / "records.jsonl", [record("bbbbbbbbbbbb", value=2)])
    store = Store()
    assert not store.runs.exists()
    assert {r: store.get(r)["value"] for r in store.records} == {
        "aaaaaaaaaaaa": 1,
        "bbbbbbbbbbbb": 2,
    }


def test_complaints_name_each_unreadable_record(tmp_path):
    Store().write(record())
    for name, text in (("bbbbbbbbbbbb", GOOD[:15]), ("cccccccccccc", BAD["newer"])):
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "record.json").write_text(text)
    (tmp_path / "results" / "small").mkdir(parents=True)
    (tmp_path / "results" / "small" / "records.jsonl").write_text("{\n")
    store = Store()
    assert list(store.records) == ["aaaaaaaaaaaa"]
    assert len(store.complaints) == 3
    assert store.complaints[0].startswith(f"{tmp_path}/results/small/records.jsonl:1: ")
    for complaint, name in zip(store.complaints[1:], ("bbbbbbbbbbbb", "cccccccccccc"), strict=True):
        assert (
            complaint.startswith(f"{tmp_path}/runs/{name}/record.json: ")
            and "not done" in complaint
        )


# One owner


def test_owner(tmp_path):
    store = Store()
    assert store.owner("aaaaaaaaaaaa") == ""
    with store.claim("aaaaaaaaaaaa"):
        assert store.owner("aaaaaaaaaaaa").startswith(f"pid {os.getpid()} on ")
    assert store.owner("aaaaaaaaaaaa") == ""


def test_a_claim_ends_with_an_error_too():
    store = Store()
    with pytest.raises(RuntimeError), store.claim("aaaaaaaaaaaa"):
        raise RuntimeError
    waits = []
    with store.claim("aaaaaaaaaaaa", waits.append):
        assert waits == []


def test_different_runs_do_not_wait_for_each_other():
    store, waits = Store(), []
    with store.claim("aaaaaaaaaaaa"), store.claim("bbbbbbbbbbbb", waits.append):
        assert waits == []


def _own(store, pipe):
    """A process that owns the run until it is told to finish, then writes its record."""
    with store.claim("aaaaaaaaaaaa"):
        pipe.send("claimed")
        pipe.recv()
        time.sleep(0.1)  # whoever does not wait comes too early
        store.write(record(owner=os.getpid()))


def owner_process(method):
    context = multiprocessing.get_context(method)
    here, there = context.Pipe()
    process = context.Process(target=_own, args=(Store(), there))
    process.start()
    assert here.poll(60) and here.recv() == "claimed"
    return process, here


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_the_second_process_waits_and_finds_the_record(method):
    process, pipe = owner_process(method)
    store, waits = Store(), []
    assert store.get("aaaaaaaaaaaa") is None

    def waiting(line):
        waits.append(line)
        pipe.send("finish")  # only now: the claim below has met the owner

    with store.claim("aaaaaaaaaaaa", waiting):
        assert store.get("aaaaaaaaaaaa")["owner"] == process.pid
    assert len(waits) == 1 and f"pid {process.pid} on " in waits[0]
    process.join(10)
    assert process.exitcode == 0


def test_a_killed_owner_holds_nothing():
    process, _ = owner_process("fork")
    os.kill(process.pid, signal.SIGKILL)
    process.join(10)
    assert process.exitcode == -signal.SIGKILL
    store, waits = Store(), []
    assert store.get("aaaaaaaaaaaa") is None
    started = time.monotonic()
    with store.claim("aaaaaaaaaaaa", waits.append):
        assert waits == [] and time.monotonic() - started < 1
        assert store.owner("aaaaaaaaaaaa").startswith(f"pid {os.getpid()} ")


def test_many_claims_one_at_a_time():
    inside, most = 0, 0

    def work():
        nonlocal inside, most
        with Store().claim("aaaaaaaaaaaa"):
            inside += 1
            most = max(most, inside)
            time.sleep(0.005)
            inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert most == 1
