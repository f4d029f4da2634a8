"""The documentation says what is: its examples run, its schema is that of real records, it builds."""

import dataclasses
import functools
import importlib
import importlib.util
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

import hypersphere
from hypersphere import cli, heads, losses, paths, prototypes
from hypersphere.config import Evaluation, compose, split_config
from hypersphere.execute import run_node
from hypersphere.papers.spec import paper, paper_keys
from hypersphere.store import Store, read_lines

pytestmark = pytest.mark.skipif(not paths.in_checkout(), reason="docs/ is in the checkout")
DOCS = paths.root() / "docs"
COMMITTED = paths.root() / "results"


@dataclasses.dataclass
class Block:
    """A fenced block of a page. title: the file that it is the content of, "" for none."""

    language: str
    title: str
    text: str


def blocks(page):
    found = re.findall(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", (DOCS / page).read_text(),
                       re.MULTILINE | re.DOTALL)  # fmt: skip
    return [Block(*each) for each in found]


def run_python(page):
    """Execute the examples of a page one after the other; the names they leave."""
    names = {"__name__": "example"}
    examples = [b for b in blocks(page) if b.language == "python" and not b.title]
    assert examples
    for block in examples:
        exec(compile(block.text, page, "exec"), names)
    return names


def a_run(folder):
    """Train a miniature, judge it, hand it on to `folder`."""
    training, judges = split_config(compose(["paper=nsl", "schedule.epochs=1"]))
    store = Store()
    run_node(training, store)
    judge = Evaluation(next(iter(judges.values())), training)
    run_node(judge, store)
    if folder:
        assert cli.main(["store", "export", training.id, "--to", str(folder)]) == 0
    return store, training, judge


def test_the_examples_of_the_library_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    a_run("my-model")
    torch.manual_seed(0)
    names = run_python("library.md")
    # two new classes by five examples each, among ten: none was right before
    assert names["accuracy"] > 0.95 and names["new_accuracy"] > 0.3
    assert names["head"].num_classes == 10
    assert names["closest"] == pytest.approx(0, abs=1e-6)  # 10 classes in 6 dimensions: orthoplex
    assert names["points"].shape == (10, 6) and not list(names["towards"].parameters())
    assert not list(names["fixed"].parameters()) and names["few"].mean("joint/harmonic").shape == (
        2,
    )
    assert names["five_way"].mean > 0.8 and names["nearest"]["recall@1"] > 0.9
    assert names["unknown"]["auroc"] > 0.5
    assert names["logits"].shape[0] == len(names["names"]) == 4
    for block in blocks("library.md"):
        lines = [line for line in block.text.splitlines() if line.strip()]
        assert block.language != "python" or len(lines) < 10, block.text


def test_records_are_read_as_shown(monkeypatch):
    monkeypatch.delenv("HYPERSPHERE_RESULTS")
    names = run_python("records.md")
    assert len(names["trainings"]) > 100 and names["seconds"] > 0 and not names["complaints"]


def table(heading):
    """The rows of the first table after a heading of records.md: key -> second column."""
    text = (DOCS / "records.md").read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("| `")]
    return {key: kinds.strip() for keys, kinds in rows for key in re.findall(r"`([^`]+)`", keys)}


def test_the_schema_is_that_of_real_records():
    store, training, judge = a_run("")
    found = [store.get(training.id), store.get(judge.id)]
    assert found[1]["parent_weights"] == found[0]["files"]["model.safetensors"]
    for file in COMMITTED.glob("*/records.jsonl"):
        found += read_lines(file)[0].values()
    assert {record["kind"] for record in found} == {"training", "evaluation", "computation"}
    keys = table("Keys")
    for record in found:
        trains = record["kind"] == "training"
        always = {
            k for k, kinds in keys.items() if kinds == "all" or (trains and kinds == "training")
        }
        now_and_then = {"some trainings": trains, "most with a parent": record["parent"]}
        sometimes = {k for k, kinds in keys.items() if now_and_then.get(kinds)}
        assert always <= set(record) <= always | sometimes, record["run_id"]
    epochs = table("An epoch of the curve")
    always = {key for key, where in epochs.items() if where == "all"}
    for epoch in (e for r in found if r["kind"] == "training" for e in r["epochs"]):
        assert always <= set(epoch) <= set(epochs)


