"""Word vectors for class names, read from a file that the user names.

Hyperspherical Prototype Networks (Mettes et al. 2019, arXiv 1901.10514) place prototypes by what
the class names mean. Of word2vec and GloVe files (gigabytes) only the wanted words are kept.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import string
import zipfile
import zlib
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np

from hypersphere.errors import UserError

Entries = Iterator[tuple[str, np.ndarray]]  # a word and its vector (dim,)
_BLOCK = 1 << 18  # bytes read at a time; no line of text is longer


@dataclass(frozen=True, eq=False)
class SemanticVectors:
    """One vector per class.

    vectors: (num_classes, dim) float32 in label order, as in the file (not centred, not scaled).
    words: class name -> the file's words that were averaged. missing: class name -> what was not
    found. Both are empty for a matrix in label order. source: file name. sha256: of the file.
    """

    vectors: np.ndarray
    words: dict[str, tuple[str, ...]]
    missing: dict[str, tuple[str, ...]]
    source: str
    sha256: str

    def report(self) -> list[str]:
        """Short lines: how the names were found, what is missing, classes that coincide."""
        count, dim = self.vectors.shape
        several = sum(len(found) > 1 for found in self.words.values())
        how = f"{len(self.words) - several} names as one word, {several} averaged from several"
        lines = [f"{self.source}: {count} classes, {dim} numbers each"]
        lines.append(how if self.words else "rows taken in label order")
        for name, lost in self.missing.items():
            lines.append(f"{name}: no {', '.join(lost)}; used {' + '.join(self.words[name])}")
        unit = self.vectors / np.linalg.norm(self.vectors.astype("f8"), axis=1, keepdims=True)
        first = (unit @ unit.T > 1 - 1e-9).argmax(axis=1)  # the first class in this direction
        names = np.array([*self.words] if len(self.words) == count else range(count)).astype(str)
        for label in np.flatnonzero(np.bincount(first) > 1):
            lines.append(f"classes in one direction: {', '.join(names[first == label])}")
        return lines


def read_vectors(path: str | Path, class_names: Sequence[str]) -> SemanticVectors:
    """Read one vector for each of `class_names` (in label order) from file `path`.

    `.npy`: a matrix (num_classes, dim) in label order, such as the released HPN files. `.npz`: the
    same as its only array, or `vectors` (n, dim) with `words` or `names` (n,); it is read whole.
    Other files, also `.gz`, are told by their content: word2vec binary or text (first line: words,
    dimensions), GloVe text (no such line). They are streamed until every class has its best word;
    the rest is not looked at, but a binary too short for its first line is refused at once.

    Words are matched as `synonyms`, `candidates` and `spellings` say; of several the plain mean is
    taken, as for HPN's multi-word names, and what is missing is reported. Raises UserError for a
    file that is missing, damaged or does not fit the classes, and classes without any word in it.
    """
    path = Path(path).expanduser()
    words, missing = {}, {}
    try:
        with open(path, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        rows = _read(path, class_names)
        if isinstance(rows, dict):
            for name in class_names:
                words[name], missing[name] = _choose(name, rows)
            if lost := [name for name, found in words.items() if not found]:
                more = f" and {len(lost) - 10} more" if len(lost) > 10 else ""
                raise ValueError(f"no word for {len(lost)} classes: {'; '.join(lost[:10])}{more}")
            rows = [np.mean([rows[w] for w in words[n]], axis=0, dtype="f8") for n in class_names]
        if len(rows) != len(class_names):
            raise ValueError(f"has {len(rows)} rows, the dataset has {len(class_names)} classes")
        vectors = np.array(rows, dtype=np.float32, order="C")
        right = np.isfinite(vectors).all(axis=1) & vectors.any(axis=1)
        if not right.all():
            raise ValueError(f"{class_names[right.argmin()]}: vector of zeros, NaN or infinities")
    except (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile) as error:
        why = " ".join(str(getattr(error, "strerror", None) or error).split())
        remedy = "get it again or choose another (word2vec, GloVe, .npy or .npz without pickle)"
        raise UserError(f"{path}: {why}; {remedy}") from error
    missing = {name: absent for name, absent in missing.items() if absent}
    return SemanticVectors(vectors, words, missing, path.name, sha256)


def project(vectors: np.ndarray, dim: int) -> np.ndarray:
    """Centred PCA of class vectors (num_classes, d) to (num_classes, dim), rows of unit length.

    HPN's word2vec baseline, in float64, returned as float32. Centring leaves num_classes - 1
    dimensions: for dim = num_classes the last column is zero. Each axis's largest loading is
    positive. Raises ValueError for `dim` outside 1 .. min(num_classes, d) and a class at the mean.
    """
    x = np.asarray(vectors, dtype=np.float64)
    if not 1 <= dim <= min(x.shape):
        raise ValueError(f"{x.shape} vectors have 1 .. {min(x.shape)} dimensions, not {dim}")
    left, scale, axes = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    rounding = np.linalg.norm(x) * max(x.shape) * np.finfo(np.float64).eps
    scale[scale <= rounding] = 0
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)[:, 0]
    projected = (left * scale * np.sign(largest))[:, :dim]
    length = np.linalg.norm(projected, axis=1, keepdims=True)
    if length.min() <= rounding:
        raise ValueError(f"class {length.argmin()} lies at the mean of all in {dim} dimensions")
    return (projected / length).astype(np.float32)


def synonyms(name: str) -> list[str]:
    """The names in `name`, best first: "001.Ani" -> Ani; "goldfish, Carassius auratus" -> both."""
    parts = re.sub(r"^\d+\.(?=\D)", "", name.strip()).split(",")
    return [part.strip() for part in parts if part.strip(" _/-")]


def candidates(name: str) -> list[tuple[str, ...]]:
    """Ways to make up one name from a vocabulary, best first: one word, or several to average.

    "sweet pepper" -> (sweet_pepper), as in GoogleNews, then (sweet, pepper). A hyphen may belong
    to a word: "T-shirt/top" -> (T-shirt_top), (T_shirt_top), (T-shirt, top), (T, shirt, top).
    """
    coarse, fine = tuple(re.findall(r"[^\s_/]+", name)), tuple(re.findall(r"[^\s_/-]+", name))
    return list(dict.fromkeys([("_".join(coarse),), ("_".join(fine),), coarse, fine]))


def spellings(word: str) -> list[str]:
    """Cases in which a word is looked for: as it is, lower, Each_Word capital, First_word only."""
    return list(dict.fromkeys((word, word.lower(), string.capwords(word, "_"), word.capitalize())))


def _choose(name: str, known: Container[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(words to average, what was not found): of the first synonym with a word that is known, the
    first candidate known in full, or what is known of its single words."""
    if name in known:  # a .npz may have the class names exactly as they are
        return (name,), ()
    absent: list[str] = []
    for synonym in synonyms(name):
        for candidate in candidates(synonym):
            hits = [next((s for s in spellings(w) if s in known), None) for w in candidate]
            if None not in hits:
                break
        absent += [word for word, hit in zip(candidate, hits, strict=True) if hit is None]
        if any(hits):
            return tuple(filter(None, hits)), tuple(absent)
    return (), tuple(absent)


