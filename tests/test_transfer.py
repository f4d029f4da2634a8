"""One file over http: resumed, checked while it comes, given up where it must be, and shown."""

import hashlib
import io
import re
import time

import pytest

from hypersphere.data.facts import Download
from hypersphere.data.fetching import transfer
from hypersphere.data.fetching.download import get
from tests.publisher import BODY, Site, failure, left, md5, part, plain, quiet, resource, waiting


def test_a_file_is_downloaded_and_put_in_place(site, data):
    assert quiet("a_set", plain(site)) == [site.url()]
    assert (data / "set/x.bin").read_bytes() == BODY
    assert site.requests == [("good/x.bin", None)]
    assert left(data) == ["set/x.bin"] and not (data / ".downloads").exists()


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_mirror_may_end_in_a_slash(site, data, slash):
    one = plain(site).downloads[0]
    quiet("a_set", resource(Download("x.bin", (site.url() + slash,), one.checksum, into="set")))
    assert site.requests == [("good/x.bin", None)]


@pytest.mark.parametrize("kind", ["md5", "sha256", "git"])
@pytest.mark.parametrize("size", [None, len(BODY)])
def test_checksums(site, data, kind, size):
    right = {
        "md5": hashlib.md5(BODY),
        "sha256": hashlib.sha256(BODY),
        "git": hashlib.sha1(f"blob {len(BODY)}\0".encode() + BODY),
    }[kind].hexdigest()
    quiet("a_set", plain(site, checksum=f"{kind}:{right}", bytes=size))
    assert left(data) == ["set/x.bin"]
    wrong = ("0" if right[0] != "0" else "1") + right[1:]
    line = failure("other", plain(site, checksum=f"{kind}:{wrong}", bytes=size), replace=True)
    assert f"checksum {kind}:{right}, expected {kind}:{wrong}" in line
    assert left(data) == ["set/x.bin"] and waiting(data) == {}


def test_a_git_id_is_the_one_git_gives(tmp_path, data, site):
    line = "git:ce013625030ba8dba906f756967f9e9ca394464a"  # echo hello | git hash-object --stdin
    quiet("a_set", plain(site, body=b"hello\n", checksum=line, bytes=None))
    assert left(data) == ["set/x.bin"]


def test_without_a_published_checksum_its_own_is_told(site, data):
    said = []
    get("a_set", plain(site, checksum=""), say=said.append)
    (line,) = [line for line in said if "could not be verified" in line]
    assert f"sha256:{hashlib.sha256(BODY).hexdigest()}" in line and "only its size" in line


def test_without_checksum_and_size_the_length_the_server_tells_still_counts(site, data):
    site.manners["bad"] = {"cut": 1000, "no_range": True}
    quiet("a_set", plain(site, "bad", "good", checksum="", bytes=None))
    assert (data / "set/x.bin").read_bytes() == BODY


def test_a_cut_connection_is_resumed_from_the_byte_it_broke_at(site, data):
    site.manners["good"] = {"cut": 55_000}  # more often than TRIES, and always with something new
    quiet("a_set", plain(site))
    assert site.ranges() == [None, *(f"bytes={n * 55_000}-" for n in range(1, 6))]
    assert (data / "set/x.bin").read_bytes() == BODY


def test_the_next_mirror_goes_on_from_the_bytes_of_the_last(site, data):
    manner = site.manners["bad"] = {"cut": 50_000}
    manner["status"] = lambda n: 503 if n > 1 else None
    said = []
    get("a_set", plain(site, "bad", "good"), say=said.append)
    assert site.ranges("bad") == [None, "bytes=50000-", "bytes=50000-"]
    assert site.ranges("good") == ["bytes=50000-"]
    assert (data / "set/x.bin").read_bytes() == BODY
    assert any("/bad/x.bin: HTTP 503" in line and "good/x.bin" in line for line in said)


def test_a_later_call_resumes(site, data):
    site.manners["good"] = {"cut": 100_000, "status": lambda n: 500 if n > 1 else None}
    assert "HTTP 500" in failure("a_set", plain(site))
    assert left(data) == [] and waiting(data) == {"x.bin.part": 100_000}
    del site.manners["good"]
    quiet("a_set", plain(site))
    assert site.ranges()[-1] == "bytes=100000-"
    assert (data / "set/x.bin").read_bytes() == BODY and waiting(data) == {}


def test_a_whole_part_is_not_asked_for_again(site, data):
    part(data, BODY)
    quiet("a_set", plain(site))
    assert site.requests == [] and left(data) == ["set/x.bin"]


