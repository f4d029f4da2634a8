"""What of this machine and environment would make a run fail, or slow, and what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from hypersphere import devices, paths
from hypersphere.errors import UserError, did_you_mean

GB = 10**9
LITTLE, SCARCE = 0.5 * GB, 10 * GB  # free disk: a run cannot be kept, a preset may not be
VARIABLES = (  # all that this package reads
    "HYPERSPHERE_DATA", "HYPERSPHERE_RUNS", "HYPERSPHERE_RESULTS", "HYPERSPHERE_DEVICES",
    "HYPERSPHERE_WORKERS", "HYPERSPHERE_DECODED_GB", "HYPERSPHERE_MIRROR", "HYPERSPHERE_STALE",
    "HYPERSPHERE_HPN_PROTOTYPES", "HYPERSPHERE_JOB", "HYPERSPHERE_CONF", "HYPERSPHERE_COMPILE",
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """state: `ok`, `note` (nothing wrong, good to know), `warning`, or `problem` (runs will fail).
    remedy: what to do, "" where there is nothing."""

    name: str
    state: str
    detail: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Every check; one that breaks is a problem of its own and stops no other."""
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "python": _python,
        "packages": _packages,
        "torch": _torch,
        "processor": _processor,
        "gpu": _gpu,
        "disk": _disk,
        "data": _data,
        "runs": _runs,
        "wandb": _wandb,
        "launchers": _launchers,
        "environment": _environment,
    }
    found: list[Finding] = []
    for name, check in checks.items():
        try:
            found += check()
        except UserError as error:
            found.append(Finding(name, "problem", str(error)))
        except Exception as error:  # a broken installation may break anywhere
            found.append(Finding(name, "problem", f"{type(error).__name__}: {error}"))
    return found


def text(found: list[Finding]) -> str:
    """A line per finding, its remedy below it, and how many problems there are."""
    lines = []
    for each in found:
        lines.append(f"{each.state:<8} {each.name:<12} {each.detail}")
        if each.remedy:
            lines.append(f"{'':<21} -> {each.remedy}")
    count = Counter(each.state for each in found)
    lines.append(f"{count['problem']} problems, {count['warning']} warnings")
    return "\n".join(lines)


def _python() -> Iterator[Finding]:
    # The version that pyproject.toml asks for; pip sees to it, unless a folder is simply copied.
    good = sys.version_info >= (3, 11)
    yield Finding(
        "python",
        "ok" if good else "problem",
        f"{platform.python_version()}, {sys.executable}",
        "" if good else "use Python 3.11 or newer: make setup PYTHON=python3.12",
    )


