"""Interrupted, killed and rival processes: a dataset comes whole, once, or not at all."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from hypersphere.data.fetching import download
from hypersphere.data.fetching.download import get
from hypersphere.errors import UserError
from tests.publisher import (
    BODY,
    INSIDE,
    archived,
    failure,
    left,
    md5,
    part,
    plain,
    quiet,
    two,
    waiting,
)

# While files are moved to their place


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("at", range(4))
def test_a_move_that_fails_is_undone_and_done_by_the_next_call(site, data, monkeypatch, at, fault):
    (data / "set").mkdir(parents=True)
    for name in ("one", "two"):
        (data / "set" / name).write_text("old")
    calls, rename = [], os.rename

    def broken(source, target):
        inside = not str(source).endswith(".unpacking")
        calls.append(source) if inside else None
        if inside and len(calls) == at + 1:
            raise fault
        rename(source, target)

    monkeypatch.setattr(os, "rename", broken)
    with pytest.raises(UserError if isinstance(fault, OSError) else KeyboardInterrupt):
        quiet("a_set", two(site), replace=True)
    monkeypatch.setattr(os, "rename", rename)
    assert [(data / "set" / n).read_text() for n in ("one", "two")] == ["old", "old"]
    assert not (data / ".a_set.replaced").exists()
    site.requests.clear()
    failure("a_set", two(site))  # without replace the old is still protected
    quiet("a_set", two(site), replace=True)
    assert site.requests == [] and left(data) == ["set/one", "set/two"]
    assert (data / "set/two").read_text() == "new two"


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("replace", [False, True])
def test_a_process_killed_while_moving_is_finished_by_the_next_call(site, data, at, replace):
    old = "old" if replace else None
    (data / "set").mkdir(parents=True)
    for name in ("one", "two") if replace else ():
        (data / "set" / name).write_text(old)
    resource_ = two(site)
    pid = os.fork()
    if pid == 0:
        rename, calls = os.rename, []

        def dying(source, target):
            if not str(source).endswith(".unpacking"):
                calls.append(source)
                if len(calls) == at + 1:
                    os.kill(os.getpid(), signal.SIGKILL)
            rename(source, target)

        os.rename = dying
        try:
            quiet("a_set", resource_, replace=replace)
        finally:
            os._exit(0)
    status = os.waitpid(pid, 0)[1]
    moves = 4 if replace else 2
    assert os.WIFSIGNALED(status) == (at < moves)
    site.requests.clear()
    if at < moves:
        assert {p.read_text() for p in (data / "set").iterdir()} <= {"old", "new one", "new two"}
        quiet("a_set", resource_)  # what was replacing goes on replacing
    assert site.requests == [] and left(data) == ["set/one", "set/two"]
    assert [(data / "set" / n).read_text() for n in ("one", "two")] == ["new one", "new two"]
    assert not [p for p in data.iterdir() if p.name != "set"]


def test_a_process_killed_while_clearing_up_is_finished_by_the_next_call(site, data):
    resource_ = plain(site)
    quiet("a_set", resource_)
    (data / ".a_set.unpacked").mkdir()
    (data / ".a_set.replaced").mkdir()
    (data / ".a_set.replaced/0-x.bin").write_text("old")
    site.requests.clear()
    assert quiet("a_set", resource_) == []
    assert site.requests == [] and [p.name for p in data.iterdir()] == ["set"]
    assert (data / "set/x.bin").read_bytes() == BODY


def test_left_overs_of_a_killed_call_are_removed(site, data):
    (data / ".a_set.unpacking/A").mkdir(parents=True)
    (data / ".a_set.unpacking/A/half").write_text("?")
    (data / ".a_set.unpacked/rubbish").mkdir(parents=True)
    quiet("a_set", archived(site, "a.zip"))
    assert left(data) == sorted(INSIDE) and [p.name for p in data.iterdir()] == ["A"]


# While they are downloaded


CHILD = """
import sys
from hypersphere.data.fetching import download
from hypersphere.data.facts import Download, Resource
url, checksum = sys.argv[1:]
one = Resource(title="A set", citation="", downloads=(Download("x.bin", (url,), checksum, into="set"),))
print("returned", download.get("a_set", one, say=lambda line: print(line, flush=True)), flush=True)
"""


def child(site, host="good"):
    command = [sys.executable, "-c", CHILD, site.url(host), md5(BODY)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def in_background(said, **kwargs):
    answers = []
    call = lambda: answers.append(get("a_set", say=said.append, **kwargs))  # noqa: E731
    thread = threading.Thread(target=call)
    thread.start()
    return thread, answers


def test_a_killed_process_is_resumed_where_it_was(site, data):
    resource_ = plain(site, "slow", "good")
    site.manners["slow"] = {"pause": 0.1}
    process = child(site, "slow")
    until(lambda: waiting(data).get("x.bin.part", 0) >= 30_000)
    process.kill()
    process.communicate()
    there = waiting(data)["x.bin.part"]
    assert 30_000 <= there < len(BODY) and left(data) == []
    assert (data / ".downloads/a_set/x.bin.part").read_bytes() == BODY[:there]
    site.manners.clear()
    site.requests.clear()
    quiet("a_set", resource_)
    assert site.requests == [("slow/x.bin", f"bytes={there}-")]
    assert (data / "set/x.bin").read_bytes() == BODY and waiting(data) == {}


def test_two_processes_get_it_once(site, data):
    resource_ = plain(site, "slow")
    site.manners["slow"] = {"pause": 0.5}
    process = child(site, "slow")
    until(lambda: waiting(data).get("x.bin.part"))
    said = []
    second, answers = in_background(said, resource=resource_)
    until(lambda: said)
    assert left(data) == [] and second.is_alive()
    site.manners.clear()  # from the next connection on; this one still needs its pauses cut short
    site.ended.set()
    out, _ = process.communicate(timeout=20)
    second.join(20)
    assert f"returned {[site.url('slow')]}" in out and answers == [[]]
    assert said == ["a_set: another process is getting it; waiting for that"]
    assert len(site.requests) == 1 and left(data) == ["set/x.bin"]
    assert not (data / ".downloads").exists()


def test_the_one_that_waits_takes_over_from_one_that_is_killed(site, data):
    resource_ = plain(site, "slow")
    site.manners["slow"] = {"pause": 0.5}
    process = child(site, "slow")
    until(lambda: waiting(data).get("x.bin.part"))
    said = []
    second, answers = in_background(said, resource=resource_)
    until(lambda: said)
    site.manners.clear()
    process.kill()
    process.communicate()
    second.join(20)
    assert answers == [[site.url("slow")]] and site.requests[-1][1].startswith("bytes=")
    assert (data / "set/x.bin").read_bytes() == BODY


def test_the_one_that_waits_to_replace_does_so_when_the_other_failed(site, data):
    (data / "set").mkdir(parents=True)
    (data / "set/x.bin").write_text("old")
    resource_, said = plain(site), []
    with download._lock(download._Order("a_set", resource_, data, None, print)):
        thread, answers = in_background(said, resource=resource_, replace=True)
        until(lambda: said)
    thread.join(20)
    assert answers == [[site.url()]] and (data / "set/x.bin").read_bytes() == BODY


def test_a_lock_that_its_owner_removed_holds_nobody(site, data):
    part(data, b"")
    lock, said = data / ".downloads/a_set/lock", []
    with open(lock, "w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        thread, answers = in_background(said, resource=plain(site))
        until(lambda: said)
        lock.unlink()
        second = open(lock, "w")  # noqa: SIM115
        fcntl.flock(second, fcntl.LOCK_EX)
    time.sleep(0.1)
    assert site.requests == [] and answers == []  # the second one's turn
    second.close()
    thread.join(20)
    assert answers == [[site.url()]] and left(data) == ["set/x.bin"]


def test_many_at_once_leave_one_good_copy_and_no_lock(site, data):
    resource_, answers = plain(site), []

    def one():
        try:
            answers.append(quiet("a_set", resource_))
        except UserError as error:  # one that came when all was done
            answers.append("exists" if "exists already" in str(error) else error)

    threads = [threading.Thread(target=one) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(answers) == 8
    assert answers.count([site.url()]) == 1
    assert all(answer in ([site.url()], [], "exists") for answer in answers)
    assert len(site.requests) == 1 and not (data / ".downloads").exists()
