"""Datasets come whole or not at all, whatever the servers, archives and processes do."""

import fcntl
import functools
import gzip
import hashlib
import http.server
import io
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

from hypersphere.data import archives, download, facts, transfer
from hypersphere.data.download import get, how_to_stage
from hypersphere.data.facts import Download, Resource
from hypersphere.errors import UserError

BODY = random.Random(0).randbytes(300_000)
quiet = functools.partial(get, say=lambda line: None)


def md5(data):
    return f"md5:{hashlib.md5(data).hexdigest()}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        site = self.server.site
        asked = self.headers.get("Range")
        site.requests.append((self.path, asked))
        path = self.path.lstrip("/")
        host, _, file = path.partition("/")
        manner = site.manners.get(host, {})
        status = manner.get("status")
        if callable(status):
            status = status(len(site.requests))
        if manner.get("hang"):
            site.ended.wait(20)
            return
        body = manner.get("body", site.files.get(file))
        if status or body is None:
            self.send_response(status or 404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = 0
        if asked and not manner.get("no_range"):
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            if start >= len(body):
                self.send_response(416)
                self.send_header(
                    "Content-Range", manner.get("content_range", f"bytes */{len(body)}")
                )
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            fitting = f"bytes {start}-{len(body) - 1}/{len(body)}"
            self.send_header("Content-Range", manner.get("content_range", fitting))
        else:
            self.send_response(200)
        rest = body[start:]
        if not manner.get("no_length"):
            self.send_header("Content-Length", str(manner.get("length", len(rest))))
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        cut = manner.get("cut")
        for at in range(0, len(rest if cut is None else rest[:cut]), 10_000):
            self.wfile.write(
                rest[at : at + 10_000] if cut is None else rest[at : min(at + 10_000, cut)]
            )
            if manner.get("pause"):
                site.ended.wait(manner["pause"])

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass  # a client that went away


class Site:
    """http://localhost/<host>/<file>: `files` by name, served in the manner of <host>."""

    def __init__(self):
        self.files, self.manners, self.requests = {}, {}, []
        self.ended = threading.Event()
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.site = self
        threading.Thread(target=self.server.serve_forever, args=(0.005,), daemon=True).start()

    def url(self, host="good"):
        return f"http://127.0.0.1:{self.server.server_address[1]}/{host}"

    def ranges(self, host="good"):
        return [asked for path, asked in self.requests if path.startswith(f"/{host}/")]

    def hosts(self):
        return [path.split("/")[1] for path, _ in self.requests]


@pytest.fixture
def site():
    site = Site()
    yield site
    site.ended.set()
    site.server.shutdown()
    site.server.server_close()


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("HYPERSPHERE_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("HYPERSPHERE_MIRROR", raising=False)
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(variable, "127.0.0.1,localhost")
    monkeypatch.setattr(transfer, "BACKOFF", 0.01)
    monkeypatch.setattr(transfer, "TIMEOUT", 5.0)
    return tmp_path / "data"


def plain(site, *hosts, body=BODY, **changed):
    """A resource of one plain file, set/x.bin, on these hosts."""
    site.files["x.bin"] = body
    known = {"checksum": md5(body), "bytes": len(body)} | changed
    mirrors = tuple(site.url(host) for host in hosts or ["good"])
    return resource(Download("x.bin", mirrors, into="set", **known), where=("set",))


def resource(*downloads, where=(), note=""):
    return Resource(title="A set", citation="none", where=where, downloads=downloads, note=note)


def left(data):
    """Everything under the data folder, without the places of downloads that wait."""
    paths = [p.relative_to(data).as_posix() for p in data.rglob("*") if not p.is_dir()]
    return sorted(path for path in paths if not path.startswith(".downloads"))


def waiting(data):
    folder = data / ".downloads"
    return {p.name: p.stat().st_size for p in folder.rglob("*") if p.is_file()}


def failure(*args, **kwargs):
    with pytest.raises(UserError) as error:
        quiet(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---- archives to make


def tar(members, mode="w:gz"):
    """members: name -> bytes, or a TarInfo's changes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as file:
        for name, value in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(value, dict):
                vars_ = {"type": tarfile.REGTYPE} | value
                for key, changed in vars_.items():
                    setattr(info, key, changed)
                file.addfile(info)
            else:
                info.size = len(value)
                file.addfile(info, io.BytesIO(value))
    return out.getvalue()


def zipped(members, mode=None):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, value in members.items():
            info = zipfile.ZipInfo(name)
            if mode is not None:
                info.external_attr = mode << 16
            file.writestr(info, value)
    return out.getvalue()


INSIDE = {"A/one.txt": b"1" * 2000, "A/b/two.txt": b"2" * 3000}
ARCHIVES = {
    "a.tar": tar(INSIDE, "w:"),
    "a.tar.gz": tar(INSIDE),
    "a.tgz": tar(INSIDE),
    "a.zip": zipped(INSIDE),
}


def archived(site, file, body=None, **changed):
    site.files[file] = ARCHIVES[file] if body is None else body
    return resource(Download(file, (site.url(),), **changed), where=("{x,y}", "A"))


# ---- one file


def test_a_file_is_downloaded_and_put_in_place(site, data):
    assert quiet("a_set", plain(site)) == [site.url()]
    assert (data / "set/x.bin").read_bytes() == BODY
    assert site.requests == [("/good/x.bin", None)]
    assert left(data) == ["set/x.bin"] and not (data / ".downloads").exists()


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_mirror_may_end_in_a_slash(site, data, slash):
    one = plain(site).downloads[0]
    quiet("a_set", resource(Download("x.bin", (site.url() + slash,), one.checksum, into="set")))
    assert site.requests == [("/good/x.bin", None)]


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
    site.manners["bad"] = {"cut": 1000}
    site.manners["bad"]["no_range"] = True
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
    assert any("/bad/x.bin: HTTP 503" in line and "/good/x.bin" in line for line in said)


def test_a_later_call_resumes(site, data):
    site.manners["good"] = {"cut": 100_000, "status": lambda n: 500 if n > 1 else None}
    assert "HTTP 500" in failure("a_set", plain(site))
    assert left(data) == [] and waiting(data) == {"x.bin.part": 100_000}
    del site.manners["good"]
    quiet("a_set", plain(site))
    assert site.ranges()[-1] == "bytes=100000-"
    assert (data / "set/x.bin").read_bytes() == BODY and waiting(data) == {}


def part(data, content):
    path = data / ".downloads/a_set/x.bin.part"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)


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
    site.manners["short"] = {"body": BODY[:1000]}
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
    site.manners["bad"] = {"body": b"<html>" * 7, "no_range": True}
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
    body = (BODY + b"?" * 9)[: len(BODY) + size]
    site.manners["bad"] = {"no_length": True, "body": body, "no_range": True}
    assert reason in failure("a_set", plain(site, "bad"))
    assert left(data) == []


def test_an_empty_answer_is_no_file(site, data):
    site.manners["bad"] = {"body": b""}
    assert "empty file" in failure("a_set", plain(site, "bad", checksum="", bytes=None))
    assert left(data) == [] and waiting(data) == {}


def test_a_wrong_checksum_deletes_the_bytes_and_tries_the_next_mirror(site, data):
    site.manners["bad"] = {"body": bytes(len(BODY))}
    quiet("a_set", plain(site, "bad", "good"))
    assert site.requests == [("/bad/x.bin", None), ("/good/x.bin", None)]
    assert (data / "set/x.bin").read_bytes() == BODY


def test_when_no_mirror_is_good_one_line_names_everything(site, data):
    forged = bytes(len(BODY))
    site.manners |= {"one": {"body": forged}, "two": {"status": 404}, "three": {"status": 500}}
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
    site.manners["hung"] = {"hang": True}
    started = time.monotonic()
    assert "timed out" in failure("a_set", plain(site, "hung"))
    assert time.monotonic() - started < 3


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
    closed.server.shutdown()
    closed.server.server_close()
    one = plain(site).downloads[0]
    both = Download("x.bin", (closed.url(), site.url()), one.checksum, one.bytes, "set")
    said = []
    get("a_set", resource(both), say=said.append)
    assert any("refused" in line.lower() for line in said) and left(data) == ["set/x.bin"]


# ---- where it comes from


def folder_of(tmp_path, **files):
    folder = tmp_path / "staged here"
    folder.mkdir()
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_bytes(content)
    return folder


@pytest.mark.parametrize("form", ["path", "url"])
def test_a_source_folder_is_read_in_place_and_left_alone(site, data, tmp_path, form):
    folder = folder_of(tmp_path, x_bin=BODY)
    quiet("a_set", plain(site), source=str(folder) if form == "path" else folder.as_uri())
    assert site.requests == [] and left(data) == ["set/x.bin"]
    assert (folder / "x.bin").read_bytes() == BODY and not (data / ".downloads").exists()


def test_what_an_earlier_call_began_goes_once_the_source_had_it(site, data, tmp_path):
    part(data, BODY[:1000])
    quiet("a_set", plain(site), source=str(folder_of(tmp_path, x_bin=BODY)))
    assert not (data / ".downloads").exists()


def test_names_are_quoted_in_urls_only(site, data, tmp_path):
    site.files["a%20b%231.bin"] = BODY
    odd = resource(Download("a b#1.bin", (site.url(),), md5(BODY)))
    quiet("a_set", odd, keep=True)
    assert left(data) == ["a b#1.bin"]
    quiet("a_set", odd, source=str(data / ".downloads/a_set"), replace=True)
    assert len(site.requests) == 1


def test_a_source_archive_is_not_copied(site, data, tmp_path, monkeypatch):
    folder = folder_of(tmp_path, a_zip=ARCHIVES["a.zip"])
    seen = []
    real = archives.unpack
    monkeypatch.setattr(
        archives, "unpack", lambda a, f: (seen.append((a, waiting(data))), real(a, f))
    )
    quiet("a_set", archived(site, "a.zip"), source=str(folder))
    assert seen == [(folder / "a.zip", {"lock": 0})]


def test_the_folder_of_downloads_as_source_is_not_emptied(site, data):
    part(data, b"")
    mine = data / ".downloads/a_set/x.bin"
    mine.write_bytes(BODY)
    quiet("a_set", plain(site), source=str(mine.parent))
    assert mine.read_bytes() == BODY and site.requests == []


def test_a_bad_source_falls_back_and_says_so(site, data, tmp_path):
    folder = folder_of(tmp_path, x_bin=bytes(len(BODY)))
    said = []
    get("a_set", plain(site), source=str(folder), say=said.append)
    assert any(str(folder / "x.bin") in line and "expected md5:" in line for line in said)
    assert (data / "set/x.bin").read_bytes() == BODY
    assert (folder / "x.bin").exists()


def test_a_source_url_comes_first(site, data):
    quiet("a_set", plain(site), source=site.url("mine"))
    assert site.hosts() == ["mine"]


def test_a_source_that_is_nothing(site, data, tmp_path):
    assert "no such folder" in failure("a_set", plain(site), source=str(tmp_path / "nowhere"))
    assert "http, https or file" in failure("a_set", plain(site), source="ftp://x/y")
    assert not data.exists()


def test_the_mirror_of_the_institute(site, data, monkeypatch):
    monkeypatch.setenv("HYPERSPHERE_MIRROR", site.url("institute"))
    one = plain(site)
    quiet("a_set", one)
    assert [path for path, _ in site.requests] == ["/institute/a_set/x.bin", "/institute/x.bin"]
    site.requests.clear()
    site.files["a_set/x.bin"] = BODY
    quiet("a_set", one, replace=True)
    assert [path for path, _ in site.requests] == ["/institute/a_set/x.bin"]


def test_the_mirror_may_be_a_folder_and_comes_after_the_source(site, data, tmp_path, monkeypatch):
    monkeypatch.setenv("HYPERSPHERE_MIRROR", str(folder_of(tmp_path, x_bin=BODY)))
    site.manners["mine"] = {"status": 404}
    quiet("a_set", plain(site), source=site.url("mine"))
    assert site.hosts() == ["mine"] and left(data) == ["set/x.bin"]


def test_files_of_one_name_in_two_folders_are_kept_apart(site, data, tmp_path):
    first, second = BODY[:5000], BODY[5000:9000]
    site.files |= {"one/v.npy": first, "two/v.npy": second}
    both = resource(
        Download("v.npy", (site.url() + "/one",), md5(first), into="set/one"),
        Download("v.npy", (site.url() + "/two",), md5(second), into="set/two"),
    )
    quiet("a_set", both, keep=True)
    assert (data / "set/two/v.npy").read_bytes() == second
    kept = data / ".downloads/a_set"
    assert (kept / "set/one/v.npy").read_bytes() == first
    shutil.copytree(kept, tmp_path / "staged")
    site.requests.clear()
    quiet("a_set", both, source=str(tmp_path / "staged"), replace=True)
    assert site.requests == [] and (data / "set/one/v.npy").read_bytes() == first
    assert not (data / ".downloads").exists()
    assert "  set/one/v.npy  (" in how_to_stage("a_set", both)


# ---- unpacking


@pytest.mark.parametrize("file", ARCHIVES)
@pytest.mark.parametrize("into", [".", "deep/er"])
def test_archives_are_unpacked(site, data, file, into):
    quiet("a_set", archived(site, file, checksum=md5(ARCHIVES[file]), into=into))
    root = data / into
    assert left(root) == sorted(INSIDE)
    assert all((root / name).read_bytes() == content for name, content in INSIDE.items())
    assert sorted(p.name for p in data.iterdir()) == ["A" if into == "." else "deep"]


def test_a_gz_alone_is_one_file(site, data):
    site.files["t10k.gz"] = gzip.compress(BODY)
    quiet("a_set", resource(Download("t10k.gz", (site.url(),), into="MNIST/raw")))
    assert left(data) == ["MNIST/raw/t10k"] and (data / "MNIST/raw/t10k").read_bytes() == BODY


def test_a_file_beside_an_archive_in_one_folder(site, data):
    site.files |= {"x.bin": BODY, "a.zip": ARCHIVES["a.zip"]}
    both = resource(*(Download(f, (site.url(),), into="set") for f in ("x.bin", "a.zip")))
    quiet("a_set", both)
    assert left(data) == ["set/A/b/two.txt", "set/A/one.txt", "set/x.bin"]


def test_a_disk_that_fills_up_while_unpacking_is_no_damage(site, data, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    site.files["x.gz"] = gzip.compress(BODY)
    monkeypatch.setattr(shutil, "copyfileobj", full)
    one = resource(Download("x.gz", (site.url(),)))
    line = failure("a_set", one)
    assert "No space left on device; make it writable or free some space" in line
    assert left(data) == [] and "x.gz" in waiting(data)


def test_what_is_no_part_of_the_set_is_left_out(site, data):
    said = []
    body = zipped(INSIDE | {"attributes.txt": b"?", "__MACOSX/._A": b"?"})
    get("a_set", archived(site, "a.zip", body), say=said.append)
    assert left(data) == sorted(INSIDE)
    assert [line for line in said if "left out" in line and "attributes.txt" in line]


def test_an_archive_that_holds_something_else(site, data):
    line = failure("a_set", archived(site, "a.zip", zipped({"B/x": b"x"})))
    assert "hold no A but B" in line and left(data) == []


@pytest.mark.parametrize("cause", ["network", "unpacking"])
def test_nothing_is_placed_before_all_of_it_is_there(site, data, cause):
    first, second = gzip.compress(b"first"), gzip.compress(BODY)
    site.files["one.gz"] = first
    if cause == "unpacking":
        site.files["two.gz"] = second[:-100]
    both = resource(*(Download(f, (site.url(),), into="raw") for f in ("one.gz", "two.gz")))
    line = failure("a_set", both)
    assert "two.gz" in line and left(data) == [] and "one.gz" in waiting(data)
    if cause == "unpacking":
        (data / ".downloads/a_set/two.gz").unlink()  # as the message says
    site.files["two.gz"] = second
    site.requests.clear()
    quiet("a_set", both)
    assert site.hosts() == ["good"]  # the first was kept
    assert left(data) == ["raw/one", "raw/two"]


LINK = {"type": tarfile.SYMTYPE}
HARD = {"type": tarfile.LNKTYPE}
UNSAFE_TARS = {
    "parent": {"../evil": b"x"},
    "hidden parent": {"A/../../evil": b"x"},
    "inner parent": {"A/../evil": b"x"},
    "absolute": {"/tmp/evil": b"x"},
    "absolute link": {"A/evil": LINK | {"linkname": "/etc/passwd"}},
    "link outside": {"A/evil": LINK | {"linkname": "../../outside"}},
    "hard link outside": {"A/evil": HARD | {"linkname": "../outside"}},
    "hard link to nothing": {"A/evil": HARD | {"linkname": "A/none"}},
    "file through a link": {"A/d/x": b"x", "l": LINK | {"linkname": "A/d"}, "l/evil": b"x"},
    "file over a link": {},  # made below
    "device": {"A/evil": {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}},
    "pipe": {"A/evil": {"type": tarfile.FIFOTYPE}},
}


@pytest.mark.parametrize("case", UNSAFE_TARS)
def test_unsafe_tars_are_refused(site, data, tmp_path, case):
    members = UNSAFE_TARS[case]
    body = tar(INSIDE | members)
    if case == "file over a link":  # the same name twice
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz") as file:
            link = tarfile.TarInfo("evil")
            link.type, link.linkname = tarfile.SYMTYPE, "A/x"
            file.addfile(link)
            file.addfile(tarfile.TarInfo("evil"), io.BytesIO(b""))
        body = out.getvalue()
    line = failure("a_set", archived(site, "a.tgz", body))
    assert "a.tgz" in line and "evil" in line and "not safe" in line
    assert left(data) == [] and not list(tmp_path.rglob("evil"))


def test_links_inside_the_folder_are_fine(site, data):
    inner = {"A/link": LINK | {"linkname": "b/two.txt"}, "A/hard": HARD | {"linkname": "A/one.txt"}}
    quiet("a_set", archived(site, "a.tar", tar(INSIDE | inner, "w:")))
    assert os.readlink(data / "A/link") == "b/two.txt"
    assert (data / "A/hard").read_bytes() == INSIDE["A/one.txt"]


@pytest.mark.parametrize("name", ["../evil", "A/../../evil", "/tmp/evil", "..\\evil", "C:\\evil"])
def test_unsafe_zips_are_refused(site, data, tmp_path, name):
    line = failure("a_set", archived(site, "a.zip", zipped(INSIDE | {name: b"x"})))
    assert "a.zip" in line and "evil" in line and "not safe" in line
    assert left(data) == [] and not list(tmp_path.rglob("*evil"))


@pytest.mark.parametrize("mode", [stat.S_IFLNK | 0o777, stat.S_IFCHR | 0o600])
def test_links_and_devices_in_a_zip_are_refused(site, data, mode):
    body = zipped({"A/evil": "../../outside"}, mode)
    assert "a link or device" in failure("a_set", archived(site, "a.zip", body))
    assert left(data) == []


def test_an_encrypted_zip_says_so(site, data):
    body = bytearray(ARCHIVES["a.zip"])
    body[body.index(b"PK\1\2") + 8] |= 1  # the flag in the first entry of its directory
    assert "encrypted ('A/one.txt')" in failure("a_set", archived(site, "a.zip", bytes(body)))
    assert left(data) == []


def test_an_unknown_compression_says_so(site, data):
    body = bytearray(ARCHIVES["a.zip"])
    for at in (body.index(b"PK\1\2") + 10, body.index(b"PK\3\4") + 8):
        body[at] = 9  # deflate64
    line = failure("a_set", archived(site, "a.zip", bytes(body)))
    assert "unpack it by hand" in line and left(data) == []


def damaged():
    """Cut short at the ends of headers, members and blocks and in between, or with a byte off."""
    for file, body in ARCHIVES.items():
        for keep in (0, 10, len(body) // 2, len(body) - 10):
            if file != "a.tar":
                yield f"{file}, first {keep}", file, body[:keep]
    plain_tar = ARCHIVES["a.tar"]
    for keep in (
        0,
        300,
        512,
        1000,
        512 + 2048,
        512 + 2048 + 300,
        512 + 2048 + 512,
        512 + 2048 + 700,
        512 + 2048 + 512 + 3072,
    ):
        yield f"a.tar, first {keep}", "a.tar", plain_tar[:keep]
    yield "a.tar, second header", "a.tar", plain_tar[:2570] + b"?" * 20 + plain_tar[2590:]
    body = ARCHIVES["a.zip"]
    at = body.index(b"1" * 50)
    yield "a.zip, one byte", "a.zip", body[:at] + b"?" + body[at + 1 :]
    at = body.index(b"PK\5\6") + 16  # where its directory is: entries before the file's start
    moved = int.from_bytes(body[at : at + 4], "little") + 1000
    yield "a.zip, its directory", "a.zip", body[:at] + moved.to_bytes(4, "little") + body[at + 4 :]
    body = ARCHIVES["a.tgz"]
    yield "a.tgz, its crc", "a.tgz", body[:-8] + b"????" + body[-4:]
    yield "page", "a.zip", b"<html>not found</html>"
    yield "page as tar", "a.tar.gz", b"<html>not found</html>" * 50


DAMAGED = {case: (file, body) for case, file, body in damaged()}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_archives_are_refused(tmp_path, case):
    file, body = DAMAGED[case]
    (tmp_path / file).write_bytes(body)
    with pytest.raises(
        UserError, match="damaged or cut short .*; delete it and get it again"
    ) as error:
        archives.unpack(tmp_path / file, tmp_path / "out")
    assert str(tmp_path / file) in str(error.value)


def test_a_damaged_gz_is_refused(tmp_path):
    packed = gzip.compress(BODY)
    for body in (packed[:-1], packed[: len(packed) // 2], packed[:-6] + b"??????", b"no gzip"):
        (tmp_path / "x.gz").write_bytes(body)
        with pytest.raises(UserError, match="damaged or cut short"):
            archives.unpack(tmp_path / "x.gz", tmp_path / "out")


def test_any_damage_is_a_readable_line_or_no_damage(tmp_path):
    rng = random.Random(1)
    refused = 0
    for n in range(60):
        file = rng.choice(list(ARCHIVES))
        body = bytearray(ARCHIVES[file])
        for _ in range(rng.randint(1, 30)):
            body[rng.randrange(len(body))] = rng.randrange(256)
        (tmp_path / file).write_bytes(body)
        try:
            archives.unpack(tmp_path / file, tmp_path / f"out{n}")
        except UserError:
            refused += 1
    assert refused > 20


# ---- its place


def test_an_existing_place_is_refused_before_anything_is_asked_for(site, data):
    (data / "set").mkdir(parents=True)
    (data / "set/x.bin").write_text("mine")
    line = failure("a_set", plain(site))
    assert line == f"{data}/set/x.bin: exists already; move it away or pass --replace"
    assert site.requests == [] and (data / "set/x.bin").read_text() == "mine"
    assert not (data / ".downloads").exists()


@pytest.mark.parametrize("into, taken", [(".", "A"), ("deep/er", "deep/er")])
def test_an_existing_folder_is_refused_or_replaced(site, data, into, taken):
    (data / taken / "old").mkdir(parents=True)
    assert f"{data / taken}: exists already" in failure("a_set", archived(site, "a.zip", into=into))
    assert site.requests == []
    quiet("a_set", archived(site, "a.zip", into=into), replace=True)
    assert not (data / taken / "old").exists() and left(data / into) == sorted(INSIDE)
    assert len(list(data.iterdir())) == 1


def test_a_neighbour_in_the_same_folder_stays(site, data):
    (data / "set").mkdir(parents=True)
    (data / "set/other").write_text("mine")
    quiet("a_set", plain(site))
    assert left(data) == ["set/other", "set/x.bin"]


def test_replacing_a_link_leaves_what_it_leads_to(site, data, tmp_path):
    elsewhere = tmp_path / "big disk"
    elsewhere.mkdir()
    (elsewhere / "old").write_text("mine")
    data.mkdir()
    (data / "A").symlink_to(elsewhere)
    quiet("a_set", archived(site, "a.zip"), replace=True)
    assert (elsewhere / "old").read_text() == "mine" and not (data / "A").is_symlink()


def test_a_failed_replacement_leaves_the_old(site, data):
    (data / "set").mkdir(parents=True)
    (data / "set/x.bin").write_text("mine")
    site.manners["good"] = {"status": 404}
    failure("a_set", plain(site), replace=True)
    assert left(data) == ["set/x.bin"] and (data / "set/x.bin").read_text() == "mine"


def two(site):
    site.files |= {"one": b"new one", "two": b"new two"}
    return resource(*(Download(f, (site.url(),), into="set") for f in ("one", "two")))


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


def test_kept_archives_are_checked_and_used_again(site, data):
    one = archived(site, "a.zip", checksum=md5(ARCHIVES["a.zip"]))
    quiet("a_set", one, keep=True)
    assert waiting(data) == {"a.zip": len(ARCHIVES["a.zip"])}
    site.requests.clear()
    quiet("a_set", one, keep=True, replace=True)
    assert site.requests == []
    (data / ".downloads/a_set/a.zip").write_bytes(b"rotten")
    quiet("a_set", one, replace=True)
    assert len(site.requests) == 1 and left(data) == sorted(INSIDE) and waiting(data) == {}


# ---- disk, processes, words


def with_free(monkeypatch, free):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 0, free))


@pytest.mark.parametrize("free", [2 * len(BODY) - 1, 2 * len(BODY)])
def test_a_full_disk_is_told_before_anything_is_asked_for(site, data, monkeypatch, free):
    with_free(monkeypatch, free)
    if free >= 2 * len(BODY):
        quiet("a_set", plain(site))
        return
    line = failure("a_set", plain(site))
    assert "needs 600.0 kB" in line and "600.0 kB are free" in line and "HYPERSPHERE_DATA" in line
    assert site.requests == [] and left(data) == []


def test_room_counts_what_is_there_already(site, data, tmp_path, monkeypatch):
    with_free(monkeypatch, len(BODY) + 100_000)
    part(data, BODY[:200_000])
    quiet("a_set", plain(site))
    with_free(monkeypatch, len(BODY))
    quiet("a_set", plain(site), source=str(folder_of(tmp_path, x_bin=BODY)), replace=True)


def test_a_size_only_the_server_knows_is_checked_against_the_disk(site, data, monkeypatch):
    with_free(monkeypatch, len(BODY) - 1)
    assert "x.bin: needs 300.0 kB" in failure("a_set", plain(site, bytes=None))
    assert left(data) == []


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


def test_a_folder_that_leads_nowhere(site, data, tmp_path):
    data.mkdir()
    (data / ".downloads").symlink_to(tmp_path / "unmounted")
    assert "a link to nowhere" in failure("a_set", plain(site))


def test_a_folder_that_cannot_be_made(site, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HYPERSPHERE_DATA", str(tmp_path / "file/data"))
    assert "Not a directory" in failure("a_set", plain(site))


CHILD = """
import sys, urllib.request
from hypersphere.data import download, transfer
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
    assert site.requests == [("/slow/x.bin", f"bytes={there}-")]
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
    resource_ = plain(site)
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(outcome(resource_))) for _ in range(8)
    ]

    def outcome(resource_):
        try:
            return quiet("a_set", resource_)
        except UserError as error:  # one that came when all was done
            return "exists" if "exists already" in str(error) else error

    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert answers.count([site.url()]) == 1
    assert all(answer in ([site.url()], [], "exists") for answer in answers)
    assert len(site.requests) == 1 and not (data / ".downloads").exists()


def test_nothing_to_download(site, data):
    line = failure("digits", resource(note="inside scikit-learn"))
    assert line == "digits: nothing to download (inside scikit-learn)"
    assert f"its place is {data}/omniart" in failure("omniart", resource(where=("omniart",)))
    assert "`into` or `where`" in failure("a_set", resource(Download("a.zip")))
    assert "it has no mirror" in failure("a_set", resource(Download("x.bin")))
    assert left(data) == [] if data.exists() else True


@pytest.mark.parametrize(
    "inner", ["", "set", "data/set"], ids=["its place", "above it", "the data folder"]
)
def test_files_of_one_name_are_told_apart_by_their_folders(site, data, tmp_path, inner):
    """As the released prototypes are: sgd/x.npy and sem/x.npy."""
    source = tmp_path / "stick"
    two = []
    for folder in ("sgd", "sem"):
        body = folder.encode()
        (source / inner / folder).mkdir(parents=True)
        (source / inner / folder / "x.npy").write_bytes(body)
        two.append(Download("x.npy", (), md5(body), into=f"set/{folder}"))
    named = source / "data" if inner == "data/set" else source
    origins = quiet("a_set", resource(*two, where=("set",)), source=str(named))
    assert len(origins) == 2 and all(o.startswith(str(source)) for o in origins)
    assert [(data / "set" / f / "x.npy").read_text() for f in ("sgd", "sem")] == ["sgd", "sem"]


def test_how_to_stage(data):
    text = how_to_stage(
        "a_set",
        resource(
            Download("a.tar", ("https://one.org/files/", "http://two.org"), "md5:ab", 2918471680),
            Download("b.zip", ("https://one.org/files",)),
            where=("A", "a/{train,test}"),
            note="large",
        ),
    )
    assert text.splitlines() == [
        "a_set: A set",
        "Get these files where there is a network:",
        "  a.tar  (2.9 GB, md5:ab)",
        "    https://one.org/files/a.tar",
        "    http://two.org/a.tar",
        "  b.zip  (size not published, no checksum published)",
        "    https://one.org/files/b.zip",
        "Put them, under these names, in one folder FOLDER on this machine, then:",
        "  hypersphere data get a_set --from FOLDER",
        "Or copy the unpacked data to:",
        f"  {data}/A",
        f"  {data}/a/{{train,test}}",
        "Note: large",
    ]
    assert how_to_stage("d", resource(note="built in")) == "d: A set\nNote: built in"


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


def test_every_entry_of_the_table_has_a_place_and_instructions():
    for name, entry in {**facts._table()}.items():
        order = download._Order(name, entry, Path("data"), None, print)
        assert entry.title in how_to_stage(name, entry)
        keys = [order.key(d) for d in entry.downloads]
        assert len(set(keys)) == len(keys)
        assert not entry.downloads or order.targets(), name
