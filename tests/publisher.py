"""A publisher on this machine: archives, the server that offers them, and what a test gets of it.

Nothing here knows a dataset; those are in miniatures.py.
"""

import functools
import hashlib
import http.server
import io
import random
import re
import tarfile
import threading
import zipfile

import pytest

from hypersphere.data.facts import Download, Resource
from hypersphere.data.fetching.download import get
from hypersphere.errors import UserError

BODY = random.Random(0).randbytes(300_000)
quiet = functools.partial(get, say=lambda line: None)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        site, asked = self.server.site, self.headers.get("Range")
        host, _, file = self.path.lstrip("/").partition("/")
        site.requests.append((f"{host}/{file}", asked))
        manner = site.manners.get(host, {})
        status = manner.get("status")
        if callable(status):
            status = status(len(site.requests))
        if manner.get("hang"):
            site.ended.wait(20)
            return
        body = site.files.get(f"{host}/{file}", site.files.get(file))
        if status or body is None:
            return self.begin(status or 404, 0)
        start = 0
        if asked and not manner.get("no_range"):
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            fits = start < len(body)
            offered = (
                f"bytes {start}-{len(body) - 1}/{len(body)}" if fits else f"bytes */{len(body)}"
            )
            headers = {"Content-Range": manner.get("content_range", offered)}
            if not fits:
                return self.begin(416, 0, **headers)
            length = manner.get("length", len(body) - start)
            self.begin(206, None if manner.get("no_length") else length, **headers)
        else:
            length = manner.get("length", len(body))
            self.begin(200, None if manner.get("no_length") else length)
        sent = body[start:][: manner.get("cut")]
        for at in range(0, len(sent), 10_000):
            self.wfile.write(sent[at : at + 10_000])
            if manner.get("pause"):
                site.ended.wait(manner["pause"])

    def begin(self, status, length, **headers):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        if status in (200, 206):
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass  # a client that went away


class Site:
    """http://127.0.0.1:<port>/<host>/<file>: `files` by name, or by <host>/<name> for one host.

    manners of a host: status (or a function of the number of requests so far), hang, cut (bytes
    after which each connection breaks off), pause (seconds between pieces), length, no_length,
    no_range, content_range.
    """

    def __init__(self):
        self.files, self.manners, self.requests = {}, {}, []
        self.ended = threading.Event()
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.site = self
        threading.Thread(target=self.server.serve_forever, args=(0.005,), daemon=True).start()

    def url(self, host="good"):
        return f"http://127.0.0.1:{self.server.server_address[1]}/{host}"

    def paths(self):
        return [path for path, _ in self.requests]

    def hosts(self):
        return [path.partition("/")[0] for path in self.paths()]

    def ranges(self, host="good"):
        return [asked for path, asked in self.requests if path.startswith(f"{host}/")]

    def close(self):
        self.ended.set()
        self.server.shutdown()
        self.server.server_close()


# Archives


def tar(members, mode="w:gz"):
    """members: name -> bytes, or a TarInfo's changes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as file:
        for name, value in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(value, dict):
                for key, changed in value.items():
                    setattr(info, key, changed)
                file.addfile(info)
            else:
                info.size = len(value)
                file.addfile(info, io.BytesIO(value))
    return out.getvalue()


def zipped(members, mode=0o600):
    """mode: of every member, with its kind (a link, say)."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, value in members.items():
            info = zipfile.ZipInfo(name)
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


# Resources that the site offers


def md5(data):
    return f"md5:{hashlib.md5(data).hexdigest()}"


def resource(*downloads, where=(), note=""):
    return Resource(title="A set", citation="none", where=where, downloads=downloads, note=note)


def plain(site, *hosts, body=BODY, **changed):
    """A resource of one plain file, set/x.bin, on these hosts."""
    site.files["x.bin"] = body
    known = {"checksum": md5(body), "bytes": len(body)} | changed
    mirrors = tuple(site.url(host) for host in hosts or ["good"])
    return resource(Download("x.bin", mirrors, into="set", **known), where=("set",))


def archived(site, file, body=None, **changed):
    """A resource of one archive, which unpacks to the folder A."""
    site.files[file] = ARCHIVES[file] if body is None else body
    return resource(Download(file, (site.url(),), **changed), where=("{x,y}", "A"))


def two(site):
    """A resource of two plain files, set/one and set/two."""
    site.files |= {"one": b"new one", "two": b"new two"}
    return resource(*(Download(f, (site.url(),), into="set") for f in ("one", "two")))


# What became of them


def failure(*args, **kwargs):
    """The one line that `get` fails with."""
    with pytest.raises(UserError) as error:
        quiet(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


def left(data):
    """Everything under the data folder, without the places of downloads that wait."""
    paths = [p.relative_to(data).as_posix() for p in data.rglob("*") if not p.is_dir()]
    return sorted(path for path in paths if not path.startswith(".downloads"))


def waiting(data):
    """The bytes of downloads that wait, by file."""
    folder = data / ".downloads"
    return {p.name: p.stat().st_size for p in folder.rglob("*") if p.is_file()}


def part(data, content):
    """Bytes of x.bin that an earlier call left."""
    path = data / ".downloads/a_set/x.bin.part"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)


def folder_of(tmp_path, **files):
    """A folder with these files; `x_bin` is x.bin."""
    folder = tmp_path / "staged here"
    folder.mkdir()
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_bytes(content)
    return folder