def _packages() -> Iterator[Finding]:
    """Installed versions against what this package asks for."""
    wrong = []
    wanted = [Requirement(line) for line in metadata.requires("hypersphere") or []]
    needed = [each for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
    for each in needed:
        try:
            version = metadata.version(each.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{each.name} is missing")
            continue
        if not each.specifier.contains(version, prereleases=True):
            wrong.append(f"{each.name} {version} is not {each.specifier}")
    yield Finding(
        "packages",
        "problem" if wrong else "ok",
        "; ".join(wrong) or f"{len(needed)} as required",
        "make setup (the versions of the lock file), or pip install -e ." if wrong else "",
    )
    if "lightning" in {d.metadata["Name"] for d in metadata.distributions()}:
        yield Finding(
            "packages",
            "note",
            "`lightning` is installed beside pytorch-lightning; only the latter is used here",
        )


def _torch() -> Iterator[Finding]:
    import torch

    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU alone"
    try:
        import torchvision
    except (ImportError, RuntimeError, OSError) as error:
        yield Finding(
            "torch",
            "problem",
            f"torch {torch.__version__} ({built}) and torchvision"
            f" {metadata.version('torchvision')} do not go together: {error}",
            "install both from one index: pip install --force-reinstall torch torchvision",
        )
        return
    yield Finding(
        "torch", "ok", f"torch {torch.__version__} ({built}), torchvision {torchvision.__version__}"
    )


def _processor() -> Iterator[Finding]:
    from hypersphere.provenance import hardware

    told = hardware("cpu")
    fast = (
        "AMX: bf16 is about 3 times as fast as fp32" if told["amx"]
        else "AVX-512 bf16: bf16 is about 2 times as fast as fp32" if told["avx512_bf16"]
        else "no bf16 instructions: bf16 is rounded by software and about as fast as fp32"
    )  # fmt: skip
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB
    yield Finding(
        "processor", "ok", f"{told['processor']}, {told['cores']} cores, {memory:.0f} GB; {fast}"
    )
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        yield Finding("processor", "note", "no C++ compiler: torch.compile is not to be had")


def _gpu() -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        driver = shutil.which("nvidia-smi") is not None
        yield Finding(
            "gpu",
            "warning" if driver else "note",
            "torch sees no GPU, though this machine has nvidia-smi" if driver else "none",
            "install torch for the driver's CUDA version (nvidia-smi prints it)" if driver else "",
        )
        return
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        yield Finding(
            "gpu",
            "ok" if free > total / 2 else "warning",
            f"{about.name}, {free / GB:.0f} of {total / GB:.0f} GB free, {bf16}",
        )
    yield Finding(
        "gpu", "note", f"{devices.devices()} devices train each run (HYPERSPHERE_DEVICES)"
    )


def _disk() -> Iterator[Finding]:
    for variable, folder, needed in (
        ("HYPERSPHERE_RUNS", paths.runs_dir(), True),
        ("HYPERSPHERE_RESULTS", paths.results_dir(), True),
        ("HYPERSPHERE_DATA", paths.data_dir(), False),
    ):
        there = next(p for p in (folder, *folder.parents) if p.exists())
        free = shutil.disk_usage(there).free
        writable = os.access(there, os.W_OK)
        state, remedy = "ok", ""
        if needed and not writable:
            state, remedy = "problem", f"make it writable, or set {variable} to a folder that is"
        elif needed and free < LITTLE:
            state, remedy = "problem", f"free some space, or set {variable} to another disk"
        elif needed and free < SCARCE:
            state, remedy = "warning", "a preset's checkpoints and embeddings may take more"
        yield Finding(
            "disk",
            state,
            f"{folder}: {free / GB:.1f} GB free{'' if writable else ', not writable'} ({variable})",
            remedy,
        )


def _data() -> Iterator[Finding]:
    from hypersphere.data.inventory import states

    found = states()
    names: dict[str, list[str]] = {}
    for each in found:
        names.setdefault(each.state, []).append(each.name)
    here = names.get("present", [])
    yield Finding(
        "data",
        "ok" if here else "note",
        f"{len(here)} of {len(found)} datasets and files are here: {', '.join(here) or 'none'}",
        "hypersphere data status tells of each, data get fetches them"
        if names.keys() != {"present"}
        else "",
    )
    for each in found:
        if each.state in ("corrupt", "partial"):
            yield Finding("data", "warning", each.detail)  # which names it, and the remedy


def _runs() -> Iterator[Finding]:
    from hypersphere.provenance import git
    from hypersphere.store import Store

    store = Store()
    yield Finding("runs", "ok", f"{len(store.records)} finished runs known here")
    for complaint in store.complaints:
        yield Finding("runs", "warning", complaint)
    code = git()
    if code["commit"] is None:
        yield Finding("runs", "note", "no checkout: records will name no commit")
    elif code["dirty"]:
        yield Finding(
            "runs",
            "note",
            f"the checkout differs from its commit {code['commit'][:9]}; records will say so",
        )


def _wandb() -> Iterator[Finding]:
    from hypersphere.tracking.push import mode

    how = mode()
    told = {
        "online": "a key is there: runs are mirrored as they finish with --track",
        "offline": "no key: --track writes offline runs, which `wandb sync` uploads later",
        "disabled": "WANDB_MODE=disabled: nothing is mirrored",
    }
    yield Finding("wandb", "ok", f"wandb {metadata.version('wandb')}, {how}; {told[how]}")


def _launchers() -> Iterator[Finding]:
    ready, missing = ["local", "joblib"], []
    for name, package, command in (("slurm", "submitit", "sbatch"), ("ray", "ray", "")):
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            missing.append(f"{name} (pip install {package})")
            continue
        if command and shutil.which(command) is None:
            missing.append(f"{name} (no {command} on this machine)")
        else:
            ready.append(name)
    beside = f"; not: {', '.join(missing)}" if missing else ""
    yield Finding("launchers", "ok", f"{', '.join(ready)}{beside}")


def _environment() -> Iterator[Finding]:
    for name in sorted(os.environ):
        if name.startswith("HYPERSPHERE_") and name not in VARIABLES:
            hint = did_you_mean(name, VARIABLES)
            yield Finding("environment", "warning", f"{name} means nothing here{hint}")
    for name in VARIABLES:
        if (value := os.environ.get(name)) is not None:
            missing = (
                name in ("HYPERSPHERE_DATA", "HYPERSPHERE_CONF")
                and not Path(value).expanduser().is_dir()
            )
            yield Finding(
                "environment",
                "warning" if missing else "ok",
                f"{name}={value}{': no such folder' if missing else ''}",
            )
    threads = os.environ.get("OMP_NUM_THREADS")
    if threads and threads != "1":
        yield Finding(
            "environment", "note", f"OMP_NUM_THREADS={threads}; runs take one thread each"
        )
