"""Miniature datasets in the layouts of the official archives, and a shelf to get them onto.

A builder gives what the publisher offers, {file: bytes}; `Shelf.publish` puts it on the server
(publisher.py) and shrinks the dataset's facts to it. Everything else is the real thing: mirrors,
checksums, readers.
"""

import dataclasses
import functools
import gzip
import hashlib
import io
import json
import pickle
import struct
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from hypersphere import cli
from hypersphere.config import compose, split_config
from hypersphere.data.facts import DATASETS
from hypersphere.data.load import class_counts, load, load_files
from hypersphere.data.order import pixel_order
from tests.publisher import tar, zipped


@dataclasses.dataclass
class Outcome:
    status: int
    out: str
    err: str

    @property
    def line(self):
        """The one line that a failed command ends with."""
        last = self.err.splitlines()[-1]
        assert self.status == 2 and last.startswith("hypersphere: "), self
        assert "Traceback" not in self.err
        return last


class Shelf:
    """An empty data folder, the server, and the command line."""

    def __init__(self, site, data, monkeypatch, capsys):
        self.site, self.data, self.monkeypatch, self.capsys = site, data, monkeypatch, capsys

    def publish(self, name, files, hosts=("good",), **changes):
        """Offer `files` for dataset `name`, and shrink its facts to `changes`."""
        self.site.files |= files
        downloads = tuple(
            dataclasses.replace(
                download,
                mirrors=tuple(self.site.url(host) for host in hosts),
                checksum=_checksum(download.checksum, files[download.file]),
                bytes=download.bytes and len(files[download.file]),
            )
            for download in DATASETS[name].downloads
        )
        self.describe(name, downloads=downloads, **changes)

    def describe(self, name, **changes):
        facts = dataclasses.replace(DATASETS[name], **{"content": "", **changes})
        self.monkeypatch.setitem(DATASETS.added, name, facts)

    def run(self, *words):
        """`hypersphere ...` as a process of its own would run it: nothing is in memory."""
        forget()
        self.capsys.readouterr()
        status = cli.main([str(word) for word in words])
        forget()
        return Outcome(status, *self.capsys.readouterr())

    def get(self, name, *more):
        outcome = self.run("data", "get", name, *more)
        assert outcome.status == 0, outcome.err
        return outcome

    def placed(self):
        """Files under the data folder, without what waits to be gone on with."""
        found = (p.relative_to(self.data).as_posix() for p in self.data.rglob("*") if p.is_file())
        return sorted(path for path in found if not path.startswith((".downloads/", ".cache/")))


def forget():
    for remembered in (load, load_files, class_counts):
        remembered.cache_clear()


def _checksum(official, body):
    kind = official.partition(":")[0]
    if kind == "git":
        return f"git:{hashlib.sha1(b'blob %d' % len(body) + bytes(1) + body).hexdigest()}"
    return official and f"{kind}:{hashlib.new(kind, body).hexdigest()}"


# Pictures


def picture(*seed, height=8, width=8, channels=3):
    """Noise of its own for every seed: (height, width, channels) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def pictures(counts, split, **shape):
    """counts[c] pictures of each class c, the classes mixed: (n, height, width, channels), (n,)."""
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.stack([picture(split, i, **shape) for i in range(len(labels))])
    order = np.random.default_rng(split).permutation(len(labels))
    return images[order], labels[order]


def encoded(image, kind="PNG"):
    out = io.BytesIO()
    PIL.Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(out, kind)
    return out.getvalue()


@functools.cache
def jpeg(*seed, channels=3):
    """A JPEG file of a size of its own."""
    height, width = np.random.default_rng((7, *seed)).integers(8, 20, 2).tolist()
    return encoded(picture(*seed, height=height, width=width, channels=channels), "JPEG")


def canonical(images, labels):
    order = pixel_order(images, labels)
    return images[order], labels[order]


# Archives and folders


def write(root: Path, members) -> Path:
    """The same copied by hand."""
    for name, content in members.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def npy(array):
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def class_folders(classes, images, labels, order=None):
    """PNG files in a folder per class, named in the order they are given."""
    order = range(len(labels)) if order is None else order
    return {
        f"{classes[labels[i]]}/{number:03}.png": encoded(images[i])
        for number, i in enumerate(order)
    }


# Datasets


def mnist(train, test):
    files = {}
    for prefix, (images, labels) in (("train", train), ("t10k", test)):
        header = struct.pack(">4I", 0x803, *images.shape[:3])
        files[f"{prefix}-images-idx3-ubyte.gz"] = gzip.compress(header + images.tobytes())
        header = struct.pack(">2I", 0x801, len(labels))
        body = header + labels.astype(np.uint8).tobytes()
        files[f"{prefix}-labels-idx1-ubyte.gz"] = gzip.compress(body)
    return files


def rows(images):
    """As CIFAR's pickles have them: red, green, blue after one another."""
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def cifar10(train, test, classes):
    """train: of at least five images."""
    folder, members = "cifar-10-batches-py", {}
    for number, chosen in enumerate(np.array_split(np.arange(len(train[1])), 5), 1):
        members[f"data_batch_{number}"] = {
            "batch_label": f"training batch {number} of 5",
            "data": rows(train[0][chosen]),
            "labels": train[1][chosen].tolist(),
            "filenames": [f"{i}.png" for i in chosen],
        }
    members["test_batch"] = {"data": rows(test[0]), "labels": test[1].tolist()}
    members["batches.meta"] = {"label_names": list(classes), "num_vis": 3072}
    packed = {f"{folder}/{name}": pickle.dumps(value, 2) for name, value in members.items()}
    return {"cifar-10-python.tar.gz": tar({**packed, f"{folder}/readme.html": b"<html>"})}


