#!/usr/bin/env python
"""A real SLURM of several nodes on one machine, in a folder of its own.

python tests/slurm/cluster.py /tmp/cluster      starts it, says how to use it, ends it on Ctrl-C

Needs root, and Debian's slurm-wlm and munge (`make test-cluster` installs them). Nothing of the
machine's own SLURM is read or touched: configuration, key, sockets, ports and logs are its own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue")
# ReturnToService: a node that comes back after its death works again. Timeouts are short, so that
# a dead node is noticed in seconds.
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
SlurmctldPort={ports[0]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
StateSaveLocation={folder}/state
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdLogFile={folder}/slurmd.%n.log
SlurmdSpoolDir={folder}/spool.%n
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobRequeue=1
ReturnToService=2
SlurmdTimeout=6
SlurmctldTimeout=10
KillWait=2
MinJobAge=10
UnkillableStepTimeout=10
{nodes}
PartitionName=main Nodes={names} Default=YES MaxTime=INFINITE State=UP
"""


def lacking() -> str:
    """Why no cluster can be started here, or an empty string."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [name for name in PROGRAMS if shutil.which(name, path=_search_path()) is None]
    return f"needs Debian's slurm-wlm and munge ({missing[0]} is missing)" if missing else ""


class Cluster:
    """Nodes n1, n2, ... of one core each. `environment` has what clients need."""

    def __init__(self, folder: Path, nodes: int = 2) -> None:
        self.folder = folder
        self.nodes = [f"n{i + 1}" for i in range(nodes)]
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": _search_path()}

    def start(self) -> None:
        for name in ("state", *(f"spool.{node}" for node in self.nodes)):
            (self.folder / name).mkdir(parents=True)
        self.folder.chmod(0o755)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        ports = _free_ports(1 + len(self.nodes))
        host = socket.gethostname()
        nodes = "\n".join(
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=1"
            f" RealMemory=4000 State=UNKNOWN"
            for node, port in zip(self.nodes, ports[1:], strict=True)
        )
        config = CONFIG.format(
            host=host, folder=self.folder, ports=ports, nodes=nodes, names=",".join(self.nodes)
        )
        (self.folder / "slurm.conf").write_text(config)
        self.run(
            "munged", "--force", f"--key-file={key}", f"--socket={self.folder}/munge.socket",
            f"--pid-file={self.folder}/munged.pid", f"--log-file={self.folder}/munged.log",
            f"--seed-file={self.folder}/munged.seed",
        )  # fmt: skip
        self.run("slurmctld")
        for node in self.nodes:
            self.start_node(node)
        self.wait_for(lambda: self.run("sinfo", "-h", "-o", "%t %D") == f"idle {len(self.nodes)}")

    def start_node(self, node: str) -> None:
        self.run("slurmd", "-N", node)

    def kill_node(self, node: str) -> None:
        """What a power cut does: its daemon, and all that ran on it, gone at once."""
        daemon = int((self.folder / f"slurmd.{node}.pid").read_text())
        for pid in [daemon, *self._processes_of(node)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _processes_of(self, node: str) -> list[int]:
        """Processes of jobs on a node of this cluster, and what watches over them there."""
        ours = {f"SLURMD_NODENAME={node}", f"SLURM_CONF={self.folder}/slurm.conf"}
        found = set()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if ours <= set(
                    (folder / "environ").read_bytes().decode(errors="replace").split("\0")
                ):
                    found.add(int(folder.name))
                    parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                    if "slurmstepd" in Path(f"/proc/{parent}/comm").read_text():
                        found.add(parent)
        return sorted(found)

    def stop(self) -> None:
        with contextlib.suppress(subprocess.SubprocessError):
            self.run("scancel", "--user=root")
            time.sleep(1)
        for node in self.nodes:
            for pid in self._processes_of(node):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for name in (*(f"slurmd.{node}" for node in self.nodes), "slurmctld", "munged"):
            with contextlib.suppress(OSError, ValueError):
                os.kill(int((self.folder / f"{name}.pid").read_text()), signal.SIGTERM)

    def run(self, *command: str) -> str:
        """What a command of SLURM's prints."""
        done = subprocess.run(
            command, env={**os.environ, **self.environment}, text=True, timeout=60, check=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return done.stdout.strip()

    def wait_for(self, condition, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"waited in vain; see the logs in {self.folder}"
            time.sleep(0.2)


@contextlib.contextmanager
def running(folder: Path, nodes: int = 2) -> Iterator[Cluster]:
    cluster = Cluster(folder, nodes)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def _search_path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in found:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in found]


if __name__ == "__main__":
    if why := lacking():
        sys.exit(f"no SLURM here: {why}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with running(Path(sys.argv[1]).resolve()) as here:
        print(f"export SLURM_CONF={here.environment['SLURM_CONF']}")
        print(here.run("sinfo"), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
