"""Word vectors for class names: formats, matching of names, damaged files."""

import gzip
import hashlib
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from hypersphere.data.semantics import candidates, read_vectors, spellings, synonyms
from hypersphere.errors import UserError

RNG = np.random.default_rng(0)
VOCABULARY = ("the", "apple", "sweet", "Pepper", "Maple_Tree", "maple", "tree", "naïve", "goldfish")
VECTORS = RNG.normal(size=(len(VOCABULARY), 6)).astype(np.float32)
VECTOR = dict(zip(VOCABULARY, VECTORS))
CLASSES = ["apple", "sweet_pepper", "maple tree"]
EXPECTED = np.stack(
    [VECTOR["apple"], (VECTOR["sweet"] + VECTOR["Pepper"]) / 2, VECTOR["Maple_Tree"]]
)


def word2vec_binary(words=VOCABULARY, vectors=VECTORS, end=b"") -> bytes:
    header = f"{len(words)} {vectors.shape[1]}\n".encode()
    return header + b"".join(w.encode() + b" " + v.tobytes() + end for w, v in zip(words, vectors))


def lines(words=VOCABULARY, vectors=VECTORS, end="\n") -> str:
    return "".join(f"{w} {' '.join(map(str, v))}{end}" for w, v in zip(words, vectors))


def word2vec_text(end="\n") -> bytes:
    return (f"{len(VOCABULARY)} 6\n" + lines(end=end)).encode()


FORMATS = {
    "a.bin": word2vec_binary(),
    "google.bin": word2vec_binary(end=b"\n"),  # as the original C program writes it
    "a.bin.gz": gzip.compress(word2vec_binary()),
    "binary.w2v": word2vec_binary(),
    "a.vec": word2vec_text(),
    "c.txt": word2vec_text(end=" \n"),  # a space behind the last number, as fastText has it
    "a.txt.gz": gzip.compress(word2vec_text()),
    "glove.txt": lines().encode(),
    "windows.txt": lines(end="\r\n").encode(),
    "glove.txt.gz": gzip.compress(lines().encode()),
}