def _read(path: Path, class_names: Sequence[str]) -> np.ndarray | dict[str, np.ndarray]:
    """A matrix in label order, or vectors by word. Raises ValueError for what does not fit."""
    if path.suffix not in (".npy", ".npz"):
        return _read_words(path, class_names)
    loaded = np.load(path, mmap_mode="r", allow_pickle=False)
    arrays = dict(loaded) if path.suffix == ".npz" else {"": loaded}
    words = arrays.pop("words", arrays.pop("names", None))
    if len(arrays) != 1:
        raise ValueError(f"one matrix (and `words`) expected, holds {', '.join(loaded)}")
    (matrix,) = arrays.values()
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
        raise ValueError(f"holds {matrix.dtype} of shape {matrix.shape}, no matrix of numbers")
    if words is None:
        return matrix
    # Of equal words the first counts, in every format.
    return dict(zip(words.astype(str)[::-1].tolist(), matrix[::-1], strict=True))


def _read_words(path: Path, class_names: Sequence[str]) -> dict[str, np.ndarray]:
    """The vectors of all words that `class_names` may need, up to where the best are all found."""
    names = [synonyms(name) for name in class_names]
    pending = {candidates(first)[0][0] for first, *_ in filter(None, names)}
    parts = {part for every in names for name in every for c in candidates(name) for part in c}
    wanted = {spelled.encode(): spelled for part in parts for spelled in spellings(part)}
    found: dict[str, np.ndarray] = {}
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
        for word, vector in _entries(file, path, wanted):
            found.setdefault(word, vector)
            pending.discard(word)
            if not pending:
                break
    return found


