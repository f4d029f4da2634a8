"""Where a dataset's files come from, where they go, and what is said for doing it by hand."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from hypersphere.data import facts
from hypersphere.data.facts import Download
from hypersphere.data.fetching import archives, download
from hypersphere.data.fetching.download import get, how_to_stage
from tests.publisher import (
    ARCHIVES,
    BODY,
    INSIDE,
    archived,
    failure,
    folder_of,
    left,
    md5,
    part,
    plain,
    quiet,
    resource,
    waiting,
)

# Where it comes from


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
    assert site.paths() == ["institute/a_set/x.bin", "institute/x.bin"]
    site.requests.clear()
    site.files["a_set/x.bin"] = BODY
    quiet("a_set", one, replace=True)
    assert site.paths() == ["institute/a_set/x.bin"]


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


# Its place


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


def test_a_folder_that_leads_nowhere(site, data, tmp_path):
    data.mkdir()
    (data / ".downloads").symlink_to(tmp_path / "unmounted")
    assert "a link to nowhere" in failure("a_set", plain(site))


def test_a_folder_that_cannot_be_made(site, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HYPERSPHERE_DATA", str(tmp_path / "file/data"))
    assert "Not a directory" in failure("a_set", plain(site))


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


# Words


def test_nothing_to_download(site, data):
    line = failure("digits", resource(note="inside scikit-learn"))
    assert line == "digits: nothing to download (inside scikit-learn)"
    assert f"its place is {data}/omniart" in failure("omniart", resource(where=("omniart",)))
    assert "`into` or `where`" in failure("a_set", resource(Download("a.zip")))
    assert "it has no mirror" in failure("a_set", resource(Download("x.bin")))
    assert left(data) == []


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


def test_every_entry_of_the_table_has_a_place_and_instructions():
    for name, entry in {**facts._table()}.items():
        order = download._Order(name, entry, Path("data"), None, print)
        assert entry.title in how_to_stage(name, entry)
        keys = [order.key(d) for d in entry.downloads]
        assert len(set(keys)) == len(keys)
        assert not entry.downloads or order.targets(), name
