"""Owning a run across processes, machines and clocks; what the store says of runs under way."""

import errno
import fcntl
import json
import os
import signal
import threading
import time

import pytest

from hypersphere.errors import UserError
from hypersphere.store import SCHEMA, Store, TakenError, leases, states

RUN = "aaaaaaaaaaaa"


@pytest.fixture
def store(monkeypatch):
    monkeypatch.setenv("HYPERSPHERE_STALE", "0.6")
    return Store()


@pytest.fixture
def no_locks(monkeypatch):
    """A file system without the kernel's locks."""

    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)


def far_away(store, beats=0, number=1, **more):
    """A lease of a process on another machine."""
    folder = store.folder(RUN)
    folder.mkdir(parents=True, exist_ok=True)
    about = {"pid": 7, "host": "n7", "kernel": "n7 other", "job": "slurm 12_3", "beats": beats}
    path = folder / f"lease.{number}.json"
    path.write_text(json.dumps(about | more))
    return path


def claimed_after(store, wait=lambda line: None):
    started = time.monotonic()
    with store.claim(RUN, wait):
        return time.monotonic() - started


def record():
    return {"schema": SCHEMA, "run_id": RUN, "kind": "training"}


def test_a_silent_lease_of_another_machine_is_taken_over(store):
    far_away(store)
    said = []
    assert claimed_after(store, said.append) >= 0.6
    assert said == [f"run {RUN} is being trained by pid 7 on n7 (slurm 12_3)"]
    assert sorted(p.name for p in store.folder(RUN).glob("lease.*")) == ["lease.2.json"]
    assert claimed_after(store, said.append) < 0.5 and len(said) == 1  # released: at once


@pytest.mark.parametrize("date", [0, 4e9], ids=["clock far behind", "clock far ahead"])
def test_a_lease_that_beats_is_never_taken_whatever_the_clocks_say(store, date):
    stop = time.monotonic() + 1.5
    last = []

    def beat():
        beats = 0
        while time.monotonic() < stop:
            path = far_away(store, beats := beats + 1)
            os.utime(path, (date, date))
            last.append(time.monotonic())
            time.sleep(0.1)

    far_away(store)
    thread = threading.Thread(target=beat)
    thread.start()
    with store.claim(RUN):
        assert time.monotonic() - last[-1] >= 0.5
    thread.join()


def test_our_own_lease_beats(store, monkeypatch):
    with store.claim(RUN):
        (path,) = store.folder(RUN).glob("lease.*")
        before = path.read_text()
        time.sleep(0.5)
        assert path.read_text() != before


def test_a_clock_that_jumps_back_takes_nothing_away(store, monkeypatch):
    with store.claim(RUN):
        monkeypatch.setattr(time, "time", lambda: 1.0)
        time.sleep(0.4)
        assert store.owner(RUN).startswith(f"pid {os.getpid()} on")
        assert store.state(RUN).name == "running"
        store.write(record())
    assert store.get(RUN) is not None
    assert claimed_after(store) < 0.5


def test_whoever_was_overtaken_writes_no_record(store):
    with pytest.raises(UserError, match="another one took the run over"):
        with store.claim(RUN):
            far_away(store, number=2)
            store.write(record())
    assert Store().get(RUN) is None and store.get(RUN) is None
    assert [p.name for p in store.folder(RUN).glob("lease.*")].count("lease.2.json") == 1


def test_without_locks_one_at_a_time(store, no_locks):
    inside = most = 0
    far_away(store)  # silent: all want to take it over at the same moment

    def work():
        nonlocal inside, most
        with Store().claim(RUN):
            inside += 1
            most = max(most, inside)
            time.sleep(0.02)
            inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join(30) for thread in threads]
    assert most == 1 and not any(thread.is_alive() for thread in threads)


def killed_while_owning(store):
    pid = os.fork()
    if pid == 0:
        with store.claim(RUN):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    return pid


def test_without_locks_a_killed_owner_is_known_by_its_silence(store, no_locks):
    killed_while_owning(store)
    assert claimed_after(store) >= 0.5


def test_a_lock_that_a_server_keeps_for_a_machine_that_is_gone(store):
    far_away(store)
    with open(store.folder(RUN) / leases.LOCK, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert 0.6 <= claimed_after(store) < 5


def test_a_damaged_lease_is_waited_for_then_taken(store):
    far_away(store).write_text('{"pid": 7, "ho')
    assert claimed_after(store) >= 0.6


def test_not_waiting(store):
    far_away(store)
    with pytest.raises(TakenError, match=RUN), store.hurried().claim(RUN):
        pass
    with store.hurried().claim("bbbbbbbbbbbb"):
        assert store.owner("bbbbbbbbbbbb")


def test_a_bad_setting(store, monkeypatch):
    monkeypatch.setenv("HYPERSPHERE_STALE", "2 min")
    with pytest.raises(UserError, match="HYPERSPHERE_STALE='2 min': a number of seconds"):
        claimed_after(store)


# States


def test_states(store):
    assert store.state(RUN).name == "missing"
    store.queued(RUN, launcher="slurm", job="9_1")
    assert str(store.state(RUN)) == "queued: slurm 9_1"
    with store.claim(RUN):
        state = store.state(RUN)
        assert state.name == "running" and state.about["pid"] == os.getpid()
        assert state.about["silent"] < 5
    assert store.state(RUN).name == "missing"  # given up in good order, nothing noted
    store.failed(RUN, "Traceback\n...\nZeroDivisionError: made up\n", mendable=False)
    assert str(store.state(RUN)) == "failed: ZeroDivisionError: made up"
    store.queued(RUN, launcher="ray", job="1")
    store.forget(RUN)
    assert store.state(RUN).name == "missing"
    store.failed(RUN, "full", mendable=True)
    with store.claim(RUN):
        store.write(record())
    assert store.state(RUN).name == "done" and Store().state(RUN).name == "done"
    assert not (store.folder(RUN) / states.FAILED).exists()


def test_a_killed_owner_is_interrupted_here_at_once_and_elsewhere_when_silent(store):
    pid = killed_while_owning(store)
    state = store.state(RUN)
    assert state.name == "interrupted" and f"pid {pid} on" in str(state)
    path = far_away(store, number=9)
    assert store.state(RUN).name == "running" and "(slurm 12_3)" in str(store.state(RUN))
    os.utime(path, (time.time() - 600, time.time() - 600))
    assert "last sign of life 10 min ago" in str(store.state(RUN))
    assert store.state(RUN).name == "interrupted"


def test_a_damaged_note_says_so(store):
    store.failed(RUN, "x", mendable=True)
    (store.folder(RUN) / states.FAILED).write_text("{")
    assert "failed.json cannot be read" in str(store.state(RUN))