def _entries(file: BinaryIO, path: Path, wanted: dict[bytes, str]) -> Entries:
    """The wanted words of an open file, its format told by the first line and what follows."""
    first = file.readline(_BLOCK)
    if not (header := re.fullmatch(rb"(\d+) (\d+)\s*", first)):
        fields = first.rstrip().split(b" ")
        if len(fields) < 2 or _numbers(fields[1:]) is None:
            raise ValueError("unknown format (unpack a .zip; of fastText take the .vec file)")
        file.seek(0)
        return _text_entries(file, None, len(fields) - 1, wanted)
    count, dim = int(header[1]), int(header[2])
    binary = ".bin" in path.suffixes or b"\0" in file.read(4096)
    file.seek(len(first))
    # How long a .gz is shows at its end only.
    if binary and path.suffix != ".gz" and count * (4 * dim + 2) > path.stat().st_size:
        raise ValueError(f"cut off: its first line promises {count} words")
    return (_binary_entries if binary else _text_entries)(file, count, dim, wanted)


def _binary_entries(file: BinaryIO, count: int, dim: int, wanted: dict[bytes, str]) -> Entries:
    """`count` times: word, space, `dim` little-endian float32, in some files a line end."""
    buffer, at = b"", 0
    for number in range(count):
        space = buffer.find(b" ", at)
        while space < 0 or len(buffer) <= space + 4 * dim:
            more = file.read(_BLOCK)
            if not more or (space < 0 and len(buffer) - at > _BLOCK):
                raise ValueError(f"cut off or damaged after {number} of {count} words")
            buffer, at = buffer[at:] + more, 0
            space = buffer.find(b" ")
        word, at = buffer[at:space].lstrip(b"\n"), space + 1 + 4 * dim
        if word in wanted:
            yield wanted[word], np.frombuffer(buffer[space + 1 : at], "<f4")


def _text_entries(file: BinaryIO, count: int | None, dim: int, wanted: dict[bytes, str]) -> Entries:
    """Lines of a word, which may hold spaces (glove.840B), and `dim` numbers."""
    number = header = int(count is not None)
    lines = islice(iter(lambda: file.readline(_BLOCK), b""), count)
    for number, line in enumerate((line.rstrip(b" \r\n") for line in lines), header + 1):
        spaces = line.count(b" ")
        word = line.rsplit(b" ", dim)[0] if spaces != dim else line[: line.find(b" ")]
        vector = _numbers(line[len(word) + 1 :].split(b" ")) if word in wanted else None
        one_more = spaces > dim and _numbers(word.split(b" ")[-1:]) is not None
        if spaces < dim or one_more or (vector is None and word in wanted):
            raise ValueError(f"line {number}: {dim} numbers expected, {spaces} fields found")
        if vector is not None:
            yield wanted[word], vector
    if count is not None and number <= count:
        raise ValueError(f"cut off: {number - 1} words, its first line promises {count}")


def _numbers(fields: list[bytes]) -> np.ndarray | None:
    try:
        return np.array([float(field) for field in fields], dtype=np.float32)
    except ValueError:
        return None