def write(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def message(path, classes=CLASSES) -> str:
    with pytest.raises(UserError) as error:
        read_vectors(path, classes)
    text = str(error.value)
    assert text.startswith(f"{path}: ") and "\n" not in text
    assert "get it again or choose another" in text
    return text


# Formats


@pytest.mark.parametrize("name", FORMATS)
def test_word_files(tmp_path, name):
    path = write(tmp_path, name, FORMATS[name])
    read = read_vectors(path, CLASSES)
    assert read.vectors.dtype == np.float32
    np.testing.assert_allclose(read.vectors, EXPECTED, rtol=1e-6)
    assert read.words == {
        "apple": ("apple",), "sweet_pepper": ("sweet", "Pepper"), "maple tree": ("Maple_Tree",)
    }  # fmt: skip
    assert read.missing == {} and read.source == name
    assert read.sha256 == hashlib.sha256(FORMATS[name]).hexdigest()
    assert read.report() == [
        f"{name}: 3 classes, 6 numbers each",
        "2 names as one word, 1 averaged from several",
    ]


def test_words_beyond_ascii_and_with_spaces(tmp_path):
    # glove.840B has words such as ". . ." and "at name@domain.com".
    words = ("the", ". . .", "at name@domain.com", "naïve", "\u00a0", "apple")
    path = write(tmp_path, "glove.txt", lines(words, VECTORS[:6]).encode())
    assert np.array_equal(read_vectors(path, ["naïve", "apple"]).vectors, VECTORS[[3, 5]])


def test_of_equal_words_the_first_counts(tmp_path):
    words = ("apple", "apple", "tree")
    for name, content in (
        ("a.bin", word2vec_binary(words, VECTORS[:3])),
        ("a.txt", lines(words, VECTORS[:3]).encode()),
    ):
        vectors = read_vectors(write(tmp_path, name, content), ["apple", "tree"]).vectors
        assert np.array_equal(vectors, VECTORS[[0, 2]])
    np.savez(tmp_path / "a.npz", words=words, vectors=VECTORS[:3])
    assert np.array_equal(
        read_vectors(tmp_path / "a.npz", ["apple", "tree"]).vectors, VECTORS[[0, 2]]
    )


@pytest.mark.parametrize("dtype", ["<f8", ">f4", "i2"])
@pytest.mark.parametrize("order", "CF")
def test_matrix_in_label_order(tmp_path, dtype, order):
    matrix = np.asarray(VECTORS[:3] * 9, dtype=dtype, order=order)
    np.save(tmp_path / "a.npy", matrix)
    np.savez_compressed(tmp_path / "a.npz", prototypes=matrix)
    for name in ("a.npy", "a.npz"):
        read = read_vectors(str(tmp_path / name), CLASSES)
        assert np.array_equal(read.vectors, matrix.astype(np.float32))
        assert read.vectors.dtype == np.float32 and read.vectors.flags.c_contiguous
        assert read.words == read.missing == {}
        assert read.report()[1:] == ["rows taken in label order"]


@pytest.mark.parametrize("key", ["words", "names"])
@pytest.mark.parametrize("kind", ["U", "S"])
def test_npz_with_words(tmp_path, key, kind):
    keep = [i for i, word in enumerate(VOCABULARY) if word.isascii()]
    words = np.array([VOCABULARY[i] for i in keep], dtype=kind)
    np.savez(tmp_path / "a.npz", **{key: words, "vectors": VECTORS[keep].astype(np.float64)})
    np.testing.assert_allclose(
        read_vectors(tmp_path / "a.npz", CLASSES).vectors, EXPECTED, rtol=1e-6
    )


def test_npz_with_whole_class_names(tmp_path):
    # "maillot" must not stand for the other class, though it is its first synonym.
    names = ["maillot, tank suit", "maillot", "001.Ani"]
    np.savez(tmp_path / "a.npz", words=names[::-1], vectors=VECTORS[:3])
    read = read_vectors(tmp_path / "a.npz", names)
    assert np.array_equal(read.vectors, VECTORS[2::-1])


@pytest.mark.parametrize("binary", [True, False])
def test_files_that_gensim_writes(tmp_path, binary):
    gensim = pytest.importorskip("gensim", reason="gensim is not installed")
    model = gensim.models.KeyedVectors(6)
    model.add_vectors(list(VOCABULARY), VECTORS)
    model.save_word2vec_format(str(tmp_path / "a.out"), binary=binary)
    np.testing.assert_allclose(
        read_vectors(tmp_path / "a.out", CLASSES).vectors, EXPECTED, rtol=1e-6
    )


# Names


def test_candidates():
    assert candidates("apple") == [("apple",)]
    for name in ("sweet pepper", "sweet_pepper", " sweet  pepper"):
        assert candidates(name) == [("sweet_pepper",), ("sweet", "pepper")]
    assert candidates("pay-phone") == [("pay-phone",), ("pay_phone",), ("pay", "phone")]
    assert candidates("T-shirt/top") == [
        ("T-shirt_top",), ("T_shirt_top",), ("T-shirt", "top"), ("T", "shirt", "top")
    ]  # fmt: skip


def test_spellings():
    assert spellings("apple") == ["apple", "Apple"]
    assert spellings("sweet_pepper") == ["sweet_pepper", "Sweet_Pepper", "Sweet_pepper"]
    assert spellings("iPod") == ["iPod", "ipod", "Ipod"]


def test_synonyms():
    assert synonyms("goldfish, Carassius auratus") == ["goldfish", "Carassius auratus"]
    assert synonyms("001.Black_footed_Albatross") == ["Black_footed_Albatross"]
    assert synonyms("7") == ["7"] and synonyms("1.5") == ["1.5"] and synonyms(" , -") == []


def read_words(folder, words, names):
    np.savez(folder / "w.npz", words=list(words), vectors=VECTORS[: len(words)])
    read = read_vectors(folder / "w.npz", names)
    at = dict(zip(words, VECTORS))
    for name, row in zip(names, read.vectors):
        mean = sum(at[w].astype(np.float64) for w in read.words[name]) / len(read.words[name])
        np.testing.assert_allclose(row, mean, rtol=1e-6)
    return read


def test_whole_names_win_over_single_words(tmp_path):
    words = ("sweet", "pepper", "Sweet_Pepper", "tree")
    assert read_words(tmp_path, words, ["sweet_pepper"]).words == {"sweet_pepper": words[2:3]}
    # A hyphenated word that is known is not taken apart.
    words = ("T", "shirt", "top", "t-shirt")
    read = read_words(tmp_path, words, ["T-shirt/top"])
    assert read.words["T-shirt/top"] == ("t-shirt", "top")
    assert read_words(tmp_path, words[:3], ["T-shirt/top"]).words["T-shirt/top"] == words[:3]
    assert read_words(tmp_path, ["Ipod", "ipod"], ["iPod"]).words["iPod"] == ("ipod",)


def test_missing_words_are_left_out_and_reported(tmp_path):
    name = "001.Black_footed_Albatross"
    read = read_words(tmp_path, ("black", "albatross", "apple"), [name, "apple"])
    assert read.words[name] == ("black", "albatross")
    assert read.missing == {name: ("footed",)}
    assert read.report()[1:] == [
        "1 names as one word, 1 averaged from several",
        f"{name}: no footed; used black + albatross",
    ]


def test_the_next_synonym_serves_when_the_first_is_unknown(tmp_path):
    names = ["goldfish, Carassius auratus", "sock, apple", "maple leaf, apple"]
    read = read_words(tmp_path, ("carassius", "auratus", "apple", "maple"), names)
    assert [read.words[name] for name in names] == [
        ("carassius", "auratus"),
        ("apple",),
        ("maple",),
    ]
    assert read.missing == dict(zip(names, (("goldfish",), ("sock",), ("leaf",))))
    assert f"{names[0]}: no goldfish; used carassius + auratus" in read.report()


def test_classes_that_coincide_are_reported(tmp_path):
    read = read_words(tmp_path, ("cat", "apple"), ["Persian cat", "apple", "Egyptian cat"])
    assert read.report()[-1] == "classes in one direction: Persian cat, Egyptian cat"
    twice = read_words(tmp_path, ("crane", "apple"), ["crane", "apple", "crane"])  # as ImageNet
    assert twice.report()[1:] == [
        "2 names as one word, 0 averaged from several",
        "classes in one direction: 0, 2",
    ]
    # In a matrix also up to rounding and length.
    matrix = VECTORS[[0, 1, 0]].astype(np.float64) * [[1], [1], [3.3]]
    np.save(tmp_path / "a.npy", matrix + 1e-15)
    assert read_vectors(tmp_path / "a.npy", CLASSES).report()[2:] == [
        "classes in one direction: 0, 2"
    ]


@pytest.mark.parametrize("count, end", [(1, "c00"), (10, "c09"), (12, "c09 and 2 more")])
def test_classes_without_any_word(tmp_path, count, end):
    np.savez(tmp_path / "a.npz", words=["apple"], vectors=VECTORS[:1])
    lost = [f"c{i:02}" for i in range(count)]
    text = message(tmp_path / "a.npz", ["apple", *lost])
    assert f"no word for {count} classes: c00" in text and f"{end};" in text
    assert "no word for 1 classes:" in message(tmp_path / "a.npz", ["apple", ""])


# Reading no further than needed


@pytest.mark.parametrize("name", ["a.bin", "a.bin.gz", "a.vec", "glove.txt"])
def test_what_lies_behind_the_last_wanted_word_is_not_looked_at(tmp_path, name):
    # "apple" is second; then damage. The hash still tells this file from an intact one.
    content = FORMATS[name]
    content = gzip.decompress(content) if name.endswith("gz") else content
    at = content.index(b"sweet")
    damaged = content[:at] + b"\xff" * (len(content) - at)
    damaged = gzip.compress(damaged, 0) if name.endswith("gz") else damaged
    path = write(tmp_path, name, damaged)
    read = read_vectors(path, ["apple"])
    assert np.array_equal(read.vectors[0], VECTOR["apple"])
    assert read.sha256 == hashlib.sha256(damaged).hexdigest()
    message(path)  # these classes need the damaged part


def test_memory(tmp_path):
    # 5 MB each; kept are three words. The last one is wanted, so that the whole is read.
    words = [f"w{i}" for i in range(4000)] + ["last"]
    vectors = RNG.normal(size=(4001, 300)).astype(np.float32)
    row = b" " + b" ".join(b"%.6f" % x for x in vectors[0]) + b"\n"
    text = b"".join(w.encode() + row for w in words[:1600] + words[-1:])
    for path in (
        write(tmp_path, "a.bin", word2vec_binary(words, vectors)),
        write(tmp_path, "a.txt", text),
    ):
        assert path.stat().st_size > 4.5e6
        tracemalloc.start()
        try:
            read = read_vectors(path, ["w7", "w900", "last"])
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 1.5e6, path.name
        expected = vectors[[7, 900, -1]] if path.suffix == ".bin" else vectors[[0, 0, 0]]
        np.testing.assert_allclose(read.vectors, expected, atol=1e-6)


def test_every_chunk_border(tmp_path, monkeypatch):
    for size in range(1, 70):
        monkeypatch.setattr("hypersphere.data.semantics._BLOCK", max(size, 4))
        path = write(tmp_path, "a.bin", word2vec_binary(("a", "bc", "d"), VECTORS[:3]))
        assert np.array_equal(read_vectors(path, ["a", "bc", "d"]).vectors, VECTORS[:3])


# Files that are not right


def test_missing_file(tmp_path):
    assert "No such file" in message(tmp_path / "none.bin")
    assert "directory" in message(tmp_path)


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.zip", b"PK\x03\x04" + bytes(50)),
        ("fasttext.bin", b"\xba\x16\x4f\x2f" + bytes(50)),
        ("a.json", b'{"apple": [1, 2]}\n'),
        ("a.txt", b""),
        ("words.txt", b"apple\nsweet\n"),
    ],
)
def test_unknown_format(tmp_path, name, content):
    text = message(write(tmp_path, name, content))
    assert "unknown format (unpack a .zip; of fastText take the .vec file)" in text


