"""`store merge`: what comes from elsewhere is verified, never executed, and never overwrites."""

import hashlib
import io
import json
import os
import pickle
import shutil
import tarfile
import zipfile

import numpy as np
import pytest

from hypersphere import cli
from hypersphere.config import digest
from hypersphere.errors import UserError
from hypersphere.execute import run_node
from hypersphere.papers.plan import make_plan
from hypersphere.store import SCHEMA, Store, leases, read_lines, write_lines
from hypersphere.store.merge import merge
from hypersphere.store.records import encode
from hypersphere.training.train import train

MODEL = "model.safetensors"


@pytest.fixture
def there(tmp_path, small):
    """Another machine's store with one trained run; its training and record."""
    store = Store(tmp_path / "there" / "runs", tmp_path / "there" / "results")
    training = small("schedule.epochs=1")
    return store, training, train(training, store, say=lambda line: None)


def here():
    return Store()


def changed(store, record, **changes):
    """Rewrite the record in a run's folder."""
    path = store.folder(record["run_id"]) / "record.json"
    path.write_text(encode(record | changes) + "\n")


def test_a_run_comes_with_its_files_and_counts_as_done(there):
    store, training, record = there
    (store.folder(training.id) / "resume.ckpt").write_bytes(b"left behind")
    mine = here()
    merged = merge(store.runs, mine)
    assert (merged.added, merged.conflicts, merged.refused) == ([training.id], [], [])
    assert here().get(training.id) == record
    files = {path.name for path in mine.folder(training.id).iterdir()}
    assert {"record.json", MODEL, "embeddings.safetensors", "config.yaml"} <= files
    assert "resume.ckpt" not in files
    lines = []
    assert train(training, here(), need_files=True, say=lines.append) == record and not lines
    assert merge(store.runs, here()).known == [training.id]


@pytest.mark.parametrize("kind", ["folder of both", "tar.gz", "zip"])
def test_other_shapes(there, tmp_path, kind):
    store, training, _ = there
    source = store.runs.parent
    if kind != "folder of both":
        formats = {"tar.gz": "gztar", "zip": "zip"}
        source = shutil.make_archive(str(tmp_path / "packed"), formats[kind], source)
    mine = here()
    assert merge(type(tmp_path)(source), mine).added == [training.id]
    assert (mine.folder(training.id) / MODEL).exists()
    assert not [path for path in mine.runs.iterdir() if path.name.startswith(".merging")]


def test_records_alone_come_from_results(there):
    store, *_ = there
    (node,) = [
        n for n in make_plan("quick", ["hpn"], ["table2"]).nodes.values()
        if n.component.params.get("kind") == "one_hot"
    ][:1]  # fmt: skip
    record = run_node(node, store)
    assert record["kind"] == "computation"
    write_lines(store.results / "quick" / "records.jsonl", [record])
    mine = here()
    assert merge(store.results, mine).added == [node.id]
    assert here().get(node.id) == record


def test_arrays_travel_and_are_checked(tmp_path, there):
    store, *_ = there
    identity = {"kind": "computation", "computation": {"name": "x"}}
    arrays = store.results / "small" / "artifacts" / digest(identity)
    arrays.mkdir(parents=True)
    np.savez(arrays / "points.npz", x=np.arange(3))
    record = {
        "schema": SCHEMA, "run_id": digest(identity), "kind": "computation", "identity": identity,
        "metrics": {}, "diverged": False, "git": {},
        "artifacts": {"points": hashlib.sha256((arrays / "points.npz").read_bytes()).hexdigest()},
    }  # fmt: skip
    write_lines(store.results / "small" / "records.jsonl", [record])
    mine = here()
    assert merge(store.results, mine).added == [record["run_id"]]
    copied = mine.folder(record["run_id"]) / "artifacts" / "points.npz"
    assert copied.read_bytes() == (arrays / "points.npz").read_bytes()

    np.savez(arrays / "points.npz", x=np.array([Bomb(tmp_path)], dtype=object))
    record["artifacts"]["points"] = hashlib.sha256((arrays / "points.npz").read_bytes()).hexdigest()
    write_lines(store.results / "small" / "records.jsonl", [record])
    shutil.rmtree(mine.runs)
    (refused,) = merge(store.results, here()).refused
    assert "nothing was loaded" in refused and not (tmp_path / "executed").exists()
    (arrays / "points.npz").unlink()
    (refused,) = merge(store.results, here()).refused
    assert "missing" in refused


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, folder):
        self.path = str(folder / "executed")

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_the_bomb_goes_off(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path))).close()
    assert (tmp_path / "executed").exists()


def test_a_pickle_in_the_place_of_weights_is_not_executed(there, tmp_path):
    store, training, record = there
    (store.folder(training.id) / MODEL).write_bytes(pickle.dumps(Bomb(tmp_path)))
    (refused,) = merge(store.runs, here()).refused
    assert "not what its record names" in refused
    files = dict(record["files"])
    files[MODEL] = hashlib.sha256((store.folder(training.id) / MODEL).read_bytes()).hexdigest()
    changed(store, record, files=files)  # a checksum that fits
    (refused,) = merge(store.runs, here()).refused
    assert MODEL in refused and "no safetensors" in refused and "\n" not in refused
    assert not (tmp_path / "executed").exists() and here().get(training.id) is None