def test_every_command_and_option_shown_is_there():
    known = subprocess.run([sys.executable, "-m", "hypersphere.cli", "--help"], check=True,
                           capture_output=True, text=True).stdout  # fmt: skip
    pages = [*DOCS.rglob("*.md")]
    said = {
        w for page in pages for w in re.findall(r"^ *hypersphere ([a-z]+)", page.read_text(), re.M)
    }
    assert {"store", "data", "track", "run", "plan"} <= said
    for word in said:
        assert re.search(rf"\b{word}\b", known), word
    targets = {
        w for page in pages for w in re.findall(r"\bmake ([a-z-]+)$", page.read_text(), re.M)
    }
    makefile = (paths.root() / "Makefile").read_text()
    assert all(f"\n{target}:" in makefile for target in targets)


# What the package offers


@pytest.mark.parametrize("module", [hypersphere, heads, prototypes, losses,
                                    importlib.import_module("hypersphere.evaluation.fewshot")],
                         ids=lambda module: module.__name__)  # fmt: skip
def test_public_names_are_documented_and_typed(module):
    names = getattr(module, "__all__", None) or [
        name for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__
    ]  # fmt: skip
    for name in names:
        value = getattr(module, name)
        if inspect.ismodule(value) or isinstance(value, str):
            continue
        assert value.__doc__ and len(value.__doc__.split()) > 5, name
        functions = [value] if inspect.isfunction(value) else [value.__init__]
        if inspect.isclass(value):
            functions += [
                f for n, f in vars(value).items() if inspect.isfunction(f) and n[0] != "_"
            ]
            if dataclasses.is_dataclass(value):
                functions.remove(value.__init__)
        for function in functions:
            own = [
                p
                for p in inspect.signature(function).parameters.values()
                if p.name not in ("self", "cls")
            ]
            missing = [p.name for p in own if p.annotation is p.empty]
            assert not missing, f"{name}.{function.__name__}: {missing}"


def test_importing_the_package_brings_no_torch():
    code = ("import sys, hypersphere; assert 'torch' not in sys.modules; dir(hypersphere);"
            "assert 'torch' not in sys.modules; from hypersphere import *; hypersphere.prototypes")  # fmt: skip
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (Path(hypersphere.__file__).parent / "py.typed").exists()
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        hypersphere.nonsense  # noqa: B018


# Adding one's own


def words(line):
    first, *rest = shlex.split(line)
    command = {"hypersphere": ["-m", "hypersphere.cli"], "python": []}[first]
    return [sys.executable, *command, *rest]