@pytest.mark.parametrize("cut", [100, 30, 3])
@pytest.mark.parametrize("name", ["a.bin", "a.bin.gz", "a.vec", "a.txt.gz"])
def test_cut_off(tmp_path, name, cut):
    content = FORMATS[name]
    zipped = name.endswith("gz")
    content = gzip.decompress(content) if zipped else content
    content = content[: -cut if "bin" in name else content.index(b"tree")]
    path = write(tmp_path, name, gzip.compress(content) if zipped else content)
    assert "cut off" in message(path, ["absent"])


def test_a_first_line_that_promises_too_much_is_refused_at_once(tmp_path):
    path = write(tmp_path, "a.bin", word2vec_binary().replace(b"9 6", b"99 6", 1))
    assert "cut off: its first line promises 99 words" in message(path, ["the"])


def test_damaged_gzip(tmp_path):
    content = bytearray(gzip.compress(lines().encode()))
    content[40:80] = bytes(40)
    message(write(tmp_path, "a.txt.gz", bytes(content)), ["absent"])
    message(write(tmp_path, "b.txt.gz", gzip.compress(lines().encode())[:-60]), ["absent"])
    assert "gzip" in message(write(tmp_path, "c.txt.gz", lines().encode())).lower()


@pytest.mark.parametrize("header, first", [("", 1), (f"{len(VOCABULARY)} 6\n", 2)])
def test_a_line_with_too_few_or_too_many_numbers(tmp_path, header, first):
    rows = lines().splitlines()
    rows[4] = rows[4].rsplit(" ", 1)[0]
    text = message(write(tmp_path, "a.txt", (header + "\n".join(rows)).encode()))
    assert f"line {first + 4}: 6 numbers expected, 5 fields found" in text
    rows[4] += " 1.5 2.5"
    text = message(write(tmp_path, "a.txt", (header + "\n".join(rows)).encode()))
    assert f"line {first + 4}: 6 numbers expected, 7 fields found" in text
    rows = lines().splitlines()
    rows[1] = rows[1].replace("apple ", "apple x")
    text = message(write(tmp_path, "a.txt", (header + "\n".join(rows)).encode()))
    assert f"line {first + 1}: 6 numbers expected" in text


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_numbers_that_are_not_finite(tmp_path, value):
    matrix = VECTORS[:3].astype(np.float64)
    matrix[1, 2] = value
    np.save(tmp_path / "a.npy", matrix)
    with np.errstate(over="ignore"):
        text = message(tmp_path / "a.npy")
        assert "sweet_pepper: vector of zeros, NaN or infinities" in text
        path = write(tmp_path, "a.txt", lines(("apple", "Pepper", "tree"), matrix).encode())
        assert "sweet_pepper: vector of zeros" in message(path)