def cifar100(train, test, classes):
    members = {
        split: {
            "data": rows(images),
            "fine_labels": labels.tolist(),
            "coarse_labels": (len(classes) - labels).tolist(),
        }
        for split, (images, labels) in (("train", train), ("test", test))
    }
    members["meta"] = {"fine_label_names": list(classes), "coarse_label_names": ["all"]}
    packed = {f"cifar-100-python/{name}": pickle.dumps(v, 2) for name, v in members.items()}
    return {"cifar-100-python.tar.gz": tar(packed)}


def cifar10_1(images, labels):
    files = {"data": images, "labels": labels.astype(np.int32)}
    return {f"cifar10.1_v6_{key}.npy": npy(array) for key, array in files.items()}


def cifar10_c(kinds, images, labels):
    """Severity s is the images with s added to every pixel."""
    members = {"CIFAR-10-C/labels.npy": npy(np.tile(labels, 5).astype(np.uint8))}
    for kind in kinds:
        stacked = np.concatenate([images + np.uint8(severity) for severity in range(1, 6)])
        members[f"CIFAR-10-C/{kind}.npy"] = npy(stacked)
    return {"CIFAR-10-C.tar": tar(members, "w:")}


def stl10(train, test, classes):
    members = {
        "class_names.txt": "".join(f"{c}\n" for c in classes).encode(),
        "fold_indices.txt": b"0 1\n",
        "unlabeled_X.bin": picture(9, height=96, width=96).tobytes(),
    }
    for split, (images, labels) in (("train", train), ("test", test)):
        # "column-major order, one channel at a time", and labels from 1
        members[f"{split}_X.bin"] = images.transpose(0, 3, 2, 1).tobytes()
        members[f"{split}_y.bin"] = (labels + 1).astype(np.uint8).tobytes()
    packed = {f"stl10_binary/{name}": content for name, content in members.items()}
    return {"stl10_binary.tar.gz": tar(packed)}


def tiny_imagenet(wnids, train=2, test=1, size=8):
    """Every fifth image is grey, as some are."""
    members, annotations = {"wnids.txt": "".join(f"{w}\n" for w in wnids).encode()}, ""
    for c, wnid in enumerate(wnids):
        members[f"train/{wnid}/{wnid}_boxes.txt"] = b""
        for i in range(train + test):
            image = picture(c, i, height=size, width=size, channels=3 if (c + i) % 5 else 1)
            name = f"train/{wnid}/images/{wnid}_{i}.JPEG"
            if i >= train:
                number = (i - train) * len(wnids) + len(wnids) - c
                name = f"val/images/val_{number}.JPEG"
                annotations += f"val_{number}.JPEG\t{wnid}\t0\t0\t{size - 1}\t{size - 1}\n"
            members[name] = encoded(image, "JPEG")
    members["val/val_annotations.txt"] = annotations.encode()
    members["test/images/test_0.JPEG"] = encoded(picture(0, height=size, width=size), "JPEG")
    return {f"tiny-imagenet-200/{name}": content for name, content in members.items()}


def cub(classes, train=2, test=1):
    """Image numbers run through the classes, test images between the training images."""
    tables = {"images": "", "image_class_labels": "", "train_test_split": "", "classes": ""}
    members, number = {"attributes.txt": b"1 has_bill_shape::curved\n"}, 0
    for c, name in enumerate(classes, 1):
        tables["classes"] += f"{c} {name}\n"
        for i in range(train + test):
            number += 1
            file = f"{name}/{name.partition('.')[2]}_{90 - i:04}.jpg"
            members[f"CUB_200_2011/images/{file}"] = jpeg(c, i)
            tables["images"] += f"{number} {file}\n"
            tables["image_class_labels"] += f"{number} {c}\n"
            tables["train_test_split"] += f"{number} {int(not 1 <= i <= test)}\n"
    return members | {f"CUB_200_2011/{t}.txt": text.encode() for t, text in tables.items()}


