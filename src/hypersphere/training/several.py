"""One training run on several devices of one machine: Lightning's DDP, a process per device.

Every process trains on its share of each batch and holds the head whole. The embeddings of all
shares are gathered before the loss, so that any head, whether it compares pairs, follows centers or
keeps class means, sees the batch that one device would have seen: the numbers are those of one
device but for the order of sums. Test images are judged by every process alike.
"""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hypersphere.config import Training
from hypersphere.devices import DEVICES
from hypersphere.errors import UserError
from hypersphere.processes import watch_parent
from hypersphere.training import module
from hypersphere.training.files import FileImages
from hypersphere.training.images import SmallImages
from hypersphere.training.learner import Learner
from hypersphere.training.resume import LOG, RESUME, Say, usable

LOOK = 0.2  # seconds between two looks at the log of the process that writes


def fit(
    learner: Learner, images: SmallImages | FileImages, folder: Path, say: Say, number: int
) -> torch.device:
    """Train on `number` devices, going on after a resume point of Lightning's; the learner then has
    the trained weights and the curve. Returns the device where it may go on.

    Raises UserError for a network that several devices would train otherwise than one, for devices
    that are not there, and when a process was killed (what it did is in the resume point).
    """
    cuda = torch.cuda.is_available()
    _check(learner, number, cuda)
    point = folder / RESUME
    if (kept := usable(point, say)) is not None and "loops" not in kept:
        raise UserError(
            f"{point}: was left by the driver for one device, which alone goes on from it; unset"
            f" {DEVICES} for this run"
        )
    network, before = learner.network, _lines(folder)
    arguments = (
        learner.training, network.state_dict(), network.inherited, folder, number, cuda,
        torch.get_num_threads(), _free_port(),
    )  # fmt: skip
    context = mp.start_processes(_train, arguments, number, join=False, start_method="spawn")
    assert context is not None
    try:
        while not context.join(LOOK):
            for line in _lines(folder)[len(before) :]:
                before.append(line)
                say(line)
    except mp.ProcessRaisedException as error:
        _raise(error)
    except mp.ProcessExitedException as error:
        raise UserError(
            f"run {learner.training.id}: process {error.error_index + 1} of {number} ended"
            f" ({error.signal_name or error.exit_code}; out of memory?), and with it the others;"
            " run again to go on from the last whole epoch"
        ) from None
    finally:
        for process in context.processes:
            process.kill()
    for line in _lines(folder)[len(before) :]:
        say(line)
    found = torch.load(point, map_location="cpu", weights_only=True)
    weights = {k.removeprefix("network."): v for k, v in found["state_dict"].items()}
    network.load_state_dict(weights)
    learner.load_state(found)
    device = torch.device("cuda", 0) if cuda else torch.device("cpu")
    images.setup(device)
    return device


def _check(learner: Learner, number: int, cuda: bool) -> None:
    """Refuse what several devices would train otherwise than one."""
    what = f"{DEVICES}={number}: run {learner.training.id}"
    if cuda and torch.cuda.device_count() < number:
        raise UserError(f"{what}: this machine has {torch.cuda.device_count()} GPUs")
    layers = list(learner.network.modules())
    if any(isinstance(layer, nn.modules.dropout._DropoutNd) for layer in layers):
        raise UserError(
            f"{what}: its dropout draws for a whole batch, which several devices cannot share;"
            f" train it on one (unset {DEVICES})"
        )
    if not cuda and any(isinstance(layer, _BatchNorm) for layer in layers):
        raise UserError(
            f"{what}: its batch normalisation is shared between GPUs alone; on CPUs train it in one"
            f" process (unset {DEVICES})"
        )


def _train(
    rank: int, training: Training, weights: dict[str, Tensor], inherited: set[str], folder: Path,
    number: int, cuda: bool, threads: int, port: int,
) -> None:  # fmt: skip
    """What the process `rank` does: train, and if it is the first, write resume points and log."""
    watch_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the parent's, which ends this
    os.environ |= {
        "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)
    }  # fmt: skip
    torch.set_num_threads(threads)
    learner = Learner(training)
    learner.network.load_state_dict(weights)
    learner.network.inherited = inherited
    learner.whole = whole
    images = SmallImages(training) if training.dataset.in_memory else FileImages(training)
    images.share = (rank, number)
    module.fit(
        learner, images, folder, lambda line: None,
        accelerator="cuda" if cuda else "cpu", devices=number, sync_batchnorm=cuda,
        # buffers are worked out alike everywhere, from the whole batch
        strategy=DDPStrategy(
            broadcast_buffers=False, process_group_backend="nccl" if cuda else "gloo"
        ),
    )  # fmt: skip


def whole(embeddings: Tensor, *numbers: Tensor) -> tuple[Tensor, ...]:
    """Embeddings (b, dim) and numbers (b,) of this process's share -> those of the whole batch
    (n, dim), (n,), in its order; b may differ by process.

    The gradient of a share is times the number of processes: DDP takes the mean over them, where a
    backbone's gradient is the sum over the shares, and the head's the same in all.
    """
    size = torch.tensor([len(embeddings)], device=embeddings.device)
    found = [torch.empty_like(size) for _ in range(dist.get_world_size())]
    dist.all_gather(found, size)
    sizes = torch.cat(found).tolist()
    return _Gathered.apply(embeddings, sizes), *(_gather(each, sizes) for each in numbers)


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, mine: Tensor, sizes: list[int]) -> Tensor:
        context.sizes = sizes
        return _gather(mine, sizes)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        own = gradient.split(context.sizes)[dist.get_rank()]
        return own * len(context.sizes), None


def _gather(mine: Tensor, sizes: list[int]) -> Tensor:
    """The rows of all processes; all send as many, so the missing ones are filled up."""
    padded = mine.new_zeros(max(sizes), *mine.shape[1:])
    padded[: len(mine)] = mine
    found = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(found, padded)
    return torch.cat([rows[:size] for rows, size in zip(found, sizes, strict=True)])


def _lines(folder: Path) -> list[str]:
    """Whole lines of the run's log."""
    file = folder / LOG
    text = file.read_text() if file.exists() else ""
    return text[: text.rfind("\n") + 1].splitlines()


def _raise(error: mp.ProcessRaisedException) -> None:
    """The error of a process as if it were raised here: what the user can mend in one line."""
    kind, _, text = str(error).strip().splitlines()[-1].partition(": ")
    if kind.endswith("UserError"):
        raise UserError(text) from None
    raise error


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
