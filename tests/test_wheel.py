"""The package as pip installs it works outside a checkout, launchers and configurations included."""

import os
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

    command.folder = where
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
