"""Archives: unpacked whole, never outside their folder, and damage is one readable line."""

import gzip
import io
import os
import random
import shutil
import stat
import tarfile

import pytest

from hypersphere.data.facts import Download
from hypersphere.data.fetching import archives
from hypersphere.data.fetching.download import get
from hypersphere.errors import UserError
from tests.publisher import (
    ARCHIVES,
    BODY,
    INSIDE,
    archived,
    failure,
    left,
    md5,
    quiet,
    resource,
    tar,
    waiting,
    zipped,
)


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
    assert "two.gz" not in waiting(data)  # a damaged one is of no use to the next call
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
    with pytest.raises(UserError, match="damaged or cut short .*; get it again") as error:
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