def test_416_says_that_a_file_of_unknown_size_is_whole(site, data):
    part(data, BODY)
    quiet("a_set", plain(site, bytes=None))
    assert site.ranges() == [f"bytes={len(BODY)}-"] and left(data) == ["set/x.bin"]


def test_416_of_another_size_starts_again(site, data):
    part(data, BODY + b"more")
    quiet("a_set", plain(site, bytes=None))
    assert site.ranges() == [f"bytes={len(BODY) + 4}-", None]
    assert (data / "set/x.bin").read_bytes() == BODY


def test_416_of_another_size_is_no_proof_where_there_is_no_checksum(site, data):
    part(data, b"?" * (len(BODY) + 4))
    quiet("a_set", plain(site, checksum="", bytes=None))
    assert (data / "set/x.bin").read_bytes() == BODY


def test_416_of_a_mirror_whose_file_is_too_short(site, data):
    part(data, BODY[:1000])
    site.files["short/x.bin"] = BODY[:1000]
    assert "offers 1000 bytes" in failure("a_set", plain(site, "short", checksum=""))
    assert site.ranges("short") == ["bytes=1000-", None] and left(data) == []


def test_a_part_longer_than_the_file_starts_again(site, data):
    part(data, BODY + b"more")
    quiet("a_set", plain(site))
    assert site.ranges() == [None] and (data / "set/x.bin").read_bytes() == BODY


def test_a_server_without_ranges_sends_all_again(site, data):
    part(data, b"?" * 1000)  # would end up in front if the answer were appended
    site.manners["good"] = {"no_range": True}
    quiet("a_set", plain(site))
    assert site.ranges() == ["bytes=1000-"] and (data / "set/x.bin").read_bytes() == BODY


@pytest.mark.parametrize("wrong", ["bytes 0-299999/300000", "nonsense", ""])
def test_a_content_range_that_does_not_fit_starts_again(site, data, wrong):
    part(data, BODY[:1000])
    site.manners["good"] = {"content_range": wrong}
    quiet("a_set", plain(site))
    assert site.ranges() == ["bytes=1000-", None]
    assert (data / "set/x.bin").read_bytes() == BODY


def test_bad_bytes_of_an_earlier_call_do_not_condemn_a_good_mirror(site, data):
    part(data, b"?" * 1000)
    quiet("a_set", plain(site))
    assert site.ranges() == ["bytes=1000-", None]
    assert (data / "set/x.bin").read_bytes() == BODY


def test_a_server_that_always_cuts_and_knows_no_range_is_given_up(site, data):
    site.manners["bad"] = {"cut": 10_000, "no_range": True}
    line = failure("a_set", plain(site, "bad"))
    assert "the connection ended after 10000 of 300000 bytes" in line
    assert len(site.requests) <= transfer.TRIES + 1


def test_another_size_is_refused_before_a_byte_is_taken(site, data):
    part(data, BODY[:1000])
    site.files["bad/x.bin"] = b"<html>" * 7
    site.manners["bad"] = {"no_range": True}
    site.manners["worse"] = {"status": 404}
    line = failure("a_set", plain(site, "bad", "worse"))
    assert "offers 42 bytes, expected 300000" in line
    assert waiting(data) == {"x.bin.part": 1000}  # what was there is still good to go on from


def test_a_length_that_is_too_large_ends_at_the_next_mirror(site, data):
    site.manners["bad"] = {"length": len(BODY) + 500}
    quiet("a_set", plain(site, "bad", "good", bytes=None))
    assert (data / "set/x.bin").read_bytes() == BODY


@pytest.mark.parametrize("size, reason", [(+9, "sends more than"), (-9, "connection ended")])
def test_without_a_length_the_known_size_decides(site, data, size, reason):
    site.files["bad/x.bin"] = (BODY + b"?" * 9)[: len(BODY) + size]
    site.manners["bad"] = {"no_length": True, "no_range": True}
    assert reason in failure("a_set", plain(site, "bad"))
    assert left(data) == []


def test_an_empty_answer_is_no_file(site, data):
    site.files["bad/x.bin"] = b""
    assert "empty file" in failure("a_set", plain(site, "bad", checksum="", bytes=None))
    assert left(data) == [] and waiting(data) == {}