def test_a_row_of_zeros(tmp_path):
    np.save(tmp_path / "a.npy", VECTORS[:3] * [[1], [1], [0]])
    assert "maple tree: vector of zeros" in message(tmp_path / "a.npy")


def test_another_number_of_classes(tmp_path):
    np.save(tmp_path / "a.npy", RNG.normal(size=(100, 5)))
    text = message(tmp_path / "a.npy", [f"c{i}" for i in range(200)])
    assert "has 100 rows, the dataset has 200 classes" in text


@pytest.mark.parametrize("array", [np.array([{}] * 3), np.array([[1.5, "x"]] * 3, dtype=object)])
def test_pickled(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    assert "Python objects" in message(tmp_path / "a.npy")
    np.savez(tmp_path / "a.npz", vectors=VECTORS, words=array)
    assert "allow_pickle=False" in message(tmp_path / "a.npz")
    array.dump(tmp_path / "raw.npy")
    assert "without pickle" in message(tmp_path / "raw.npy")


@pytest.mark.parametrize("array", [np.zeros(3), np.zeros((3, 2, 2)), np.array([["a"]] * 3)])
def test_no_matrix(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    assert "no matrix of numbers" in message(tmp_path / "a.npy")


def test_damaged_npy_and_npz(tmp_path):
    np.save(tmp_path / "a.npy", VECTORS)
    np.savez(tmp_path / "a.npz", vectors=VECTORS, words=VOCABULARY)
    for name in ("a.npy", "a.npz"):
        content = (tmp_path / name).read_bytes()
        for size in (len(content) - 20, len(content) // 2, 20, 0):
            message(write(tmp_path, f"cut{size}{name}", content[:size]))
    np.savez(tmp_path / "two.npz", a=VECTORS, b=VECTORS)
    assert "one matrix (and `words`) expected, holds a, b" in message(tmp_path / "two.npz")
    np.savez(tmp_path / "odd.npz", vectors=VECTORS, words=VOCABULARY[:-1])
    message(tmp_path / "odd.npz")