@pytest.mark.slow
def test_adding_a_head_a_backbone_a_dataset_a_paper_and_a_table(tmp_path):
    environment = os.environ | {
        "HYPERSPHERE_CONF": "mine",
        "HYPERSPHERE_DATA": str(tmp_path / "data"),
    }
    said = []
    for block in blocks("extending.md"):
        if block.title:
            file = tmp_path / block.title
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text)
        if block.language != "console":
            continue
        for line in block.text.splitlines():
            done = subprocess.run(
                words(line), cwd=tmp_path, env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
            said.append(done.stdout)
    store = Store()
    trainings = [r for r in store.records.values() if r["kind"] == "training"]
    # three single ones, two seeds of three heads and of two further angles, and of one epoch
    assert len(trainings) == 3 + 2 * 3 + 2 * 2 + 2
    assert {r["identity"]["head"]["name"] for r in trainings} == {
        "arcface",
        "normalized_softmax",
        "softmax",
    }
    assert {r["data"]["name"] for r in trainings} == {"digits", "my_digits"}
    assert "trainings: 10 (12 if nothing were shared between items)" in "".join(said)
    results = Path(environment["HYPERSPHERE_RESULTS"]) / "quick"
    table1 = pd.read_csv(results / "tables/margins/table1.csv")
    assert table1["method"].tolist() == ["softmax", "nsl", "arcface"]
    assert (table1["verdict"] == "not comparable").all() and table1["ours"].between(40, 100).all()
    assert (results / "figures/margins/figure1.png").stat().st_size > 1000
    ablation = pd.read_csv(results / "ablations/margins/table1--arcface.csv")
    assert sorted(ablation["setting"]) == [0.1, 0.2, 0.4, 1, 2] and (ablation["n"] == 2).all()
    claims = pd.read_csv(results / "claims.csv")
    assert claims.loc[claims["paper"] == "margins", "verdict"].tolist() == ["not tested"]


def test_a_folder_of_ones_own_that_is_not_there(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("HYPERSPHERE_CONF", str(tmp_path / "nowhere"))
    assert cli.main(["plan"]) == 2
    assert "HYPERSPHERE_CONF=" in capsys.readouterr().err


# The pages as they are built


def hooks():
    spec = importlib.util.spec_from_file_location(
        "docs_hooks", paths.root() / "scripts/docs_hooks.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("key", paper_keys())
def test_a_papers_page_says_all_that_is_declared(key):
    page = (DOCS / "papers" / f"{key}.md").read_text()
    assert f"<!-- declared: {key} -->" in page
    said = re.sub(r"\\([*_<|])", r"\1", hooks().declared(paper(key)))
    about = paper(key).about
    for text in [*about.decisions, *about.deviations, *(p.note for p in about.presets.values())]:
        assert text in said
    for item in paper(key).items.values():
        assert f"| {item.name} |" in said and all(f"`{name}`" in said for name in item.variants)
        assert all(own.note in said for own in item.presets.values() if own.note)
    # what the prose names is there
    for group, option in re.findall(r"`(head|split|evaluations)=([a-z_]+)`", page):
        assert (paths.conf_dir() / group / f"{option}.yaml").exists(), option


class Links(HTMLParser):
    """What a built page refers to, what loads by itself, and the places in it."""

    def __init__(self, page):
        super().__init__()
        self.links, self.loaded, self.places = [], [], set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.places.add(found.get("id"))
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if "src" in found or (
            tag == "link" and found.get("rel") in ("stylesheet", "icon", "preload")
        ):
            self.loaded.append(found.get("src") or found["href"])


@pytest.mark.slow
def test_the_documentation_builds_and_its_links_resolve(tmp_path):
    pytest.importorskip("mkdocs")
    site = tmp_path / "site"
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "--site-dir",
        str(site),
    ]
    done = subprocess.run(command, cwd=paths.root(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = sorted(site.rglob("*.html"))
    assert len(pages) >= 13
    parsed = functools.cache(Links)
    for page in pages:
        found = parsed(page)
        assert not [link for link in found.loaded if re.match(r"(https?:)?//", link)], page
        for link in [*found.links, *found.loaded]:
            target, _, place = link.partition("#")
            if re.match(r"(https?:|mailto:|data:)", link) or page.name == "404.html":
                continue
            file = (page.parent / target.partition("?")[0]).resolve() if target else page
            assert file.is_file(), f"{page.name}: {link}"
            assert not place or file.suffix != ".html" or place in parsed(file).places, (
                f"{page.name}: {link}"
            )
    reference = (site / "reference.html").read_text()
    for name in ("NormalizedSoftmax", "imprint", "optimal", "triplet", "evaluate", "load_model"):
        assert f"{name}" in reference
    assert (
        shutil.which("make") is None
        or "mkdocs build --strict" in (paths.root() / "Makefile").read_text()
    )


def test_the_citation_is_valid_and_names_the_papers():
    citation = yaml.safe_load((paths.root() / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0" and citation["version"] == hypersphere.__version__
    assert (
        citation["title"] == "hypersphere"
        and citation["message"]
        and citation["type"] == "software"
    )
    assert citation["authors"] == [{"name": "The hypersphere developers"}]
    assert citation["license"] == "MIT"
    cited = {reference["url"]: reference for reference in citation["references"]}
    for key in paper_keys():
        about = paper(key).about
        reference = cited.pop(about.url)
        assert reference["title"] == about.title and reference["type"] and reference["authors"]
        assert str(reference["year"]) in about.citation or reference["year"] in (2020, 2021)
        identifiers = {each["value"] for each in reference["identifiers"]}
        arxiv = re.search(r"\d{4}\.\d{5}", about.citation).group()
        assert f"arXiv:{arxiv}" in identifiers or f"10.48550/arXiv.{arxiv}" in identifiers
    assert not cited
