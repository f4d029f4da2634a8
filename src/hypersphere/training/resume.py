"""What a training leaves after each whole epoch: a line in its log and a resume point."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

RESUME, LOG = "resume.ckpt", "log.txt"

Say = Callable[[str], None]


def usable(path: Path, say: Say) -> dict[str, Any] | None:
    """What a resume point holds, if it can be read; a damaged one is dropped, and the run starts
    again. Lightning's holds its `loops`, the packed driver's does not."""
    if not path.exists():
        return None
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        if {"state_dict", "optimizer_states", "lr_schedulers", "history"} <= found.keys():
            return found
        why = "no resume point of ours"
    except Exception as error:  # torch raises many kinds for a damaged file
        why = f"damaged, {type(error).__name__}"
    say(f"{path}: {why}; this run starts again from its first epoch")
    path.unlink()
    return None


def log_epoch(folder: Path, entry: Mapping[str, Any], epochs: int, say: Say) -> None:
    """One line for an epoch's `entry` of the curve, in the run's log and to whoever listens."""
    line = f"epoch {entry['epoch']}/{epochs}: loss {entry['loss']:.4f}"
    for name in ("test_accuracy", "validation_accuracy"):
        if name in entry:
            line += f", {name.replace('_', ' ')} {entry[name]:.4f}"
    line += f", {entry['seconds']:.1f} s"
    with open(folder / LOG, "a") as file:
        file.write(line + "\n")
    say(line)