def test_a_wrong_checksum_deletes_the_bytes_and_tries_the_next_mirror(site, data):
    site.files["bad/x.bin"] = bytes(len(BODY))
    quiet("a_set", plain(site, "bad", "good"))
    assert site.requests == [("bad/x.bin", None), ("good/x.bin", None)]
    assert (data / "set/x.bin").read_bytes() == BODY


def test_when_no_mirror_is_good_one_line_names_everything(site, data):
    forged = bytes(len(BODY))
    site.files["one/x.bin"] = forged
    site.manners |= {"two": {"status": 404}, "three": {"status": 500}}
    line = failure("a_set", plain(site, "one", "two", "three"))
    assert line.startswith("a_set: no good copy of x.bin found")
    assert f"{site.url('one')}/x.bin: checksum {md5(forged)}, expected {md5(BODY)}" in line
    assert f"{site.url('two')}/x.bin: HTTP 404" in line
    assert f"{site.url('three')}/x.bin: HTTP 500" in line
    assert "`hypersphere data get a_set --from FOLDER`" in line
    assert site.hosts() == ["one", "two"] + ["three"] * transfer.TRIES
    assert left(data) == [] and waiting(data) == {} and not (data / ".downloads").exists()


def test_a_server_that_hangs_is_left_after_the_timeout(site, data, monkeypatch):
    monkeypatch.setattr(transfer, "TIMEOUT", 0.1)
    site.manners["hung"] = {"hang": True}  # until it hangs up itself, which reads differently
    assert "timed out" in failure("a_set", plain(site, "hung"))


def test_a_server_that_stops_midway_is_asked_again(site, data, monkeypatch):
    monkeypatch.setattr(transfer, "TIMEOUT", 0.2)
    site.manners["slow"] = {"pause": 1.0}
    site.manners["slow"]["status"] = lambda n: site.manners.pop("slow") and None if n > 1 else None
    quiet("a_set", plain(site, "slow"))
    assert site.ranges("slow")[1] == "bytes=10000-"
    assert (data / "set/x.bin").read_bytes() == BODY


def test_nobody_listens(site, data, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda s: pytest.fail("it waits for nobody"))
    closed = Site()
    closed.close()
    one = plain(site).downloads[0]
    both = Download("x.bin", (closed.url(), site.url()), one.checksum, one.bytes, "set")
    said = []
    get("a_set", resource(both), say=said.append)
    assert any("refused" in line.lower() for line in said) and left(data) == ["set/x.bin"]


# Room on the disk


def test_a_disk_that_fills_up_midway_stops_at_once_and_keeps_the_bytes(site, data, monkeypatch):
    real = open

    class Full(io.FileIO):
        def write(self, chunk):
            if self.tell() > 50_000:
                raise OSError(28, "No space left on device")
            return super().write(chunk)

    monkeypatch.setattr(
        transfer,
        "open",
        lambda p, m="r", **k: Full(p, m) if m == "ab" else real(p, m, **k),
        raising=False,
    )
    line = failure("a_set", plain(site, "good", "other"))
    assert "x.bin.part: cannot be written (No space left on device)" in line
    assert site.hosts() == ["good"] and left(data) == []
    monkeypatch.undo()
    assert waiting(data)["x.bin.part"] > 50_000


# What is shown


def test_sizes_read_well():
    sizes = {
        0: "0 B",
        999: "999 B",
        40128: "40.1 kB",
        999_960: "1.0 MB",
        170498071: "170.5 MB",
        186e9: "186.0 GB",
    }
    assert {size: transfer.size_text(size) for size in sizes} == sizes


def test_lines_of_progress_without_a_terminal(site, data, monkeypatch):
    monkeypatch.setattr(transfer, "LINE_AFTER", 0.0)
    said = []
    site.manners["good"] = {"pause": 0.001}
    get("a_set", plain(site), say=said.append)
    assert said[0] == f"x.bin (300.0 kB) from {site.url()}/x.bin"
    told = [int(re.fullmatch(r"x.bin: .* of 300.0 kB, (\d+)%", line)[1]) for line in said[1:]]
    assert told == sorted(told) and 1 <= len(told) <= 10
    assert all(b - a >= 9 for a, b in zip(told, told[1:]))


def test_a_bar_on_a_terminal(site, data, monkeypatch):
    from rich.console import Console

    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    monkeypatch.setattr(transfer, "Console", lambda stderr: console)
    said = []
    get("a_set", plain(site), say=said.append)
    assert "x.bin" in screen.getvalue() and "300.0/300.0 kB" in screen.getvalue()
    assert len(said) == 1
