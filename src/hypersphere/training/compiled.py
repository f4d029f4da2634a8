"""Training steps by torch.compile: a setting of the environment, no part of what a run is."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch import Tensor

from hypersphere.errors import UserError

COMPILE = "HYPERSPHERE_COMPILE"

Forward = Callable[[Tensor], Tensor]


def wanted() -> bool:
    """Whether runs are to be compiled. Raises UserError where that is neither 0 nor 1."""
    stated = os.environ.get(COMPILE, "0")
    if stated not in ("0", "1"):
        raise UserError(f"{COMPILE}={stated}: must be 1, to compile the steps of runs, or 0")
    return stated == "1"


class Compiled:
    """A network compiled for training on batches (n, channels, h, w): what follows a convolution is
    fused, so that batch normalisation and activations cross memory less often.

    n is that of the first batch. Others (the last of an epoch) go through the network as it is:
    each size would be compiled anew, which takes a minute. So do all once it turns out that this
    machine cannot compile (it has no C++ compiler, say), which is said. used: whether any batch
    went through compiled.
    """

    def __init__(self, network: torch.nn.Module, say: Callable[[str], None]) -> None:
        self.network, self.say = network, say
        self.size: int | None = None
        self.used = False
        self._compiled: Forward | None = torch.compile(network, dynamic=False)

    def __call__(self, images: Tensor) -> Tensor:
        self.size = self.size or len(images)
        if self._compiled is None or len(images) != self.size:
            return self.network(images)
        try:
            embeddings = self._compiled(images)
        except Exception as error:  # a backend refuses in words of its own
            if self.used:
                raise
            self._compiled = None
            why = (str(error).strip() or type(error).__name__).splitlines()[0]
            self.say(f"steps are not compiled, {COMPILE} notwithstanding: {why}")
            return self.network(images)
        self.used = True
        return embeddings