def plantnet(counts, names, root="plantnet_300K"):
    """counts: species id -> training images; one test image of each, one for validation."""
    members = {f"{root}/plantnet300K_species_id_2_name.json": json.dumps(names).encode()}
    for species, train in counts.items():
        for split, number in (("train", train), ("val", 1), ("test", 1)):
            for i in range(number):
                file = f"{root}/images/{split}/{species}/{split}{i}.jpg"
                members[file] = jpeg(int(species), i, len(split))
    return members


def omniart(train, test):
    """Rows of (id, school, year), and the images with their names."""
    members = {}
    for split, lines in (("train", train), ("test", test)):
        table = "omni_id,artist_full_name,school,creation_year\n"
        for number, school, year in lines:
            table += f'{number},"Doe, J.",{school},{year}\n'
            members[f"omniart/{split}/{number}.jpg"] = jpeg(number)
        members[f"omniart/{split}_complete.csv"] = table.encode()
    return members


def inaturalist(species, train, test):
    """species: id -> (super category, name). train, test: the id of each image."""
    files, images = {}, {}
    for split, ids in (("train", train), ("val", test)):
        found = {
            "info": {"year": 2017},
            "categories": [
                {"id": i, "name": name, "supercategory": above}
                for i, (above, name) in reversed(species.items())
            ],
            "images": [],
            "annotations": [],
        }
        for number, of in enumerate(ids):
            file = f"train_val_images/{species[of][0]}/{species[of][1]}/{split}{number}.jpg"
            images[file] = jpeg(number, len(split))
            found["images"].append({"id": number, "file_name": file, "width": 9, "height": 9})
            found["annotations"].append({"id": 5, "image_id": number, "category_id": of})
        found["annotations"].reverse()
        files[f"{split}2017.json"] = json.dumps(found).encode()
    return {"train_val_images.tar.gz": tar(images), "train_val2017.zip": zipped(files)}


# Published, and read


CLASSES = ("apple", "bear", "cat")
WNIDS, READABLE = ("n02", "n01", "n03"), ("goldfish", "bullfrog, frog", "tailed frog")
BIRDS = ("001.Albatross", "002.Auk", "003.Finch", "004.Gull")


def publish_cifar10(shelf):
    """Both splits: 6, 5 and 4 images of CLASSES."""
    splits = [pictures([6, 5, 4], s, height=32, width=32) for s in (0, 1)]
    facts = {"classes": CLASSES, "num_classes": 3, "train": 15, "test": 15}
    shelf.publish("cifar10", cifar10(*splits, CLASSES), **facts)
    return splits


def publish_tiny_imagenet(shelf):
    """What its archive holds."""
    members = tiny_imagenet(WNIDS)
    shelf.publish(
        "tiny_imagenet",
        {"tiny-imagenet-200.zip": zipped(members)},
        classes=WNIDS,
        names=READABLE,
        num_classes=3,
        size=8,
        train=6,
        test=3,
    )
    return members


def publish_cub(shelf):
    """What its archive holds: four classes, of which cub_50 has two."""
    members = cub(BIRDS)
    archive = {"CUB_200_2011.tgz": tar(members)}
    shelf.publish("cub", archive, classes=BIRDS, num_classes=4, train=8, test=4)
    part = {"of": "cub", "first": 2}
    shelf.describe("cub_50", options=part, num_classes=2, train=4, test=2)
    return members


def bird(c, i):
    """The place of image i of class c; image 1 is for testing."""
    return f"CUB_200_2011/images/{BIRDS[c]}/{BIRDS[c][4:]}_{90 - i:04}.jpg"


def png_folders(data, splits, name="cifar10"):
    """Both splits as class folders, shuffled and renamed."""
    for split, (images, labels) in zip(("train", "test"), splits):
        order = np.random.default_rng(len(split)).permutation(len(labels))
        write(data / name / split, class_folders(CLASSES, images, labels, order))
    return data / name


def own_folders(root, test=True, **shape):
    """Class folders of 4, 3 and 5 pictures (and 1, 2 and 1 to test)."""
    for split, counts in (("train", [4, 3, 5]), ("test", [1, 2, 1]) if test else ("", [])):
        if counts:
            images, labels = pictures(counts, len(split), **shape)
            inner = split if test else ""
            write(root / inner, class_folders(CLASSES, images, labels))
    return root


def training(*overrides):
    """A checked configuration."""
    return split_config(compose([*overrides]))[0]


def assert_images(data, train, test):
    """The images and labels of both splits, in canonical order."""
    for images, labels, part in (
        (data.train_images, data.train_labels, train),
        (data.test_images, data.test_labels, test),
    ):
        expected = canonical(*part)
        assert images.dtype == torch.uint8 and labels.dtype == torch.int64
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), expected[0])
        assert labels.tolist() == expected[1].tolist()
