"""The package as pip installs it works outside a checkout, launchers and configurations included."""

import os
import re
import subprocess
import sys
import sysconfig
import venv

import pytest

from hypersphere import paths

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not paths.in_checkout(), reason="a wheel is built from a checkout"),
]


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Runs a command of an environment in which the wheel is installed, in a folder of its own.
    Its dependencies are those of this environment, which is no part of it otherwise."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    run(*pip, "wheel", str(paths.root()), "--no-deps", "--no-build-isolation", "--no-index",
        "-w", folder)  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv/bin/python"
    run(*pip, "--python", str(python), "install", "--no-deps", "--no-index", str(wheel))
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    # A path in a .pth file is searched last, and .pth files found there are not followed: the
    # checkout that this environment may point to stays unknown.
    with open(f"{site}/dependencies.pth", "w") as file:
        file.write("".join(f"{sysconfig.get_path(key)}\n" for key in ("purelib", "platlib")))
    where = folder / "elsewhere"
    where.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "HYPERS"))}
    environment["OMP_NUM_THREADS"] = "1"

    def command(name, *words):
        return run(folder / "venv/bin" / name, *words, cwd=where, env=environment)

    command.folder, command.environment = where, environment
    return command


def test_it_is_the_installed_one_that_runs(installed):
    said = installed("python", "-c", "import hypersphere, hydra_plugins.hypersphere as p\n"
                     "print(hypersphere.__file__, p.__file__)")  # fmt: skip
    assert all(str(installed.folder.parent / "venv") in path for path in said.split())
    assert "hypersphere run --launcher slurm" in installed("hypersphere", "--help")


def test_it_plans_and_trains_an_item_by_joblib(installed):
    assert "preset quick" in installed("hypersphere", "plan", "--preset", "quick")
    item = ["--paper", "embedded-spaces", "--item", "figure2"]
    installed("hypersphere", "run", *item, "--launcher", "joblib", "--set", "jobs=2")
    tables = list((installed.folder / "results/quick").rglob("figure2.csv"))
    assert tables and all(file.stat().st_size for file in tables)
    assert ", complete" in installed("hypersphere", "status", *item)


def test_a_multirun_finds_the_launcher(installed):
    words = "-m paper=nsl hydra/launcher=joblib schedule.epochs=1 seed=0,1".split()
    said = installed("python", "-m", "hypersphere.app", *words)
    assert "joblib: 2 jobs submitted" in said and "training loss" in said


def test_it_is_a_typed_library_and_hands_runs_on(installed):
    words = (
        "paper=nsl head=prototypes head.steps=50 split=all_classes evaluations=none seed=3".split()
    )
    said = installed("python", "-m", "hypersphere.app", *words, "schedule.epochs=1")
    run_id = re.search(r"run (\w+): training", said)[1]
    installed("hypersphere", "store", "export", run_id[:8], "--to", "handed-on")
    code = """
from importlib.resources import files
import torch
from hypersphere import NormalizedSoftmax, Prototypes, evaluate, load_model, prototypes
assert (files("hypersphere") / "py.typed").is_file()
model = load_model("handed-on")
print(tuple(model(torch.zeros(5, 1, 8, 8, dtype=torch.uint8)).shape), len(model.classes))
head = NormalizedSoftmax(4, 3, scale=16.0)
head.imprint(torch.randn(2, 4), torch.tensor([3, 4]))
print(head.num_classes, Prototypes.from_points(prototypes.optimal(5, 4)).class_vectors.shape)
"""
    assert installed("python", "-c", code).splitlines() == ["(5, 10) 10", "5 torch.Size([5, 4])"]


def test_a_configuration_of_ones_own_needs_no_checkout(installed):
    own = installed.folder / "mine"
    (own / "head").mkdir(parents=True)
    (own / "my_heads.py").write_text(
        "from hypersphere.heads import NormalizedSoftmax\n\n\nclass Mine(NormalizedSoftmax):\n"
        "    def __init__(self, dim, num_classes, *, scale: float):\n"
        "        super().__init__(dim, num_classes, scale=scale)\n"
    )
    (own / "head" / "mine.yaml").write_text("_target_: my_heads.Mine\nname: mine\nscale: 8.0\n")
    installed.environment["HYPERSPHERE_CONF"] = "mine"
    try:
        words = "paper=nsl head=mine schedule.epochs=1".split()
        assert "training loss" in installed("python", "-m", "hypersphere.app", *words)
    finally:
        del installed.environment["HYPERSPHERE_CONF"]
