"""What a record says of where its numbers come from: code, versions, hardware."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import time
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypersphere import __version__, paths

if TYPE_CHECKING:
    from hypersphere.config import Node

SCHEMA = 1  # of a record; raised when a reader of old records would misread a new one
PACKAGES = ("torch", "torchvision", "pytorch-lightning", "hydra-core", "numpy", "scikit-learn")


def stamp(node: Node, started: float, device: str) -> dict[str, Any]:
    """The part that every record has, for a `node` whose work began at `started`
    (time.monotonic(): the clock on the wall may jump)."""
    identity = node.identity()
    return {
        "schema": SCHEMA,
        "run_id": node.id,
        "kind": identity["kind"],
        "parent": node.parent,
        "identity": identity,
        "git": git(),
        "versions": versions(),
        "hardware": hardware(device),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(time.monotonic() - started, 1),
    }


@cache
def git() -> dict[str, Any]:
    """Commit of the checkout and whether tracked files differ from it; None outside a checkout."""

    def ask(*words: str) -> str | None:
        command = ["git", "-C", str(paths.root()), *words]
        try:
            return subprocess.run(
                command, capture_output=True, text=True, check=True
            ).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return None

    commit = ask("rev-parse", "HEAD") if paths.in_checkout() else None
    # results/ changes while runs are collected and is no part of what was computed.
    changed = ask("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results")
    return {"commit": commit, "dirty": bool(changed) if commit else None}


@cache
def code() -> dict[str, Any]:
    """The code that runs: its commit, and a digest of the package's files, which also tells of
    edits that are not committed."""
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(p for p in package.rglob("*") if p.suffix in (".py", ".yaml")):
        # An installed package carries conf/ inside; what was submitted does not depend on it.
        if path.relative_to(package).parts[0] != "conf":
            digest.update(str(path.relative_to(package)).encode() + path.read_bytes())
    return {"commit": git()["commit"], "digest": digest.hexdigest()}


@cache
def versions() -> dict[str, str]:
    """Versions of Python, this package and what its numbers depend on."""
    found = {"python": platform.python_version(), "hypersphere": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def hardware(device: str) -> dict[str, Any]:
    """Processor, its bfloat16 instructions, threads, and the accelerator if `device` is one."""
    import torch

    model, flags = platform.processor() or platform.machine(), ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        fields = dict(
            (part.strip() for part in line.split(":", 1))
            for line in cpuinfo.read_text().splitlines()
            if ":" in line
        )
        model, flags = fields.get("model name", model), fields.get("flags", "")
    return {
        "processor": model,
        "amx": "amx_bf16" in flags,
        "avx512_bf16": "avx512_bf16" in flags,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else device,
    }
