"""A plan of 10,000 runs: its state is told rightly, in little memory (seconds: make bench)."""

import json
import os
import subprocess
import sys

import pytest

from hypersphere import paths

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not paths.in_checkout(), reason="scripts/ is part of a checkout"),
]


def test_ten_thousand_runs_in_less_than_a_gigabyte():
    done = subprocess.run(
        [sys.executable, paths.root() / "scripts/benches/many_runs.py", "--runs", "10000"],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["runs"] >= 10_000 and found["runs"] == sum(found["states"].values())
    for state in ("queued", "failed", "interrupted", "running"):
        assert found["said"][state] == found["states"][state] > 0
    assert found["said"]["complete"] is False
    assert found["peak_memory_mb"] is None or found["peak_memory_mb"] < 1000
