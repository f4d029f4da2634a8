"""`hypersphere data ...`: what is here, getting it, checking it, bringing one's own."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypersphere import paths
from hypersphere.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from hypersphere.data.facts import Resource

EXAMPLES = """examples:
  hypersphere data status                         what is here, what is missing or damaged
  hypersphere data get cifar100                   download, verify, unpack
  hypersphere data get cub --from /media/usb      take the archive from a folder or another URL
  hypersphere data show tiny_imagenet             facts, licence, citation, how to stage it by hand
  hypersphere data check                          read all that is here, compare with the published
  hypersphere data vectors cifar100 glove.6B.300d.txt   which class names have a vector there
  hypersphere data add birds ~/birds              your own {train,test}/<class>/ folders: data=birds
"""


def add_parser(commands: Any) -> None:
    """Add the command `data` to the parser's subcommands."""
    parser = commands.add_parser(
        "data",
        help="datasets: status, get, check, show, vectors, add",
        description="Datasets lie under HYPERSPHERE_DATA (default: data/), as torchvision has them",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(required=True, metavar="action")

    def action(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        made = actions.add_parser(name, help=text, description=text)
        made.set_defaults(command=function)
        return made

    status = action("status", _status, "which datasets are here")
    status.add_argument("names", nargs="*", metavar="name", help="default: all")
    status.add_argument("--json", action="store_true", help="for programs")

    get = action("get", _get, "download datasets: resumed, verified, put in place in one piece")
    get.add_argument("names", nargs="+", metavar="name")
    get.add_argument("--from", dest="source", help="a folder or URL that has the files")
    get.add_argument("--replace", action="store_true", help="of a copy that is there already")
    get.add_argument("--keep", action="store_true", help="the downloaded archives")

    check = action("check", _check, "read all of a dataset and compare it with the published one")
    check.add_argument("names", nargs="*", metavar="name", help="default: all that are here")

    show = action("show", _show, "facts, licence, citation, and how to stage a dataset by hand")
    show.add_argument("name")
    show.add_argument("--classes", action="store_true", help="class names in the order of labels")

    vectors = action("vectors", _vectors, "what a file of word vectors holds for the class names")
    vectors.add_argument("name")
    vectors.add_argument("file", type=Path, help=".npy, .npz, word2vec (.bin, .txt) or GloVe, .gz")
    vectors.add_argument("--out", type=Path, help="write them as .npy, one row per label")

    add = action("add", _add, "make your own folder of class folders a dataset")
    add.add_argument("name", help="how it will be called: data=NAME")
    add.add_argument("folder", type=Path, help="with train/<class>/ and test/<class>/")
    add.add_argument(
        "--test-share",
        type=_share,
        help="of each <class>/ of a folder without train/ and test/; 1: it only tests",
    )


def _status(options: argparse.Namespace) -> None:
    from hypersphere.data.inventory import look, states

    found = [look(_known(n)) for n in options.names] if options.names else states()
    if options.json:
        print(json.dumps([dataclasses.asdict(state) for state in found], indent=2))
        return
    for state in found:
        size = _size(state.bytes) if state.bytes is not None else ""
        print(f"{state.name:<23} {state.state:<8} {size:>9}  {_detail(state)}".rstrip())
    print(f"\nunder {paths.data_dir()} (HYPERSPHERE_DATA)")


def _detail(state: Any) -> str:
    from hypersphere.data.facts import DATASETS

    if not state.title:  # its description cannot be read
        return state.detail
    facts = _facts(state.name)
    while state.state == "missing" and "of" in getattr(facts, "options", {}):
        facts = DATASETS[facts.options["of"]]
    if state.state == "missing" and facts.where:
        published = "" if facts.downloads else "no archive is published: "
        return f"{published}hypersphere data {'get' if facts.downloads else 'show'} {state.name}"
    source = f"from {state.source}" if state.source else ""
    return "; ".join(text for text in (state.detail, source) if text)


def _get(options: argparse.Namespace) -> None:
    from hypersphere.data import notes
    from hypersphere.data.facts import DATASETS
    from hypersphere.data.fetching.download import NoGoodCopy, get
    from hypersphere.data.inventory import look

    # Every name is checked before the first of them downloads gigabytes.
    for name in [_known(name) for name in options.names]:
        if name in DATASETS and "of" in DATASETS[name].options:
            _say(f"{name} is made from {DATASETS[name].options['of']}, which is got now")
            name = DATASETS[name].options["of"]
        facts = _facts(name)
        state = look(name)
        if state.state == "present" and not options.replace:
            print(f"{name}: is here already, {state.where or state.detail}")
            continue
        if not facts.downloads:
            raise UserError(f"{name}: no archive is published.\n{_by_hand(name)}")
        how = {"source": options.source, "replace": options.replace, "keep": options.keep}
        try:
            sources = get(name, facts, say=_say, **how)
        except NoGoodCopy:
            print(_by_hand(name), flush=True)
            raise
        notes.forget(name)
        checked = look(name, verify=True)  # before anyone relies on it
        if checked.state != "present":
            raise UserError(checked.detail)
        notes.came_from(name, ", ".join(sources))
        print(f"{name}: complete under {checked.where}; {checked.detail}")


def _check(options: argparse.Namespace) -> int:
    from hypersphere.data.inventory import look, states

    names = [_known(n) for n in options.names]
    names = names or [state.name for state in states() if state.state != "missing"]
    bad = 0
    for name in names:
        state = look(name, decode=True)
        bad += state.state != "present"
        print(f"{name:<23} {state.state:<8} {state.detail}", flush=True)
    return 1 if bad else 0


def _show(options: argparse.Namespace) -> None:
    from hypersphere.data.facts import Dataset
    from hypersphere.data.load import class_names

    facts = _facts(_known(options.name))
    if options.classes:
        if not isinstance(facts, Dataset):
            raise UserError(f"{options.name}: has no classes of its own")
        print("\n".join(class_names(options.name)))
        return
    print(f"{facts.title}\ncitation: {facts.citation}\nlicence: {facts.licence or 'not stated'}")
    if isinstance(facts, Dataset):
        size = f"{facts.size} x {facts.size}" if facts.size else "any size, streamed from files"
        print(f"{facts.num_classes} classes, {facts.train:,} + {facts.test:,} images, {size}")
        if facts.mean and facts.std:
            print(f"mean {list(facts.mean)}, deviation {list(facts.std)} per channel, of [0, 1]")
        print(f"content {facts.content or 'not known: no complete copy was at hand'}")
    print(f"\n{_by_hand(options.name)}")


def _vectors(options: argparse.Namespace) -> None:
    import numpy as np

    from hypersphere.data.load import class_names
    from hypersphere.data.semantics import read_vectors
    from hypersphere.files import write_atomically

    found = read_vectors(options.file, class_names(_known(options.name)))
    print("\n".join([*found.report(), f"sha256 {found.sha256}"]))
    if options.out:
        named = options.out.name
        out = options.out.with_name(named if named.endswith(".npy") else f"{named}.npy")

        def write(path: Path) -> None:
            with open(path, "wb") as file:
                np.save(file, found.vectors)

        write_atomically(out, write)
        print(f"written: {out}, rows in the order of `hypersphere data show --classes`")


def _add(options: argparse.Namespace) -> None:
    from hypersphere.data.inventory import add

    facts = add(options.name, options.folder, test_share=options.test_share)
    held = f"held in memory, {facts.size} x {facts.size}" if facts.size else "streamed from files"
    print(
        f"{options.name}: {facts.num_classes} classes, {facts.train} + {facts.test} images, {held};"
        f" use it as data={options.name}"
    )


def _by_hand(name: str) -> str:
    from hypersphere.data.fetching.download import how_to_stage

    return how_to_stage(name, _facts(name))


def _facts(name: str) -> Resource:
    from hypersphere.data.facts import DATASETS, resources

    return DATASETS[name] if name in DATASETS else resources()[name]


def _known(name: str) -> str:
    from hypersphere.data.facts import DATASETS, resources

    known = [*DATASETS, *resources()]
    if name not in known:
        hint = did_you_mean(name, known)
        raise UserError(f"no dataset {name!r}{hint} (known: {', '.join(known)})")
    return name


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share above 0, up to 1")
    return value


def _size(number: int) -> str:
    from hypersphere.data.fetching.transfer import size_text

    return size_text(number)


def _say(line: object) -> None:
    print(line, file=sys.stderr, flush=True)