def spoil(**changes):
    return lambda record: encode(record | changes)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (lambda record: encode(record)[:200], "record.json: "),
        (spoil(schema=SCHEMA + 1), "written by a newer hypersphere"),
        (spoil(run_id="../../../etc"), "run id '../../../etc' is none of ours"),
        (spoil(run_id="0" * 12), "its id is not the hash"),
        (spoil(kind="evaluation"), "its id is not the hash"),
        (lambda r: encode(r | {"identity": r["identity"] | {"seed": 9}}), "its id is not the hash"),
        (spoil(metrics=[1]), "lacks metrics"),
        (spoil(files={"../../x": "0" * 64}), "files that are none of a run's"),
        (spoil(artifacts={"../../x": "0" * 64}), "artifacts that are none of a run's"),
        (lambda record: "[" * 100_000, "record.json: "),
    ],
    ids=[
        "cut",
        "newer",
        "path",
        "other id",
        "kind",
        "edited",
        "metrics",
        "file",
        "artifact",
        "deep",
    ],
)
def test_a_record_that_is_not_sound_is_refused_by_name(there, text, says):
    store, training, record = there
    (store.folder(training.id) / "record.json").write_text(text(record))
    merged = merge(store.runs, here())
    (refused,) = merged.refused
    assert says in refused and str(store.folder(training.id)) in refused and "\n" not in refused
    assert merged.added == [] and not list(here().runs.glob("*/record.json"))


def test_a_damaged_file_is_refused(there):
    store, training, _ = there
    path = store.folder(training.id) / MODEL
    path.write_bytes(path.read_bytes()[:-1])
    (refused,) = merge(store.runs, here()).refused
    assert str(path) in refused and "damaged" in refused
    path.unlink()
    os.symlink("/etc/passwd", path)
    (refused,) = merge(store.runs, here()).refused
    assert "a link" in refused
    path.unlink()  # without the file the record alone comes
    assert merge(store.runs, here()).added == [training.id]


def test_contradicting_records_are_reported_and_ours_is_kept(there, capsys):
    store, training, record = there
    merge(store.runs, here())
    other = record["metrics"] | {"loss": record["metrics"]["loss"] * 1.0001}
    changed(store, record, metrics=other)
    (conflict,) = merge(store.runs, here()).conflicts
    assert training.id in conflict and "loss is " in conflict and "ours is kept" in conflict
    assert here().get(training.id) == record
    assert cli.main(["store", "merge", str(store.runs)]) == 1
    out = capsys.readouterr()
    assert "1 in conflict" in out.out and out.err.startswith("conflict: ")
    # on another processor the last digits may differ
    changed(store, record, metrics=other, hardware=record["hardware"] | {"processor": "other"})
    assert merge(store.runs, here()).known == [training.id]


def test_lost_files_come_back(there):
    store, training, record = there
    mine = here()
    merge(store.runs, mine)
    (mine.folder(training.id) / MODEL).unlink()
    assert merge(store.runs, here()).completed == [training.id]
    assert (mine.folder(training.id) / MODEL).exists()
    assert here().get(training.id) == record


def test_a_run_in_training_here_is_left_alone(there):
    store, training, _ = there
    with here().claim(training.id):
        (refused,) = merge(store.runs, here()).refused
    assert f"is being trained here by pid {os.getpid()}" in refused
    assert merge(store.runs, here()).added == [training.id]
    assert leases.holder(here().folder(training.id)) is None


def hostile_tar(path, name, link=None):
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo(name)
        if link:
            member.type, member.linkname = tarfile.SYMTYPE, link
            tar.addfile(member)
        else:
            member.size = 4
            tar.addfile(member, io.BytesIO(b"evil"))
    return path


@pytest.mark.parametrize(
    ("name", "link"), [("../evil", None), ("/tmp/evil-of-a-test", None), ("runs", "/etc")]
)
def test_hostile_tars_are_refused(tmp_path, name, link):
    with pytest.raises(UserError, match="is not safe"):
        merge(hostile_tar(tmp_path / "a.tar", name, link), here())
    assert not (tmp_path / "evil").exists() and not (here().runs / "evil").exists()
    assert list(here().runs.iterdir()) == []


def test_hostile_zips_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("../../evil", "evil")
    with pytest.raises(UserError, match="is not safe .a path with"):
        merge(tmp_path / "a.zip", here())


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "no such folder or archive"),
        (lambda path: path.mkdir(), "no runs there"),
        (lambda path: path.write_text("x"), "neither a folder nor an archive"),
    ],
)
def test_a_source_that_is_none(tmp_path, capsys, make, says):
    make(tmp_path / "source")
    assert cli.main(["store", "merge", str(tmp_path / "source")]) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1


def test_a_good_line_beside_bad_ones_is_taken(there):
    store, training, record = there
    path = store.results / "small" / "records.jsonl"
    write_lines(path, [record])
    path.write_text(path.read_text() + '{"schema":1,"run\n' + json.dumps({"other": 1}) + "\n")
    merged = merge(store.results, here())
    assert merged.added == [training.id] and len(merged.refused) == 2
    assert f"{path}:2: " in merged.refused[0]
    assert read_lines(path)[0][training.id] == record
